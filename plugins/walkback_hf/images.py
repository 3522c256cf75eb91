"""Image datasets: the steps that all share once their encoded images are found."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor
from typing_extensions import override

from walkback.data import (
    Augmented,
    Centred,
    Condition,
    DataInfo,
    Dataset,
    Labelled,
    Split,
    Watched,
    conditioned,
)
from walkback.data.pixels import Binarize, GrayLevels
from walkback.errors import ConfigurationError, DataError
from walkback.support.watch import Silent, Watch, counted
from walkback_hf.cache import cached_pixels
from walkback_hf.decode import Layout, Pixels, decode, decode_batches, find_depth, find_layout
from walkback_hf.depth import Deepest, joined_depths, may_be_deep
from walkback_hf.encoded import EncodedImage, Found, Labels, Part
from walkback_hf.splits import plan_splits

_FAINT = 16
"""Images without a gray level from this one on, of 255, are nearly all 0 if they are binarized at random."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """Options of `Images` that determine the stored pixels."""

    size: int | None
    grayscale: bool | None
    limit: int | None

    def __post_init__(self) -> None:
        for name, value in (("size", self.size), ("limit", self.limit)):
            if value is not None and value < 1:
                raise ConfigurationError(f"Got data.{name} = {value}; expected a positive number.")


@dataclass(frozen=True, slots=True)
class PreparedImages:
    """The pixels of every split, uint8 `(N, C, H, W)`, how they were made, and a digest of them.

    `parts` are the encoded images, row by row; `note` is a line on what was found, or empty.
    """

    pixels: Mapping[Split, Tensor]
    steps: tuple[str, ...]
    digest: str
    parts: Mapping[Split, Part]
    note: str = ""


class Images(Dataset, Augmented, Centred, Labelled, Watched):
    """Base class of image datasets, whose encoded images come from a folder or the hub.

    They may have classes; `classes` and `labels` raise DataError if the source has none.
    """

    def __init__(
        self,
        name: str,
        *,
        size: PositiveInt | None = None,
        grayscale: bool | None = None,
        limit: PositiveInt | None = None,
        binarize: Binarize = "none",
        dequantize: bool = True,
        noise: NonNegativeFloat = 0.0,
        flip: bool = False,
        condition: Condition = "none",
    ) -> None:
        """Initializes the dataset `name`; nothing is read before `prepare`.

        Args:
            name: Name of the dataset in descriptions and messages.
            size: Side of the square to which images are resized and center-cropped; None keeps their size.
            grayscale: One channel (True), three (False), or as in the first image (None).
            limit: Use only the first `limit` training examples.
            binarize: "threshold" at 128, or "stochastic", with probability v / 255.
            dequantize: Add uniform noise of one gray level; without it there are no bits/dim.
            noise: Standard deviation of Gaussian noise added to states of [0, 1]; with it there are no bits/dim.
            flip: Mirror each image left to right with probability ½ whenever it is trained on; never in a measurement.
            condition: Whether a model is told the class of each image ("label"), which needs a column of classes.

        Raises:
            ConfigurationError: An option is out of range, or two contradict each other.
        """
        self._name = name
        self._preparation = Preparation(size, grayscale, limit)
        self._states = GrayLevels(binarize, dequantize, noise=noise)
        self._flip = flip
        self._condition: Condition = condition
        self._prepared: PreparedImages | None = None
        self._info: DataInfo | None = None
        self._labels: dict[Split, Tensor] = {}

    @abstractmethod
    def find(self) -> Found:
        """Returns the encoded images, by the source's own split names.

        Raises:
            DataError: They are missing or not available.
        """

    @override
    def prepare(self) -> None:
        self.prepare_watched(Silent())

    @override
    def prepare_watched(self, watch: Watch) -> None:
        if self._prepared is None:
            prepared = _prepare_images(self.find(), self._name, self._preparation, watch)
            self._states = _suitable_levels(self._states, prepared.pixels, self._name)
            self._prepared = prepared

    def source_labels(self, split: Split, limit: int | None = None) -> Labels:
        """Returns the classes of the first `limit` images of a split, read from their source because they are not
        cached.

        Raises:
            DataError: The source has no labels, or can no longer be read.
        """
        images, rows = self._require().parts[split]
        return images.labels(rows[:limit])

    @property
    @override
    def info(self) -> DataInfo:
        if self._info is None:  # labels are read from their source, once
            self._info = conditioned(self._plain_info(), self, self._condition)
        return self._info

    def _plain_info(self) -> DataInfo:
        """The protocol of the images alone."""
        prepared = self._require()
        steps = (*prepared.steps, self._states.step)
        return DataInfo(
            name=self._name,
            shape=tuple(prepared.pixels["train"].shape[1:]),
            support=self._states.support,
            bins=self._states.bins,
            noise=self._states.noise,
            preprocessing=(prepared.note, *steps) if prepared.note else steps,
            splits={split: len(pixels) for split, pixels in prepared.pixels.items()},
            fingerprint=hashlib.sha256("\n".join((prepared.digest, *steps)).encode()).hexdigest()[:16],
        )

    @override
    def examples(self, split: Split) -> Tensor:
        return self._require().pixels[split]

    @override
    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self._states.states(rows, generator)

    @override
    def augmented(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        if not self._flip:
            return rows
        mirrored = torch.rand(len(rows), generator=generator, device=rows.device) < 0.5
        return torch.where(mirrored.reshape(-1, 1, 1, 1), rows.flip(-1), rows)

    @override
    def centres(self, rows: Tensor) -> Tensor:
        return self._states.centres(rows)

    @property
    @override
    def classes(self) -> tuple[str, ...]:
        return self.source_labels("train", limit=0).classes

    @override
    def labels(self, split: Split) -> Tensor:
        if split not in self._labels:
            found = self.source_labels(split)
            if found.classes != self.classes:
                raise DataError(
                    f"Got a {split} split that names its classes differently from the training data."
                )
            self._labels[split] = torch.from_numpy(found.numbers)
        return self._labels[split]

    def _require(self) -> PreparedImages:
        if self._prepared is None:
            raise DataError(f"Got data {self._name!r} that is not prepared; call prepare() first.")
        return self._prepared


def _prepare_images(found: Found, name: str, how: Preparation, watch: Watch) -> PreparedImages:
    """Splits, decodes (or loads from the cache) and describes the images of a source.

    Raises:
        DataError: A split is missing or empty, or an image is corrupt or of another size than the first.
    """
    counts = {split: images.count for split, images in found.splits.items()}
    plan = plan_splits(counts, name, {split: images.place for split, images in found.splits.items()})
    parts = {split: Part(found.splits[own], rows) for split, (own, rows) in plan.rows.items()}
    train = Part(parts["train"].images, parts["train"].rows[: how.limit])
    parts["train"] = train
    first = next(train.read())
    layout = find_layout(first, how.size, how.grayscale)
    shape = decode(first, layout).shape
    contents = {
        split: _content(counted(part.read(), watch, f"Reading {name} ({split})", part.rows.size))
        for split, part in parts.items()
    }
    layout = replace(layout, bits=joined_depths(deepest for _, deepest in contents.values()).bits)
    stored = {
        split: cached_pixels(
            # Under a hash of the encoded bytes and of the layout.
            hashlib.sha256(f"{layout.key} {shape} {contents[split][0]}".encode()).hexdigest(),
            (part.rows.size, *shape),
            partial(_decoded, part, layout, shape, f"Decoding {name} ({split})", watch),
        )
        for split, part in parts.items()
    }
    return PreparedImages(
        pixels={split: torch.from_numpy(found.pixels) for split, found in stored.items()},
        steps=(*plan.steps, *layout.steps),
        digest=" ".join(f"{split} {found.digest}" for split, found in sorted(stored.items())),
        parts=parts,
        note=found.note,
    )


def _suitable_levels(states: GrayLevels, pixels: Mapping[Split, Tensor], name: str) -> GrayLevels:
    """Returns the rule from pixels to states that fits the pixels: masks of 0 and 1 have two levels, not 256.

    Args:
        states: The requested rule.
        pixels: Pixels of each split, uint8 `(N, C, H, W)`.
        name: Name of the dataset for messages.

    Raises:
        DataError: All pixels become the same, or nearly all of them.
    """
    high = max(int(part.max()) for part in pixels.values())
    if high <= 1:
        states = replace(states, levels=2)
    low, middle = min(int(part.min()) for part in pixels.values()), states.levels // 2
    seen = f"Got gray levels from {low} to {high} in {name}, which data.binarize = '{states.binarize}' makes"
    if states.binarize == "threshold" and (high < middle or low >= middle):
        raise DataError(
            f"{seen} all {int(low >= middle)} (1 where v >= {middle}); rescale the images to 0 … 255."
        )
    if states.binarize == "stochastic" and states.levels > 2 and (high < _FAINT or low > 255 - _FAINT):
        raise DataError(
            f"{seen} {int(low > 127)} almost everywhere (probability v / 255); rescale the images to 0 … 255."
        )
    return states


def _content(images: Iterable[EncodedImage]) -> tuple[str, Deepest]:
    """Returns a hash of the encoded bytes of one split, and the largest values in files of more than 8 bits."""
    content = hashlib.sha256()
    deepest = Deepest()
    for image in images:
        content.update(len(image.data).to_bytes(8, "little"))
        content.update(image.data)
        if may_be_deep(image.data):
            deepest = joined_depths((deepest, find_depth(image)))
    return content.hexdigest(), deepest


def _decoded(part: Part, layout: Layout, shape: tuple[int, ...], text: str, watch: Watch) -> Iterator[Pixels]:
    """Yields the pixels of one split in batches, and reports how far it is."""
    return decode_batches(counted(part.read(), watch, text, part.rows.size), layout, shape)
