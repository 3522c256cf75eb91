"""Per-step objectives: what an update of the operator descends.

An objective judges one transition of a heating walk at a time. The engine averages it over the batch (and, for
batch updates, over the steps of the walk).

The rule is local: gradients may flow through `transition.log_p` (the reverse kernel) only. The forward kernel belongs
to the step before, whose graph is gone by then; an objective that uses `transition.log_q` takes it as a constant
(`.detach()`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from walkback.walk import Transition


class Objective(ABC):
    """A local rule of learning. Keyword-only `__init__` arguments are its configuration."""

    @abstractmethod
    def __call__(self, transition: Transition) -> Tensor:
        """The loss of one step for each row, `(B,)`, nats."""
