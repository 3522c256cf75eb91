"""Encoded images in files, read in order, a few at a time; decoded elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from walkback.errors import DataError
from walkback_hf.names import shown

Rows: TypeAlias = npt.NDArray[np.int64]
_MOST_BYTES = 1 << 29


class EncodedImage(NamedTuple):
    """The bytes of one image file and their location for messages: `train.parquet, row 17`, counted from 0."""

    place: str
    data: bytes


class Labels(NamedTuple):
    """Class numbers of images, `(N,)`, -1 where an image has none, and the names of the classes by number."""

    classes: tuple[str, ...]
    numbers: Rows


class EncodedImages(ABC):
    """Images in a fixed order."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Returns the names of the files that hold the images, for messages."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Returns the number of images."""

    @abstractmethod
    def read(self, rows: Rows) -> Iterator[EncodedImage]:
        """Yields the images of these rows, which are in ascending order.

        Raises:
            DataError: A file cannot be read, or a row holds no image.
        """

    @abstractmethod
    def labels(self, rows: Rows) -> Labels:
        """Returns the classes of the images of these rows, which are in ascending order.

        Raises:
            DataError: The images have no labels, or a file cannot be read.
        """


class Part(NamedTuple):
    """The rows of a sequence of images that make up one split."""

    images: EncodedImages
    rows: Rows

    def read(self) -> Iterator[EncodedImage]:
        """Yields the images of the split in order."""
        return self.images.read(self.rows)


@dataclass(frozen=True, slots=True)
class Found:
    """The contents of a source.

    Attributes:
        splits: The encoded images, by the source's own split names.
        note: One line on what was found, how it was split, and what was ignored; empty if the name is sufficient.
        left_out: Description of images that are present but not used; empty if there are none.
    """

    splits: Mapping[str, EncodedImages]
    note: str = ""
    left_out: str = ""


@final
class ImageFiles(EncodedImages):
    """One image per file.

    Attributes:
        paths: The files, in order.
    """

    def __init__(self, root: Path, paths: Sequence[Path], labels: Labels | str) -> None:
        """Initializes the files.

        Args:
            root: Folder to which file names in messages are relative.
            paths: The files, in order.
            labels: The class of each image, or the reason why there are none, as the end of a sentence.
        """
        self._root = root
        self.paths = tuple(paths)
        self._labels = labels

    @property
    @override
    def place(self) -> str:
        return self._root.name

    @property
    @override
    def count(self) -> int:
        return len(self.paths)

    @override
    def read(self, rows: Rows) -> Iterator[EncodedImage]:
        for row in rows:
            path = self.paths[row]
            place = shown(path.relative_to(self._root))
            yield EncodedImage(place, read_file(path, place))

    @override
    def labels(self, rows: Rows) -> Labels:
        if isinstance(self._labels, str):
            raise DataError(f"Got a folder of image files without labels, {self.place}, {self._labels}.")
        return Labels(self._labels.classes, self._labels.numbers[rows])


def read_file(path: Path, place: str) -> bytes:
    """Returns the bytes of an image file.

    Raises:
        DataError: It cannot be read, or exceeds the largest accepted size.
    """
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise DataError(
                f"Got an image file of {size:,} bytes, {place}, expected at most {_MOST_BYTES:,}; remove it."
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"Got an image file that cannot be read, {place} ({error.strerror}).") from error
