"""Operators without weights.

ChainOperator   p_T(· | s) = q_T(· | s) = kernel(s, T)     in closed form, or drawn by a program
StepOperator    s' = step(s, generator)                    a program, without a density
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import final

import torch

from walkback.kernels import Kernel
from walkback.known.kernels import StepKernel
from walkback.operators import Conditional, TransitionOperator
from walkback.schedules import Level
from walkback.state import Context, State


class ChainOperator(TransitionOperator):
    """A known Markov chain: a subclass implements `kernel`, and is built as `cls(space, **options)`."""

    @abstractmethod
    def kernel(self, state: State, level: Level) -> Kernel:
        """Return the kernel at `state` `(B, *E)`; walkback runs chains at T = 1."""

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        """Return the kernel, in both directions."""
        return _Known(lambda wanted: self.kernel(state, wanted))

    @property
    @final
    def max_temperature(self) -> float:
        """Return 1: a known chain is not heated."""
        return 1.0


class StepOperator(ChainOperator):
    """A known Markov chain whose steps are drawn by a program, without a density: a subclass implements `step`."""

    @abstractmethod
    def step(self, state: State, generator: torch.Generator) -> State:
        """Draw the next states `(B, *E)`, with the dtype and device of `state`, without changing it in place."""

    @final
    def kernel(self, state: State, level: Level) -> Kernel:
        """Return the program's step at `state` as a kernel."""
        return StepKernel(lambda generator: self.step(state, generator))


@final
class _Known(Conditional):
    """The same kernel for heating and cooling."""

    def __init__(self, kernel: Callable[[Level], Kernel]) -> None:
        self._kernel = kernel

    def cooling(self, level: Level) -> Kernel:
        return self._kernel(level)

    def heating(self, level: Level) -> Kernel:
        return self._kernel(level)
