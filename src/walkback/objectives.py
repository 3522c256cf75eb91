"""Objectives: losses that training minimizes.

`Objective`        local      scores one transition; no gradient flows through the walk (the paper)
`PathObjective`    global     scores a whole walk; gradients flow through its states (`walkback.training.paths`)

The engine averages a local objective over the batch (and, for batch updates, over the steps of the walk). Gradients may
flow only through `transition.log_p` (the reverse kernel). The forward kernel belongs to the previous step, whose graph
is already freed, so an objective that uses `transition.log_q` must treat it as a constant (`.detach()`).

For a path objective, s_t is a function of s_{t-1} and noise, and everything in a transition carries gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

from torch import Tensor

from walkback.walk import Transition


class Objective(ABC):
    """Abstract local objective. Keyword-only `__init__` arguments are its configuration."""

    @abstractmethod
    def __call__(self, transition: Transition) -> Tensor:
        """Return the loss of one step for each row, `(B,)`, nats."""


class Restricted(ABC):
    """Capability of an objective: it supports only some kinds of transition, and can check one in advance."""

    @abstractmethod
    def require_fitting(self, transition: Transition) -> None:
        """Check one step before a run; raises ConfigurationError if the objective does not support such steps."""


Checkpointing: TypeAlias = Literal["auto", "always", "never"]
"""Whether the backward pass recomputes each step of a walk instead of storing the network's activations. "auto" does so
for long walks."""


class PathObjective(ABC):
    """Abstract objective of a whole walk. The loss is Σ_t step + end, differentiated through the walk.

    Keyword-only `__init__` arguments are its configuration.
    """

    @property
    @abstractmethod
    def checkpointing(self) -> Checkpointing:
        """Whether steps are recomputed in the backward pass to save memory."""

    @abstractmethod
    def step(self, transition: Transition) -> Tensor:
        """Return the loss of one step for each row, `(B,)`, nats; called a second time if the step is recomputed."""

    @abstractmethod
    def end(self, log_prior: Tensor) -> Tensor:
        """Return the loss of the last state for each row, `(B,)`, nats.

        Args:
            log_prior: log p*(s_K), `(B,)`, nats.
        """


AnyObjective: TypeAlias = Objective | PathObjective
