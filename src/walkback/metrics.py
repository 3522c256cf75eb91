"""Metrics: additional columns of `metrics.jsonl`, computed during training.

The engine creates a `Moment` whenever it logs (`training.log_every`). Each metric computes named figures from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from walkback.model import Model


@dataclass(frozen=True, slots=True)
class Moment:
    """State of training when it is logged.

    Attributes:
        walks: Number of walks so far.
        loss: Loss of the last walk, nats per step and example.
        gradient_norm: Norm of the gradient of the last update, before clipping.
        learning_rate: Learning rate of the last update.
        seconds: Training time so far.
        model: The model in training. A metric that runs it must use evaluation mode (`with model.evaluating()`),
            disable gradients, and draw from its own generator.
        averaged: The model with averaged weights, which is evaluated and saved; the same object as `model` if weights
            are not averaged.
    """

    walks: int
    loss: float
    gradient_norm: float
    learning_rate: float
    seconds: float
    model: Model
    averaged: Model


class Metric(ABC):
    """Abstract metric of training. Keyword-only `__init__` arguments are its configuration."""

    @abstractmethod
    def measure(self, moment: Moment) -> Mapping[str, float]:
        """Return figures by name; they may be NaN or infinite. Called only in the process that writes files.

        Must not change the model or the state of global random generators. Names must differ from those of the engine
        (`loss`, `seconds`, …) and of other metrics.
        """
