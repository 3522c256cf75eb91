"""Operators made of another operator: its largest temperature and its latent units are theirs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from walkback.operators import Latent, TransitionOperator
from walkback.schedules import Levels
from walkback.state import Context, State, StateSpace


class Wrapped(TransitionOperator):
    """An operator made of another one.

    Args:
        operator: The other one.
    """

    def __init__(self, operator: TransitionOperator) -> None:
        super().__init__()
        self.operator = operator

    @property
    @final
    def max_temperature(self) -> float:
        """T_max of the other operator."""
        return self.operator.max_temperature


class WrappedLatent(Wrapped, Latent):
    """An operator made of one with latent units."""

    @property
    @final
    def state_space(self) -> StateSpace:
        """Space of the other operator's chain."""
        return self._latent.state_space

    @final
    def initial_state(self, data: Tensor, generator: torch.Generator) -> tuple[State, Tensor]:
        """Draw the other operator's initial state."""
        return self._latent.initial_state(data, generator)

    @final
    def visible(self, state: State) -> Tensor:
        """Return the data part of the other operator's state."""
        return self._latent.visible(state)

    @property
    def _latent(self) -> Latent:
        if not isinstance(self.operator, Latent):
            raise TypeError(f"Got {type(self.operator).__name__}, expected an operator with latent units.")
        return self.operator


class Compound(ABC):
    """Capability of an operator whose step consists of steps of another one."""

    @property
    @abstractmethod
    def single(self) -> TransitionOperator:
        """The other operator, whose mean shows a state."""

    @property
    @abstractmethod
    def runs(self) -> int:
        """Number of runs of the other operator in one step."""

    @abstractmethod
    def cool(
        self, state: State, levels: Levels, generator: torch.Generator, context: Context
    ) -> Iterator[State]:
        """Cool `state` s_K `(B, *E)` through `levels`, hottest first; yield the state after each level."""


def single(operator: TransitionOperator) -> TransitionOperator:
    """Return the operator that takes single steps: `operator` itself unless it is `Compound`."""
    return operator.single if isinstance(operator, Compound) else operator
