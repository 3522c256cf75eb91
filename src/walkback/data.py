"""Where walks start: data sets held in memory, turned into states on the device.

A `Dataset` keeps its examples in the cheapest exact form (uint8 for images) and makes starting states s_0 from a
batch of them on the device: scaling, dequantization and binarization happen there, with an explicit generator.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from walkback.errors import ConfigurationError, DataError
from walkback.state import Context, Space, Support, map_context
from walkback.support.memory import send

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class DataInfo:
    """What a data set is and how its states were made: the protocol stamped on every figure.

    Attributes:
        name: Name or hub id.
        shape: Event shape of a state; images are `(channels, height, width)`.
        support: "real", "binary" or "one-hot", see `walkback.state.Support`.
        bins: Number of grey levels behind data scaled to [0, 1]; None where the data are not quantized.
        classes: The classes that a model is told, by name, in the order of their labels, with their numbers of training
            examples; empty where it is told none (`data.condition`).
        preprocessing: The steps from file to state, in order, in words.
        splits: Number of examples by split.
        fingerprint: A hash that changes with the examples or the preprocessing.
        noise: Standard deviation of the Gaussian noise in the states, see `Space.noise`; 0: none.
    """

    name: str
    shape: tuple[int, ...]
    support: Support = "real"
    bins: int | None = None
    preprocessing: tuple[str, ...] = ()
    splits: Mapping[str, int] = field(default_factory=dict)
    fingerprint: str = ""
    classes: Mapping[str, int] = field(default_factory=dict)
    noise: float = 0.0

    @property
    def space(self) -> Space:
        """The space of the visible state, the number of classes, and the noise."""
        return Space(self.shape, self.support, len(self.classes), self.noise)

    @property
    def is_image(self) -> bool:
        """Whether a state can be drawn: `(1, H, W)` or `(3, H, W)`."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3)

    def bits_per_dimension(self, nats: float) -> float | None:
        """(nats / D + log bins) / log 2; None for data without quantum, whose bits/dim mean nothing.

        Binary data are discrete as they are: nats / D / log 2. Of one-hot states most combinations of bits are
        impossible, so that a dimension is no bit: None.

        Args:
            nats: A negative log-likelihood, or a bound on it, in nats per example.
        """
        per_dimension = nats / math.prod(self.shape)
        if self.support == "binary":
            return per_dimension / math.log(2)
        if self.bins is None or self.support != "real":
            return None
        return (per_dimension + math.log(self.bins)) / math.log(2)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        record = asdict(self)
        plain = {
            "shape": list(self.shape),
            "preprocessing": list(self.preprocessing),
            "splits": dict(self.splits),
            "classes": [[name, count] for name, count in self.classes.items()],
        }
        return record | plain

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> DataInfo:
        """Inverse of `to_dict`; raises DataError on a record that is not one."""
        try:
            shape = tuple(int(n) for n in record["shape"])
            if min(shape, default=1) < 1 or record["support"] not in get_args(Support):
                raise DataError(f"Got a data description of shape {shape} and support {record['support']!r}.")
            return cls(
                name=str(record["name"]),
                shape=shape,
                support=record["support"],
                bins=None if record["bins"] is None else int(record["bins"]),
                preprocessing=tuple(str(step) for step in record["preprocessing"]),
                splits={str(k): int(v) for k, v in record["splits"].items()},
                fingerprint=str(record["fingerprint"]),
                classes={str(name): int(count) for name, count in record.get("classes", ())},
                noise=float(record.get("noise", 0.0)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"Got a data description that cannot be read ({error!r}).") from error


class Dataset(ABC):
    """A source of starting states. Keyword-only `__init__` arguments are its configuration.

    Construction is cheap and checks the configuration; `prepare` does the work (download, decode, cache) and must be
    called before anything else. All splits are deterministic.
    """

    @abstractmethod
    def prepare(self) -> None:
        """Make the examples available (idempotent).

        Raises:
            DataError: The source is missing, out of reach, empty or corrupt.
        """

    @property
    @abstractmethod
    def info(self) -> DataInfo:
        """The protocol of this data set; valid after `prepare`."""

    @abstractmethod
    def examples(self, split: Split) -> Tensor:
        """All examples of a split in stored form `(N, *E)` (uint8 or float32), on the CPU, read-only by convention."""

    @abstractmethod
    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Starting states `(B, *E)`, float, from stored rows `(B, *E)` on the generator's device."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Data, and what goes with their rows.

    Attributes:
        states: Starting states, `(B, *E)`.
        context: What the rows are conditioned on, `(B, …)`; None: nothing.
    """

    states: Tensor
    context: Context = None

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: slice) -> Batch:
        return Batch(self.states[rows], map_context(lambda leaf: leaf[rows], self.context))


def batch_of(dataset: Dataset, split: Split, rows: Tensor | slice, generator: torch.Generator) -> Batch:
    """Some examples of a split as `states_of`, with what a model of the data set is told of them."""
    return Batch(
        states_of(dataset, split, rows, generator), context_of(dataset, split, rows, generator.device)
    )


def context_of(dataset: Dataset, split: Split, rows: Tensor | slice, device: torch.device) -> Context:
    """What a model is told of some examples of a split, on `device`: labels `(B,)` where `info` has classes.

    Raises:
        ConfigurationError: The data set says that there are classes, and has no labels.
    """
    if not dataset.info.classes:
        return None
    if not isinstance(dataset, Labelled):
        raise ConfigurationError(
            f"Got classes of {dataset.info.name}, which has no labels, expected a data set that derives from "
            "walkback.data.Labelled: set data.condition = 'none'."
        )
    return send(dataset.labels(split)[rows], device)


def draw_labels(info: DataInfo, num: int, generator: torch.Generator) -> Context:
    """Labels `(num,)` of classes as frequent as in training, on the generator's device; None where there are none.

    They go with samples, as the labels of data go with data.
    """
    if not info.classes:
        return None
    counts = torch.tensor(tuple(info.classes.values()), dtype=torch.float64, device=generator.device)
    return torch.multinomial(counts, num, replacement=True, generator=generator)


def labels_in_turn(info: DataInfo, num: int, device: torch.device) -> Context:
    """Labels 0, 1, 2, … over and over, `(num,)`, for pictures of all classes; None where there are none."""
    return torch.arange(num, device=device) % len(info.classes) if info.classes else None


def states_of(dataset: Dataset, split: Split, rows: Tensor | slice, generator: torch.Generator) -> Tensor:
    """Starting states `(B, *E)` of some examples of a split, on the generator's device.

    Args:
        dataset: Prepared.
        split: The split.
        rows: The examples: numbers `(B,)` on the CPU, or a slice.
        generator: Draws the noise of the states.
    """
    return dataset.states(send(dataset.examples(split)[rows], generator.device), generator)


def require_examples(dataset: Dataset, split: Split, num: int) -> None:
    """Refuse to take more examples from a split than it has.

    Raises:
        ConfigurationError: It has fewer.
    """
    if num > len(dataset.examples(split)):
        raise ConfigurationError(
            f"Got {num} states to take from the {split} split of {dataset.info.name}, "
            f"expected {len(dataset.examples(split))} at most."
        )


class Centred(ABC):
    """Capability of a data set: it knows what the states of an example are scattered around."""

    @abstractmethod
    def centres(self, rows: Tensor) -> Tensor:
        """x = E[s_0 | row], `(B, *E)`, float, on the device of the stored rows `(B, *E)`."""


class Labelled(ABC):
    """Capability of a data set: its examples may have classes; `has_classes` says whether they have."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by number; valid after `prepare`. Raises DataError where the source has none."""

    @abstractmethod
    def labels(self, split: Split) -> Tensor:
        """Class of each example of a split, `(N,)`, int64, in the order of `examples`; -1 of one without a class."""


def has_classes(dataset: Dataset) -> bool:
    """Whether the examples of a prepared data set have classes."""
    if not isinstance(dataset, Labelled):
        return False
    try:
        return len(dataset.classes) > 1
    except DataError:
        return False
