"""Transition operators: the learned map from a state to a distribution over the next one.

    p_T(· | s) = operator(s, level).cooling(level)
    q_T(· | s) = operator(s, level).heating(level)     the same kernel where the operator is tied
    p_T(· | s, c) = operator(s, level, c).cooling(level)      where it is conditioned, e.g. on a class c

Calling an operator runs its network once. What it returns, a `Conditional`, is cheap to turn into kernels at several
temperatures: a walk uses each state's output twice, to score the step that led to it and to draw the step that
leaves it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from walkback.kernels import Kernel
from walkback.schedules import Level
from walkback.state import Context, State, StateSpace, leaves


class Conditional(ABC):
    """What an operator knows after seeing a state: kernels conditioned on it, at any temperature."""

    @abstractmethod
    def cooling(self, level: Level) -> Kernel:
        """p_T(· | s), the transition operator itself."""

    @abstractmethod
    def heating(self, level: Level) -> Kernel:
        """q_T(· | s); a tied operator returns `self.cooling(level)`."""


class TransitionOperator(nn.Module, ABC):
    """A stochastic map s → s', built as `cls(space, **options)` from the space of the data.

    The keyword-only arguments of a subclass's `__init__` are its configuration. An operator that needs the moments of
    the data also derives from `DataAware`; one whose chain has latent units from `Latent`.
    """

    @abstractmethod
    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        """Run the network at `state` `(B, *E)`.

        Args:
            state: Where the chain is.
            level: The level of the state: t for s_t (the first level for s_0), with one temperature a row where rows
                differ. Operators whose network does not look at the temperature ignore it.
            context: What rows are conditioned on; see `ClassConditional`. Operators that are conditioned on nothing
                ignore it.
        """

    @property
    @abstractmethod
    def max_temperature(self) -> float:
        """T_max, the temperature at which one step forgets the state: σ_max² / σ² for Gaussian noise."""


class ClassConditional(ABC):
    """Capability of an operator: the context of its `forward` is a class label for each row.

    Labels are `(B,)` int64; -1, like no context at all, stands for no label. It is built for a `Space` that says how
    many classes there are.
    """

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """How many classes it can be told, 0 … num_classes - 1; 0: none."""


class DataAware(ABC):
    """Capability of an operator or a process: it sets something from the data before training."""

    @abstractmethod
    def fit_data(self, data: Tensor) -> None:
        """Set buffers from starting data `(N, *E)`; called once, when it is new."""


class Latent(ABC):
    """Capability of an operator: the chain's state has latent parts beside the data (section 6.5)."""

    @property
    @abstractmethod
    def state_space(self) -> StateSpace:
        """Space of the chain's state."""

    @abstractmethod
    def initial_state(self, data: Tensor, generator: torch.Generator) -> tuple[State, Tensor]:
        """s_0 = (data, h_0) with h_0 ~ q(· | data), and log q(h_0 | data) `(B,)` in nats."""

    @abstractmethod
    def visible(self, state: State) -> Tensor:
        """The data part of a state, `(B, *E)`."""


def state_space(operator: TransitionOperator, data_space: StateSpace) -> StateSpace:
    """Space of the operator's chain on data of `data_space`."""
    return operator.state_space if isinstance(operator, Latent) else data_space


def initial_state(
    operator: TransitionOperator, data: Tensor, generator: torch.Generator
) -> tuple[State, Tensor]:
    """s_0 and log q(latent part | data) `(B,)` in nats: the data themselves unless the operator is `Latent`."""
    if isinstance(operator, Latent):
        return operator.initial_state(data, generator)
    return data, data.new_zeros(data.shape[0])


def visible(operator: TransitionOperator, state: State) -> Tensor:
    """The data part of a state, `(B, *E)`."""
    return operator.visible(state) if isinstance(operator, Latent) else leaves(state)[0]
