"""Datasets: examples held in memory, converted to starting states on the device.

A `Dataset` stores its examples in the most compact exact form (uint8 for images). Starting states s_0 are made from a
batch of examples on the device: scaling, dequantization and binarization happen there, with an explicit generator.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from walkback.data.categories import Categories
from walkback.data.standardization import Standardization
from walkback.errors import DataError
from walkback.state import Space, Support
from walkback.support.watch import Watch

Split: TypeAlias = Literal["train", "validation", "test"]
Condition: TypeAlias = Literal["none", "label"]
"""What a model is conditioned on: nothing, or the class of an example."""
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class DataInfo:
    """Description of a dataset and of how its states are made; part of the protocol of every figure.

    Attributes:
        name: Name or hub id.
        shape: Event shape of a state; images are `(channels, height, width)`.
        support: "real", "binary" or "one-hot", see `walkback.state.Support`.
        bins: Number of gray levels behind data scaled to [0, 1]; None if the data are not quantized.
        classes: Names of the classes that a model is conditioned on, in the order of their labels, with their numbers
            of training examples; empty for an unconditional model (`data.condition`).
        preprocessing: Description of each step from file to state, in order.
        splits: Number of examples by split.
        fingerprint: A hash that changes with the examples or the preprocessing.
        noise: Standard deviation of the Gaussian noise in the states, see `Space.noise`; 0: none.
        standardized: How states are standardized, see `walkback.data.standardization`; None if states are the values.
        categories: Names of the symbols of a table, see `walkback.data.categories`; None if they have none.
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
    standardized: Standardization | None = None
    categories: Categories | None = None

    @property
    def space(self) -> Space:
        """The space of the visible state, the number of classes, the noise, and the gray levels."""
        bins = self.bins if self.support == "real" else None
        return Space(self.shape, self.support, len(self.classes), self.noise, bins)

    @property
    def is_image(self) -> bool:
        """Whether a state can be drawn: `(1, H, W)` or `(3, H, W)`."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the entries of a state `(D,)`, of a table's columns; empty if they have none."""
        return () if self.standardized is None else self.standardized.columns

    @property
    def log_volume(self) -> float:
        """The difference between -log p of values and of their state, in nats; 0 if states are not standardized."""
        return 0.0 if self.standardized is None else self.standardized.log_volume(self.space.size)

    def log_slopes(self, states: Tensor) -> Tensor | float:
        """Return the part of that difference that depends on the state, `(N,)`, in nats; 0 without transforms."""
        return 0.0 if self.standardized is None else self.standardized.log_slopes(states)

    def values(self, states: Tensor) -> Tensor:
        """Return states `(N, *E)` in the units of the data: float64 if they are standardized, else unchanged."""
        return states if self.standardized is None else self.standardized.values(states)

    def states(self, values: Tensor) -> Tensor:
        """Return the states `(N, *E)` of values in the units of the data; inverts `values`."""
        return values if self.standardized is None else self.standardized.states(values)

    def bits_per_dimension(self, nats: float) -> float | None:
        """Return (nats / D + log bins) / log 2; None for data that are not quantized, where bits/dim is undefined.

        Binary data are already discrete: nats / D / log 2. For one-hot states most combinations of entries are
        impossible, so bits/dim is undefined too: None.

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
        """Convert to plain JSON types."""
        record = asdict(self)
        named = {key: getattr(self, key) for key in ("standardized", "categories")}
        for key in named:
            del record[key]
        own = {key: value.to_dict() for key, value in named.items() if value is not None}
        plain = {
            "shape": list(self.shape),
            "preprocessing": list(self.preprocessing),
            "splits": dict(self.splits),
            "classes": [[name, count] for name, count in self.classes.items()],
        }
        return record | plain | own

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> DataInfo:
        """Invert `to_dict`; raises DataError if `record` is not such a dictionary."""
        try:
            info = cls(
                name=str(record["name"]),
                shape=tuple(int(n) for n in record["shape"]),
                support=record["support"],
                bins=None if record["bins"] is None else int(record["bins"]),
                preprocessing=tuple(str(step) for step in record["preprocessing"]),
                splits={str(k): int(v) for k, v in record["splits"].items()},
                fingerprint=str(record["fingerprint"]),
                classes={str(name): int(count) for name, count in record.get("classes", ())},
                noise=float(record.get("noise", 0.0)),
                standardized=None
                if record.get("standardized") is None
                else Standardization.from_dict(record["standardized"]),
                categories=None
                if record.get("categories") is None
                else Categories.from_dict(record["categories"]),
            )
            info._require_possible()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(f"Got a data description that cannot be read ({error!r:.200}).") from error
        return info

    def _require_possible(self) -> None:
        """Raise ValueError for values that no dataset can have."""
        possible = {
            "shape": min(self.shape, default=1) >= 1 and math.prod(self.shape) <= _MOST_DIMENSIONS,
            "support": self.support in get_args(Support),
            "bins": self.bins is None or 2 <= self.bins <= 2**32,
            "noise": 0.0 <= self.noise < math.inf,
            "splits": min(self.splits.values(), default=0) >= 0,
            "standardization": self.standardized is None
            or (self.support == "real" and self.bins is None and self.standardized.suits(self.shape)),
            "categories": self.categories is None
            or (self.support == "one-hot" and self.categories.suits(self.shape)),
            "classes": not self.classes
            or (min(self.classes.values()) >= 0 and 0 < sum(self.classes.values()) < 2**53),
        }
        for name, holds in possible.items():
            if not holds:
                raise ValueError(f"its {name} is impossible")


_MOST_DIMENSIONS = 2**28


class Dataset(ABC):
    """Abstract source of starting states. Keyword-only `__init__` arguments are its configuration.

    The constructor is cheap and only checks the configuration. `prepare` does the work (download, decode, cache) and
    must be called before anything else. All splits are deterministic.
    """

    @abstractmethod
    def prepare(self) -> None:
        """Make the examples available (idempotent).

        Raises:
            DataError: The source is missing, unreachable, empty or corrupt.
        """

    @property
    @abstractmethod
    def info(self) -> DataInfo:
        """Description of this dataset; valid after `prepare`."""

    @abstractmethod
    def examples(self, split: Split) -> Tensor:
        """Return all examples of a split as stored: `(N, *E)`, uint8 or float32, on the CPU; do not modify them."""

    @abstractmethod
    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Make starting states `(B, *E)`, float, from stored rows `(B, *E)` on the generator's device."""


