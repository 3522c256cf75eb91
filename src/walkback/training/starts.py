"""The starts of walks from data: s_0 of training examples, their centers, and their labels."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from walkback.data import Augmented, Centred, Dataset, context_of
from walkback.model import Model
from walkback.operators import initial_state
from walkback.state import Context, State, map_state
from walkback.support.memory import send
from walkback.walk import Start


@final
class DataStarts:
    """The training examples as starts of walks.

    Args:
        model: The model in training.
        dataset: Prepared data.
        unlabelled: Share of examples whose label is hidden.
        device: Device of the walks.

    Attributes:
        count: Number of training examples.
    """

    def __init__(self, model: Model, dataset: Dataset, unlabelled: float, device: torch.device) -> None:
        self._model = model
        self._dataset = dataset
        self._unlabelled = unlabelled
        self._device = device
        self._examples = dataset.examples("train")
        self._labels = context_of(dataset, "train", slice(None), torch.device("cpu"))
        self.count = len(self._examples)

    def at(self, rows: Tensor, noise: torch.Generator) -> Start:
        """Return the starts of walks from the training examples with indices `rows` `(N,)`, on the CPU."""
        examples = send(self._examples[rows], self._device)
        if isinstance(self._dataset, Augmented):
            examples = self._dataset.augmented(examples, noise)
        state, _ = initial_state(self._model.operator, self._dataset.states(examples, noise), noise)
        anchor: State | None = None
        # States with latent parts have no anchor.
        if isinstance(state, Tensor) and isinstance(self._dataset, Centred):
            anchor = self._dataset.centres(examples)
        return Start(state, anchor, self._labels_of(rows, noise), self._model.prior)

    def any(self, num: int, noise: torch.Generator) -> Start:
        """Return the starts of walks from `num` training examples drawn at random, with replacement."""
        rows = torch.randint(self.count, (num,), generator=noise, device=noise.device)
        return self.at(rows.cpu(), noise)

    def _labels_of(self, rows: Tensor, noise: torch.Generator) -> Context:
        """Return labels of training examples, a random share of them hidden (-1); None without classes."""
        if self._labels is None:
            return None
        labels = map_state(lambda leaf: send(leaf[rows], self._device), self._labels)
        untold = torch.rand(len(rows), generator=noise, device=self._device) < self._unlabelled
        return map_state(lambda leaf: leaf.masked_fill(untold, -1), labels)
