"""Diffusion: noise that does not depend on the operator (Sohl-Dickstein et al. 2015; Ho et al. 2020).

    exploding, preserving   Gaussian noise, `walkback.noising.gaussian`
    flips                   bits, replaced by uniform ones, `walkback.noising.discrete`
    symbols                 one-hot symbols, the same

q(s_t | s_0) is known, so a path to learn from is no walk: each of its transitions has its rows at different levels,

    s_t ~ q(s_t | s_0),   s_{t-1} ~ q(s_{t-1} | s_t, s_0)

Each row visits each level below K once, from a random one on, and the rows of a transition are spread evenly over the
levels. The last transition has all rows at level K, whose states s_K the prior observes. With `draws`, a row visits
only so many levels, so that a long schedule does not learn from the same few examples for long.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias, final

import torch
from pydantic import Field
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel
from walkback.noising import BitNoise, GaussianNoise, Reversing, SymbolNoise, Visits
from walkback.noising.base import time_like
from walkback.operators import Conditional, DataAware, TransitionOperator
from walkback.processes import Abridged, Jumping, OperatorAware, Process, Stepwise
from walkback.schedules import Level, Levels
from walkback.state import State, Support, leaves
from walkback.support.readings import Numbers
from walkback.walk import Start, Transition
from walkback_processes.noises import Positive, forgetting_temperature, operator_variance, require_support

NoiseName: TypeAlias = Literal["exploding", "preserving", "flips", "symbols"]


@final
class DiffusionProcess(Process, Stepwise, Jumping, Abridged, DataAware, OperatorAware):
    """Diffusion with known marginals and posteriors; the equations are in the module's docstring.

    Args:
        noise: Kind of noise.
        sigma: σ, standard deviation of Gaussian noise at T = 1; None takes the operator's.
        rate: r, rate at which bits or symbols are replaced at T = 1.
        draws: Number of transitions of a path to learn from, at most K; None takes K.
        middles: Number n of gray levels whose middles (⌊n s⌋ + ½) / n the noise starts from, whatever their
            dequantization; None starts from the state itself. For operators whose last step is discretized.
    """

    def __init__(
        self,
        *,
        noise: NoiseName = "exploding",
        sigma: Positive | None = None,
        rate: Positive = 0.1,
        draws: Annotated[int, Field(ge=2)] | None = None,
        middles: Annotated[int, Field(ge=2, le=2**16)] | None = None,
    ) -> None:
        super().__init__()
        if middles is not None and noise in ("flips", "symbols"):
            raise ConfigurationError(
                f"Got process.middles = {middles} with process.noise = '{noise}', expected Gaussian noise: leave out "
                "process.middles."
            )
        self._middles = middles
        self._draws = draws
        self._name: NoiseName = noise
        self._sigma = sigma
        self.noise = (
            GaussianNoise(noise, variance=(sigma or 1.0) ** 2)
            if noise in ("exploding", "preserving")
            else BitNoise(rate)
            if noise == "flips"
            else SymbolNoise(rate)
        )
        self._numbers = Numbers()

    @torch.no_grad()
    def fit_data(self, data: Tensor) -> None:
        """Sets center and variance that are preserved."""
        if isinstance(self.noise, GaussianNoise):
            self.noise.fit_data(data)

    @torch.no_grad()
    def fit_operator(self, operator: TransitionOperator) -> None:
        """Copies the noise that the operator reverses, else sets σ to the operator's unless it is an option.

        Raises:
            ConfigurationError: The operator reverses other noise, or its noise is unknown or does not grow like the
                temperature.
        """
        reversed_noise = operator.reversed_noise if isinstance(operator, Reversing) else None
        if reversed_noise is not None:
            self._copy(reversed_noise)
            return
        if not isinstance(self.noise, GaussianNoise) or self._sigma is not None:
            return
        self.noise.variance.copy_(operator_variance(operator))

    def _copy(self, noise: GaussianNoise) -> None:
        if not isinstance(self.noise, GaussianNoise) or self.noise.form != noise.form:
            raise ConfigurationError(
                f"Got process.noise = '{self._name}' with an operator that reverses '{noise.form}' noise, expected the "
                f"same: set process.noise = '{noise.form}', or operator.diffusion to the other."
            )
        if self._sigma is not None:
            raise ConfigurationError(
                f"Got process.sigma = {self._sigma:g} with an operator that reverses noise of its own, expected none: "
                "set operator.sigma or operator.sigma_share."
            )
        self.noise.load_state_dict(noise.state_dict())

    @property
    def max_temperature(self) -> float | None:
        """The operator's if noise explodes; else the T at which a single step forgets the state."""
        return forgetting_temperature(self.noise, self._numbers)

    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
        """q(s_t | s_{t-1}), whatever the operator."""
        if self._middles is None:
            return self.noise.step(source, level)
        # s_{t-1} is s_0 in rows at the first level only.
        (state,) = leaves(source)
        first = time_like(level.elapsed, state) == 0
        return self.noise.step(torch.where(first, leaves(self._origin(state))[0], state), level)

    def marginal(self, origin: State, level: Level) -> Kernel:
        """q(s_t | s_0)."""
        return self.noise.marginal(self._origin(origin), level)

    def posterior(self, target: State, level: Level, origin: State) -> Kernel:
        """q(s_{t-1} | s_t, s_0)."""
        return self.noise.posterior(target, self._origin(origin), level)

    def _origin(self, state: State) -> State:
        """Returns what noise is added to at s_0: the middles of gray levels, or s_0."""
        if self._middles is None:
            return state
        (s,) = leaves(state)
        return ((s * self._middles).floor().clamp(0, self._middles - 1) + 0.5) / self._middles

    def num_transitions(self, levels: Levels) -> int:
        """K, or `draws`."""
        return len(levels) if self._draws is None else min(self._draws, len(levels))

    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        """Jumps to all levels, or to `draws` of them, in each row, with as many runs of the network.

        Raises:
            ConfigurationError: The states do not fit the noise.
        """
        supports: dict[NoiseName, Support] = {"flips": "binary", "symbols": "one-hot"}
        require_support(self._name, supports.get(self._name, "real"), start)
        for level in Visits(self.num_transitions(levels)).levels(levels, start.state, generator):
            yield self._jump(operator, start, level, generator)

    def _jump(
        self, operator: TransitionOperator, start: Start, level: Level, generator: torch.Generator
    ) -> Transition:
        """Draws one transition, with its rows at `level`."""
        origin = self._origin(start.state)
        target = self.noise.marginal(origin, level).sample(generator)
        posterior = self.noise.posterior(target, origin, level)
        source = posterior.sample(generator)
        reverse = operator(target, level, start.context).cooling(level)
        forward = self.noise.step(source, level)
        anchor = origin if start.anchor is None else start.anchor
        return Transition(
            source, target, level, forward, reverse, anchor, start.context, posterior, self.noise
        )
