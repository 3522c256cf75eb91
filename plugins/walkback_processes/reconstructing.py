"""Denoising autoencoders and generative stochastic networks: the operator learns to return to the example at once.

    C_T(s | x)     corruption: one step of the noise at temperature T, `walkback_processes.noises`

    dae    s ~ C_T(· | x)                                    each row visits every level
    gsn    s_i ~ C_T(· | x_{i-1}),   x_i ~ p_T(· | s_i)      x_0 = x, i = 1 … `steps`, then from x at another level

Both learn p_T(x | s): the source of every transition is the example x. As in Bengio, Yao, Alain and Vincent (2013), gsn
corrupts what the model makes of the example, so that it learns to return from where its own chain goes. The sources
have one noise (schedule `constant`); here T are the levels' temperatures, and a chain has one of them. The last
transition corrupts the example at level K, whose states s_K the prior observes and annealed samples begin with.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator
from typing import final

import torch
from pydantic import PositiveInt
from torch import Tensor

from walkback.kernels import Kernel
from walkback.noising import Visits
from walkback.operators import DataAware, TransitionOperator
from walkback.processes import OperatorAware, Process, Reconstructing
from walkback.schedules import Level, Levels
from walkback.state import State
from walkback.walk import Start, Transition
from walkback_processes.noises import ChosenNoise, NoiseName, Positive


class Corrupting(Process, Reconstructing, DataAware, OperatorAware, ABC):
    """A process whose corruption is a step of noise.

    Args:
        noise: Kind of noise.
        sigma: σ, standard deviation of Gaussian noise at T = 1; None takes the operator's.
        rate: r, rate at which bits or symbols are replaced at T = 1.
    """

    def __init__(
        self, *, noise: NoiseName = "auto", sigma: Positive | None = None, rate: Positive = 0.1
    ) -> None:
        super().__init__()
        self.noise = ChosenNoise(noise, sigma, rate)

    @final
    @torch.no_grad()
    def fit_data(self, data: Tensor) -> None:
        """Choose the kind of noise, unless it is an option; see `ChosenNoise.fit_data`."""
        self.noise.fit_data(data)

    @final
    @torch.no_grad()
    def fit_operator(self, operator: TransitionOperator) -> None:
        """Set σ to the operator's, unless it is an option.

        Raises:
            ConfigurationError: The operator's noise is unknown, or does not grow like the temperature.
        """
        self.noise.fit_operator(operator)

    @property
    @final
    def max_temperature(self) -> float | None:
        """The operator's if noise explodes; else the T at which a single step forgets the state."""
        return self.noise.max_temperature

    @final
    def corruption(self, origin: State, level: Level) -> Kernel:
        """Return C_T(· | x)."""
        return self.noise.current.step(origin, level)

    @final
    def transition(
        self, operator: TransitionOperator, start: Start, target: State, level: Level
    ) -> Transition:
        """Return the transition from the example of `start` to `target` `(B, *E)`."""
        origin = start.state
        reverse = operator(target, level, start.context).cooling(level)
        anchor = origin if start.anchor is None else start.anchor
        return Transition(
            origin, target, level, self.corruption(origin, level), reverse, anchor, start.context
        )


@final
class DenoisingProcess(Corrupting):
    """Corruption at every level, each from the example."""

    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        """Corrupt each row once at every level, with K runs of the network.

        The rows of a transition are spread evenly over the levels below K; the last one has all rows at level K.

        Raises:
            ConfigurationError: The states do not fit the noise.
        """
        self.noise.require_fitting(start)
        for level in Visits(len(levels)).levels(levels, start.state, generator):
            target = self.corruption(start.state, level).sample(generator)
            yield self.transition(operator, start, target, level)


@final
class WalkbackProcess(Corrupting):
    """Chains of corruptions and reconstructions that begin at the example (walkback training of GSNs).

    Args:
        noise: Kind of noise.
        sigma: σ, standard deviation of Gaussian noise at T = 1; None takes the operator's.
        rate: r, rate at which bits or symbols are replaced at T = 1.
        steps: Number of steps of a chain.
    """

    def __init__(
        self,
        *,
        noise: NoiseName = "auto",
        sigma: Positive | None = None,
        rate: Positive = 0.1,
        steps: PositiveInt = 3,
    ) -> None:
        super().__init__(noise=noise, sigma=sigma, rate=rate)
        self._steps = steps

    def path(
        self, operator: TransitionOperator, start: Start, levels: Levels, generator: torch.Generator
    ) -> Iterator[Transition]:
        """Run chains at one level after another in each row, K runs of the network in all.

        Raises:
            ConfigurationError: The states do not fit the noise.
        """
        self.noise.require_fitting(start)
        clean, reverse = start.state, None
        for number, level in enumerate(Visits(len(levels), self._steps).levels(levels, clean, generator)):
            if reverse is None or number % self._steps == 0 or level is levels[-1]:
                clean = start.state
            else:
                clean = reverse.sample(generator)
            target = self.corruption(clean, level).sample(generator)
            step = self.transition(operator, start, target, level)
            reverse = step.reverse
            yield step
