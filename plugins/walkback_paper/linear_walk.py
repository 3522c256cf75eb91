"""The walk of an operator's linear part, whose states are known in closed form.

In the coordinates z of the operator's basis, with a_t and v_t of `linear`,

    q(s_t | s_{t-1})         z_t ~ N(a_t z_{t-1}, v_t)
    q(s_t | s_0)             z_t ~ N(A_t z_0, V_t),     A_t = a_t A_{t-1},   V_t = a_t² V_{t-1} + v_t
    q(s_{t-1} | s_t, s_0)    N(A_{t-1} z_0 + g (z_t - a_t A_{t-1} z_0),  V_{t-1} v_t / V_t),   g = a_t V_{t-1} / V_t

with A_0 = 1 and V_0 = 0. It is the operator's own walk before training. Learning to reverse it takes no walks: each
transition has its rows at different levels, drawn in one jump, and the objective `kl` integrates the noise of s_{t-1}.
The trained operator can be evaluated with this process, or be trained further with its own walk (`tied`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel
from walkback.noising import Visits
from walkback.noising.gaussian import SMALLEST
from walkback.operators import Conditional, TransitionOperator
from walkback.processes import Abridged, Process, Stepwise
from walkback.schedules import Level, Levels
from walkback.state import State, leaves
from walkback.walk import Start, Transition
from walkback_paper.bases import RotatedNormalKernel
from walkback_paper.gaussian import Gaussian
from walkback_paper.linear import LinearConditional, LinearGaussian


@final
class LinearWalk(Process, Stepwise, Abridged):
    """Heats by the linear part of an operator around the linear mean, whatever its network has learned.

    Args:
        draws: Number of transitions of a path to learn from, at most K; None takes K.
    """

    def __init__(self, *, draws: Annotated[int, Field(ge=2)] | None = None) -> None:
        super().__init__()
        self._draws = draws

    @property
    def max_temperature(self) -> None:
        """The operator's."""

    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
        """q(s_t | s_{t-1}).

        Raises:
            ConfigurationError: The operator has no linear mean.
        """
        if not isinstance(conditional, LinearConditional):
            raise _unfit(f"an operator whose output is a {type(conditional).__name__}")
        return conditional.linear_heating(level)

    def num_transitions(self, levels: Levels) -> int:
        """K, or `draws`."""
        return len(levels) if self._draws is None else min(self._draws, len(levels))

    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        """Jumps to all levels, or to `draws` of them, in each row, with as many runs of the network.

        Raises:
            ConfigurationError: The operator has no linear mean.
        """
        linear = operator.parametrization if isinstance(operator, Gaussian) else None
        if not isinstance(linear, LinearGaussian):
            raise _unfit(f"{type(operator).__name__} with another mean")
        (x,) = leaves(start.state)
        origin = linear.coordinates(x)
        moments = _moments(linear, levels)
        anchor = start.state if start.anchor is None else start.anchor
        for level in Visits(self.num_transitions(levels)).levels(levels, start.state, generator):
            jump = _Jump(linear, moments, level)
            z = jump.marginal(origin, generator)
            target = linear.event(z)
            posterior = jump.posterior(origin, z)
            source = posterior.sample(generator)
            forward = linear.linear_step(linear.coordinates(source), level)
            reverse = operator(target, level, start.context).cooling(level)
            yield Transition(source, target, level, forward, reverse, anchor, start.context, posterior)


@dataclass(frozen=True, slots=True)
class _Moments:
    """A_t and V_t of the levels t = 0 … K, `(K + 1, *E)`."""

    signal: Tensor
    variance: Tensor


def _moments(linear: LinearGaussian, levels: Levels) -> _Moments:
    """Return the moments of a walk, multiplied up in double precision."""
    signal = [torch.ones_like(linear.variances, dtype=torch.float64)]
    variance = [torch.zeros_like(signal[0])]
    for level in levels:
        share, noise = linear.share(level)[0].double(), linear.noise(level)[0].double()
        signal.append(share * signal[-1])
        variance.append(share.square() * variance[-1] + noise)
    dtype = linear.variances.dtype
    return _Moments(torch.stack(signal).to(dtype), torch.stack(variance).to(dtype))


class _Jump:
    """Draws of s_t and s_{t-1} given s_0, with rows at the steps of `level`."""

    def __init__(self, linear: LinearGaussian, moments: _Moments, level: Level) -> None:
        steps = level.step
        if not isinstance(steps, Tensor):  # filled on the device: a copy from the CPU would wait
            steps = torch.full((1,), steps, device=moments.signal.device)
        self._linear = linear
        self._signal, self._variance = moments.signal[steps], moments.variance[steps]
        self._colder = _Moments(moments.signal[steps - 1], moments.variance[steps - 1])
        self._share, self._noise = linear.share(level), linear.noise(level)

    def marginal(self, origin: Tensor, generator: torch.Generator) -> Tensor:
        """Draw z_t given z_0, `(B, *E)`."""
        noise = torch.randn(origin.shape, generator=generator, dtype=origin.dtype, device=origin.device)
        return torch.addcmul(self._signal * origin, self._variance.sqrt(), noise)

    def posterior(self, origin: Tensor, z: Tensor) -> RotatedNormalKernel:
        """Return q(s_{t-1} | s_t, s_0) at z_0 and z_t, `(B, *E)`; at the first level it is concentrated at s_0."""
        before, linear = self._colder.signal * origin, self._linear
        gain = self._share * self._colder.variance / self._variance
        variance = (self._colder.variance * self._noise / self._variance).clamp(min=SMALLEST)
        return RotatedNormalKernel(
            linear.event(before + gain * (z - self._share * before)), variance, linear.basis
        )


def _unfit(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"Got {what} for the process 'linear', expected a Gaussian operator around the linear mean: set "
        "operator.mean = 'linear', or another process.name."
    )
