"""Metrics: further columns of `metrics.jsonl`, computed while a model is trained.

The engine makes a `Moment` whenever it logs (`training.log_every`), and each metric returns figures by name from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from walkback.model import Model


@dataclass(frozen=True, slots=True)
class Moment:
    """Training at the moment at which it is logged.

    Attributes:
        walks: Number of walks so far.
        loss: Of the last walk, nats per step and example.
        gradient_norm: Norm of the gradient of the last update, before clipping.
        learning_rate: Of the last update.
        seconds: Spent training so far.
        model: The model in training. A metric that runs it does so in evaluation mode and without gradient
            (`with model.evaluating()`), and draws from a generator of its own.
        averaged: The model with averaged weights, the one that is evaluated and kept; `model` itself where weights are
            not averaged.
    """

    walks: int
    loss: float
    gradient_norm: float
    learning_rate: float
    seconds: float
    model: Model
    averaged: Model


class Metric(ABC):
    """Figures of a moment of training. Keyword-only `__init__` arguments are its configuration."""

    @abstractmethod
    def measure(self, moment: Moment) -> Mapping[str, float]:
        """Figures by name; they may be nan or infinite. Called in the one process that writes files.

        It changes nothing: neither the model nor global randomness. The names must be none of the engine's (`loss`,
        `seconds`, …) nor another metric's.
        """
