"""Batches: rows of a split as starting states on the device, with their context (e.g. class labels)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from walkback.data.dataset import DataInfo, Dataset, Labelled, Split
from walkback.errors import ConfigurationError
from walkback.state import Context, map_context
from walkback.support.memory import send


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of data with its context.

    Attributes:
        states: Starting states, `(B, *E)`.
        context: The context that rows are conditioned on, `(B, …)`; None if unconditional.
    """

    states: Tensor
    context: Context = None

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: slice) -> Batch:
        return Batch(self.states[rows], map_context(lambda leaf: leaf[rows], self.context))


def batch_of(dataset: Dataset, split: Split, rows: Tensor | slice, generator: torch.Generator) -> Batch:
    """Return examples of a split as states, see `states_of`, together with their context, see `context_of`."""
    return Batch(
        states_of(dataset, split, rows, generator), context_of(dataset, split, rows, generator.device)
    )


def context_of(dataset: Dataset, split: Split, rows: Tensor | slice, device: torch.device) -> Context:
    """Return the context of examples of a split, on `device`: labels `(B,)` if `info` has classes, else None.

    Raises:
        ConfigurationError: The description of the dataset has classes, but the dataset has no labels.
    """
    if not dataset.info.classes:
        return None
    if not isinstance(dataset, Labelled):
        raise ConfigurationError(
            f"{dataset.info.name} describes classes but has no labels, because it does not derive from "
            "walkback.data.Labelled: set data.condition = 'none'."
        )
    return send(dataset.labels(split)[rows], device)


def draw_labels(info: DataInfo, num: int, generator: torch.Generator) -> Context:
    """Draw labels `(num,)` with the class frequencies of training, on the generator's device; None without classes.

    Samples are conditioned on drawn labels, just as data are conditioned on their own.
    """
    if not info.classes:
        return None
    counts = torch.tensor(tuple(info.classes.values()), dtype=torch.float64, device=generator.device)
    return torch.multinomial(counts, num, replacement=True, generator=generator)


def labels_in_turn(info: DataInfo, num: int, device: torch.device) -> Context:
    """Return labels 0, 1, 2, … repeated cyclically, `(num,)`, for pictures of all classes; None without classes."""
    return torch.arange(num, device=device) % len(info.classes) if info.classes else None


def states_of(dataset: Dataset, split: Split, rows: Tensor | slice, generator: torch.Generator) -> Tensor:
    """Make starting states `(B, *E)` from examples of a split, on the generator's device.

    Args:
        dataset: A prepared dataset.
        split: The split.
        rows: Indices of the examples `(B,)` on the CPU, or a slice.
        generator: Source of the noise in the states.
    """
    return dataset.states(send(dataset.examples(split)[rows], generator.device), generator)


def require_examples(dataset: Dataset, split: Split, num: int) -> None:
    """Check that a split has at least `num` examples.

    Raises:
        ConfigurationError: The split has fewer.
    """
    if num > len(dataset.examples(split)):
        raise ConfigurationError(
            f"The {split} split of {dataset.info.name} has {len(dataset.examples(split))} examples, fewer than the "
            f"{num} needed: ask for fewer, or choose another split."
        )
