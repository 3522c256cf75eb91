"""Bit depth of the values in image files of more than 8 bits.

Cameras and microscopes write 10, 12 or 14 bits into 16-bit files, and no header records it, but the largest value of a
whole dataset reveals it: at most 1,023 means 10 bits, at most 4,095 means 12, at most 16,383 means 14, above that 16.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from walkback.errors import DataError
from walkback_hf.encoded import EncodedImage

PNG = b"\x89PNG\r\n\x1a\n"
"""Signature of a PNG file."""
_DEPTHS = (8, 10, 12, 14, 16)
_WHITE_IS_ZERO, _PHOTOMETRIC, _BITS = 0, 262, 258
_LEAST_COLOUR = 64  # in the upper 8 bits; below, fewer than 14 of 16 bits are used


@dataclass(frozen=True, slots=True)
class Deepest:
    """The largest values in files of more than 8 bits.

    Attributes:
        grey: Largest value of files with one channel; None if there are none.
        colour: Largest value in the upper 8 bits of files with several channels (Pillow reads no more); None if there
            are none.
        place: A file with several channels.
    """

    grey: int | None = None
    colour: int | None = None
    place: str = ""

    @property
    def bits(self) -> int:
        """Returns the number of bits of the gray values.

        Raises:
            DataError: Colors use so few bits that the upper 8 would be nearly empty.
        """
        if self.colour is not None and self.colour < _LEAST_COLOUR:
            raise DataError(
                f"Got color images of 16 bits that use fewer than 14, such as {self.place}, of which 8 cannot be "
                "told; convert them to 8 bits a channel."
            )
        most = 65535 if self.grey is None else self.grey
        return next(bits for bits in _DEPTHS if most < 1 << bits)


def joined_depths(found: Iterable[Deepest]) -> Deepest:
    """Combines the largest values of several parts."""
    result = Deepest()
    for part in found:
        result = Deepest(
            _larger(result.grey, part.grey), _larger(result.colour, part.colour), result.place or part.place
        )
    return result


def _larger(first: int | None, second: int | None) -> int | None:
    return max((value for value in (first, second) if value is not None), default=None)


def may_be_deep(data: bytes) -> bool:
    """Returns whether a file may hold more than 8 bits per value, by its first bytes; cheap, and true for any TIFF."""
    if data[:8] == PNG:
        return data[24:25] == b"\x10"
    return data[:2] in (b"II", b"MM")


def depth_of(picture: Image.Image, image: EncodedImage) -> Deepest:
    """Returns the largest values of one picture."""
    if is_deep_grey(picture):
        check_grey(picture, image.place)
        return Deepest(grey=int(grey_values(picture, image.place).max()))
    if is_deep_colour(picture, image.data):
        colours = np.asarray(picture.convert("RGBA"))[..., :3]
        return Deepest(colour=int(colours.max()), place=image.place)
    return Deepest()


def is_deep_grey(picture: Image.Image) -> bool:
    """Returns whether the picture has one channel of more than 8 bits."""
    return picture.mode.startswith("I")


def is_deep_colour(picture: Image.Image, data: bytes) -> bool:
    """Returns whether the file has several 16-bit channels, of which Pillow reads the upper 8 bits."""
    if is_deep_grey(picture) or picture.mode == "F":
        return False
    if data[:8] == PNG:
        return data[24:25] == b"\x10"
    bits = getattr(picture, "tag_v2", {}).get(_BITS, (8,))
    return max(bits if isinstance(bits, tuple) else (bits,), default=8) > 8


def check_grey(picture: Image.Image, place: str) -> None:
    """Rejects 16-bit grays in which 0 is white, which Pillow reads as if 0 were black."""
    if getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise DataError(f"Got a 16-bit image whose 0 is white, {place}; invert it, so that 0 is black.")


def grey_values(picture: Image.Image, place: str) -> npt.NDArray[np.int64]:
    """Returns the values of one channel, 0 to 65535.

    Raises:
        DataError: There are values outside this range.
    """
    values: npt.NDArray[Any] = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"Got an image of more than 16 bits a channel, {place}; expected 8 or 16.")
    return values


def to_8_bits(values: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.uint8]:
    """Rounds values of `bits` bits to 8 bits: v · 255 / (2^bits - 1)."""
    top = (1 << bits) - 1
    return ((values * 510 + top) // (2 * top)).astype(np.uint8)
