"""Encoded images as they lie in files: read in order, a few at a time, and decoded elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from walkback.errors import DataError

Rows: TypeAlias = npt.NDArray[np.int64]


class EncodedImage(NamedTuple):
    """The bytes of one image file, and their place for messages: `train.parquet, row 17`, counted from 0."""

    place: str
    data: bytes


class Labels(NamedTuple):
    """Class numbers of images, `(N,)`, and the names of the classes by number."""

    classes: tuple[str, ...]
    numbers: Rows


class EncodedImages(ABC):
    """Images in a fixed order."""

    @property
    @abstractmethod
    def place(self) -> str:
        """The files that hold the images, for messages."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of images."""

    @abstractmethod
    def read(self, rows: Rows) -> Iterator[EncodedImage]:
        """The images of these rows, which ascend.

        Raises:
            DataError: A file cannot be read, or a row holds no image.
        """

    @abstractmethod
    def labels(self, rows: Rows) -> Labels:
        """The classes of the images of these rows, which ascend.

        Raises:
            DataError: The images have no labels, or a file cannot be read.
        """


class Part(NamedTuple):
    """The rows of a sequence of images that make up one split."""

    images: EncodedImages
    rows: Rows

    def read(self) -> Iterator[EncodedImage]:
        """The images of the split, in order."""
        return self.images.read(self.rows)


@final
class ImageFiles(EncodedImages):
    """One image a file."""

    def __init__(self, root: Path, paths: Sequence[Path]) -> None:
        """Take the files at `paths`, which messages name relative to `root`."""
        self._root = root
        self._paths = paths

    @property
    @override
    def place(self) -> str:
        return self._root.name

    @property
    @override
    def count(self) -> int:
        return len(self._paths)

    @override
    def read(self, rows: Rows) -> Iterator[EncodedImage]:
        for row in rows:
            path = self._paths[row]
            place = path.relative_to(self._root).as_posix()
            try:
                data = path.read_bytes()
            except OSError as error:
                raise DataError(
                    f"Got an image file that cannot be read, {place} ({error.strerror})."
                ) from error
            yield EncodedImage(place, data)

    @override
    def labels(self, rows: Rows) -> Labels:
        raise DataError(
            f"Got a folder of image files, {self.place}, which has no labels; expected parquet with a column "
            "of the type ClassLabel."
        )
