"""The nearest training state of a state: its distance and its class.

d(s) = min_i ‖s - x_i‖,   class(s) = label of the nearest x_i
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from walkback.data import Labelled, has_classes
from walkback.diagnostics import Subject

_MOST = 10_000
"""Maximum number of training states in the comparison."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Training states `(N, D)` around their mean, with their labels `(N,)` if any."""

    states: Tensor
    mean: Tensor
    labels: Tensor | None
    num_classes: int

    def nearest(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the distance to the nearest training state and its class for each row of `(C, *E)`, `(C,)` each.

        Without labels every class is 0.
        """
        rows = states.to(self.states.dtype).flatten(1) - self.mean
        # Autocast is active around a measurement, for the networks; distances in bfloat16 would be meaningless.
        with torch.autocast(rows.device.type, enabled=False):
            distance, index = torch.cdist(rows, self.states).min(1)
        return distance, torch.zeros_like(index) if self.labels is None else self.labels[index]


def neighbours(subject: Subject) -> Neighbours:
    """Returns at most 10,000 training states, drawn at random; if the data have classes, only states with a class.

    Raises:
        DataError: The data cannot be loaded.
    """
    dataset = subject.data()
    chosen, rows = subject.training(_MOST, "neighbours")
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
    """Returns the entropy of class shares `(K,)` that sum to 1, nats."""
    return max(0.0, -float(torch.xlogy(shares, shares).sum()))
