"""Transition operators: learned maps from a state to a distribution over the next state.

    p_T(· | s) = operator(s, level).cooling(level)
    q_T(· | s) = operator(s, level).heating(level)     the same kernel if the operator is tied
    p_T(· | s, c) = operator(s, level, c).cooling(level)      if it is conditioned, e.g. on a class c

Calling an operator runs its network once and returns a `Conditional`, which makes kernels at any temperature at little
cost. A walk uses the output at each state twice: to score the step that led to the state, and to draw the next one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from walkback.kernels import Kernel
from walkback.schedules import Level
from walkback.state import Context, State, StateSpace, leaves


class Conditional(ABC):
    """Output of an operator at a state: kernels conditioned on that state, at any temperature."""

    @abstractmethod
    def cooling(self, level: Level) -> Kernel:
        """Return p_T(· | s), the transition operator itself."""

    @abstractmethod
    def heating(self, level: Level) -> Kernel:
        """Return q_T(· | s); a tied operator returns `self.cooling(level)`."""


class Guidable(ABC):
    """Capability of a conditional that was told something: it can be moved further from the one told nothing."""

    @abstractmethod
    def guided(self, untold: Conditional, scale: float) -> Conditional:
        """This conditional with the mean (or logits) `untold` + `scale` · (this one - `untold`); its variance stays.

        Args:
            untold: Of the same operator at the same state, told nothing.
            scale: w; 1 gives this conditional.
        """


class TransitionOperator(nn.Module, ABC):
    """A stochastic map s → s', built as `cls(space, **options)` from the space of the data.

    The keyword-only arguments of a subclass's `__init__` are its configuration. Operators that need the moments of
    the data also derive from `DataAware`; operators whose chain has latent units derive from `Latent`.
    """

    @abstractmethod
    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        """Run the network at `state` `(B, *E)`.

        Args:
            state: Current state of the chain.
            level: The level of the state: t for s_t (the first level for s_0), with one temperature per row if rows
                differ. Operators whose network does not depend on the temperature ignore it.
            context: What the rows are conditioned on; see `ClassConditional`. Unconditional operators ignore it.
        """

    @property
    @abstractmethod
    def max_temperature(self) -> float:
        """T_max, the temperature at which one step forgets the state: σ_max² / σ² for Gaussian noise."""


class ClassConditional(ABC):
    """Capability of an operator: the context of its `forward` is a class label for each row.

    Labels are `(B,)` int64; -1 means no label, and so does a context of None. The number of classes comes from the
    `Space` that the operator is built for.
    """

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Number of classes; labels are 0 … num_classes - 1. 0 if the operator is unconditional."""


class DataAware(ABC):
    """Capability of an operator or a process: it sets buffers from the data before training."""

    @abstractmethod
    def fit_data(self, data: Tensor) -> None:
        """Set buffers from starting data `(N, *E)`; called once, on a new instance."""


class Noisy(ABC):
    """Capability of an operator: the size of its Gaussian noise is known, and a process can adopt it."""

    @abstractmethod
    def noise(self, level: Level) -> Tensor:
        """Return the variance v_T of the noise of a heating step, broadcastable to `(B, *E)`."""


class Latent(ABC):
    """Capability of an operator: the chain's state has latent parts in addition to the data (section 6.5)."""

    @property
    @abstractmethod
    def state_space(self) -> StateSpace:
        """Space of the chain's state."""

    @abstractmethod
    def initial_state(self, data: Tensor, generator: torch.Generator) -> tuple[State, Tensor]:
        """Return s_0 = (data, h_0) with h_0 ~ q(· | data), and log q(h_0 | data) `(B,)` in nats."""

    @abstractmethod
    def visible(self, state: State) -> Tensor:
        """Return the data part of a state, `(B, *E)`."""


def state_space(operator: TransitionOperator, data_space: StateSpace) -> StateSpace:
    """Return the space of the operator's chain for data of `data_space`."""
    return operator.state_space if isinstance(operator, Latent) else data_space


def initial_state(
    operator: TransitionOperator, data: Tensor, generator: torch.Generator
) -> tuple[State, Tensor]:
    """Return s_0 and log q(latent part | data) `(B,)` in nats: `data` and zeros unless the operator is `Latent`."""
    if isinstance(operator, Latent):
        return operator.initial_state(data, generator)
    return data, data.new_zeros(data.shape[0])


def visible(operator: TransitionOperator, state: State) -> Tensor:
    """The data part of a state, `(B, *E)`."""
    return operator.visible(state) if isinstance(operator, Latent) else leaves(state)[0]
