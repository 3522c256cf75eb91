"""Objectives: what an update of the operator descends.

`Objective`        local      judges one transition; no gradient flows through the walk (the paper)
`PathObjective`    global     judges a whole walk; gradients flow through its states (`walkback.paths`)

The engine averages a local objective over the batch (and, for batch updates, over the steps of the walk). Gradients may
flow through `transition.log_p` (the reverse kernel) only: the forward kernel belongs to the step before, whose graph is
gone by then; an objective that uses `transition.log_q` takes it as a constant (`.detach()`).

For a path objective s_t is a function of s_{t-1} and of noise, and everything in a transition carries its gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

from torch import Tensor

from walkback.walk import Transition


class Objective(ABC):
    """A local rule of learning. Keyword-only `__init__` arguments are its configuration."""

    @abstractmethod
    def __call__(self, transition: Transition) -> Tensor:
        """The loss of one step for each row, `(B,)`, nats."""


class Restricted(ABC):
    """What an objective offers beside `Objective` that learns from some kinds of step only."""

    @abstractmethod
    def require_fitting(self, transition: Transition) -> None:
        """Look at one step before a run; raises ConfigurationError if the objective cannot learn from its like."""


Checkpointing: TypeAlias = Literal["auto", "always", "never"]
"""Whether the backward pass computes each step of a walk again, which keeps no activations of networks: "auto" does on
long walks."""


class PathObjective(ABC):
    """A rule of learning whose loss is Σ_t step + end, differentiated through the walk.

    Keyword-only `__init__` arguments are its configuration.
    """

    @property
    @abstractmethod
    def checkpointing(self) -> Checkpointing:
        """How memory is saved."""

    @abstractmethod
    def step(self, transition: Transition) -> Tensor:
        """The part of one step for each row, `(B,)`, nats; called a second time where the step is computed again."""

    @abstractmethod
    def end(self, log_prior: Tensor) -> Tensor:
        """The part of the last state for each row, `(B,)`, nats.

        Args:
            log_prior: log p*(s_K), `(B,)`, nats.
        """


AnyObjective: TypeAlias = Objective | PathObjective
