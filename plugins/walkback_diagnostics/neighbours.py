"""The nearest training state of a state: how far it is, and of which class.

d(s) = min_i ‖s - x_i‖,   class(s) = label of the x_i that is nearest
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from walkback.data import Labelled, has_classes
from walkback.diagnostics import Subject

MOST = 10_000
"""Training states compared with."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Training states `(N, D)` around their mean, with their labels `(N,)` where there are any."""

    states: Tensor
    mean: Tensor
    labels: Tensor | None
    num_classes: int

    def nearest(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to the nearest training state and its class of each row of `(C, *E)`: twice `(C,)`.

        Without labels every class is 0.
        """
        rows = states.to(self.states.dtype).flatten(1) - self.mean
        # Precision is set around a measurement for networks; a distance in bfloat16 would say nothing.
        with torch.autocast(rows.device.type, enabled=False):
            distance, index = torch.cdist(rows, self.states).min(1)
        return distance, torch.zeros_like(index) if self.labels is None else self.labels[index]


def neighbours(subject: Subject) -> Neighbours:
    """Of at most 10,000 training states, drawn at random; where there are classes, of those that have one.

    Raises:
        DataError: The data cannot be had.
    """
    dataset = subject.data()
    chosen, rows = subject.training(MOST, "neighbours")
    states = rows.flatten(1)
    mean = states.mean(0)
    if not (isinstance(dataset, Labelled) and has_classes(dataset)):
        return Neighbours(states - mean, mean, None, 0)
    labels = dataset.labels("train")[chosen].to(subject.device)
    known = labels >= 0
    if not bool(known.any()):
        return Neighbours(states - mean, mean, None, 0)
    return Neighbours(states[known] - mean, mean, labels[known], len(dataset.classes))


def entropy(shares: Tensor) -> float:
    """Entropy of class shares `(K,)` that sum to 1, nats."""
    return max(0.0, -float(torch.xlogy(shares, shares).sum()))