class Watched(ABC):
    """Capability of a dataset: it reports the progress of a preparation that takes long."""

    @abstractmethod
    def prepare_watched(self, watch: Watch) -> None:
        """Do what `Dataset.prepare` does, and report stages to `watch`, for instance with `counted`."""


def prepare_data(dataset: Dataset, watch: Watch) -> None:
    """Prepare a dataset; raises as `Dataset.prepare`."""
    if isinstance(dataset, Watched):
        dataset.prepare_watched(watch)
    else:
        dataset.prepare()


class Standardized(ABC):
    """Capability of a dataset: its values can be standardized like the training data of a model."""

    @abstractmethod
    def standardized_as(self, trained_on: DataInfo) -> Dataset:
        """Return the same examples as states of another dataset's kind; may be called before `prepare`.

        Columns are chosen, and put in order, by the names of `trained_on.columns` if both have names.

        Raises:
            DataError: A column is missing.
        """


class Centred(ABC):
    """Capability of a dataset: the mean of an example's states over their noise is known."""

    @abstractmethod
    def centres(self, rows: Tensor) -> Tensor:
        """Return x = E[s_0 | row], `(B, *E)`, float, on the device of the stored rows `(B, *E)`."""


class Augmented(ABC):
    """Capability of a dataset: training may take changed examples, of which there are more than in the data."""

    @abstractmethod
    def augmented(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return stored rows `(B, *E)` changed at random, of the same type, on the device of both arguments."""


class Labelled(ABC):
    """Capability of a dataset: its examples may have classes. Use `has_classes` to check whether they do."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by index; valid after `prepare`. Raises DataError if the source has none."""

    @abstractmethod
    def labels(self, split: Split) -> Tensor:
        """Return the class of each example of a split, `(N,)`, int64, in the order of `examples`; -1 for no class."""


def conditioned(info: DataInfo, dataset: Dataset, condition: Condition) -> DataInfo:
    """Return the description of a dataset for a model conditioned on `condition`; unchanged for "none".

    With "label", it gains the classes, a preprocessing step, and a fingerprint that changes with the labels.

    Args:
        info: Description of the unconditional data.
        dataset: Provides the labels; its `info` is not used.
        condition: What the model is conditioned on.

    Raises:
        DataError: The dataset has no classes, or two with the same name.
    """
    if condition == "none":
        return info
    if not isinstance(dataset, Labelled):
        raise DataError(f"{info.name} has no labels, which data.condition = 'label' needs: set it to 'none'.")
    names = dataset.classes
    if len(set(names)) != len(names):
        raise DataError(f"Two classes of {info.name} have the same name: rename one of them.")
    content = hashlib.sha256("\n".join((info.fingerprint, *names)).encode())
    for split in SPLITS:
        content.update(dataset.labels(split).numpy().tobytes())
    labels = dataset.labels("train")
    counts = torch.bincount(labels[labels >= 0], minlength=len(names)).tolist()
    return replace(
        info,
        preprocessing=(*info.preprocessing, f"told the class, of {len(names)}"),
        fingerprint=content.hexdigest()[:16],
        classes=dict(zip(names, counts, strict=True)),
    )


def has_classes(dataset: Dataset) -> bool:
    """Return whether the examples of a prepared dataset have classes."""
    if not isinstance(dataset, Labelled):
        return False
    try:
        return len(dataset.classes) > 1
    except DataError:
        return False
