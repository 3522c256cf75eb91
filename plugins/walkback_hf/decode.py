"""From the bytes of an image file to pixels: uint8 `(channels, height, width)`.

Untrusted bytes meet Pillow here and nowhere else. Only common raster formats are tried (some of its other
readers start programs), and whatever goes wrong becomes a DataError that names the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import PIL
from PIL import ExifTags, Image, ImageOps

from walkback.errors import DataError
from walkback_hf.encoded import EncodedImage, Part

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_MAX_PIXELS = 64_000_000
_BATCH = 1024

Pixels = npt.NDArray[np.uint8]
Mode = Literal["L", "RGB"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What every image of a data set is turned into.

    Attributes:
        mode: "L" for one channel of grey, "RGB" for three of colour.
        convert: Whether colour images are turned grey where `mode` is "L"; otherwise they are refused.
        size: Side of the square to resize and crop to; None leaves images as they are.
    """

    mode: Mode
    convert: bool
    size: int | None

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps in words."""
        colour = "one channel, grey" if self.mode == "L" else "three channels, RGB"
        if self.size is None:
            return (colour,)
        return (
            colour,
            f"shorter side resized to {self.size} (bicubic, antialiased)",
            f"centre crop {self.size}×{self.size}",
        )

    @property
    def key(self) -> str:
        """Everything that decides the pixels of a given file, Pillow's version included."""
        return f"{self.mode} {self.convert} {self.size} Pillow {PIL.__version__}"


def find_layout(image: EncodedImage, size: int | None, grayscale: bool | None) -> Layout:
    """The layout asked for; where `grayscale` is None, that of the first image decides."""
    if grayscale is None:
        return Layout("L" if _is_grey(_open(image)) else "RGB", convert=False, size=size)
    return Layout("L" if grayscale else "RGB", convert=True, size=size)


def decode_batches(part: Part, layout: Layout, shape: tuple[int, ...]) -> Iterator[Pixels]:
    """All images of a split, in batches `(B, C, H, W)`.

    Raises:
        DataError: An image cannot be decoded, or has another shape than `shape`; names the file and row.
    """
    batch = []
    for image in part.read():
        pixels = decode(image, layout)
        if pixels.shape != shape:
            raise DataError(
                f"Got an image of another size, {image.place} ({_size(pixels.shape)} instead of "
                f"{_size(shape)}); set data.size to bring all images to one size."
            )
        batch.append(pixels)
        if len(batch) == _BATCH:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def decode(image: EncodedImage, layout: Layout) -> Pixels:
    """The pixels `(C, H, W)` of one image.

    Raises:
        DataError: The image is corrupt, truncated, too large, or does not fit the layout.
    """
    try:
        pixels = np.asarray(_render(image, layout), dtype=np.uint8)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow raises nearly anything on bytes that are not what they seem
        raise _undecodable(image, error) from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _render(image: EncodedImage, layout: Layout) -> Image.Image:
    picture = _upright(_open(image))
    if layout.mode == "L" and not layout.convert and not _is_grey(picture):
        raise DataError(
            f"Got an image in colour, {image.place}, where the first one is grey; "
            "set data.grayscale to true or false."
        )
    picture = _to_mode(picture, layout.mode, image.place)
    return picture if layout.size is None else _square(picture, layout.size, image.place)


def _open(image: EncodedImage) -> Image.Image:
    try:
        picture = Image.open(BytesIO(image.data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"Got an image of too many pixels, {image.place}; at most {_MAX_PIXELS:,} fit."
        ) from error
    except Exception as error:  # as in `decode`
        raise _undecodable(image, error) from error
    _check_pixels(picture.size, image.place)
    return picture


def _check_pixels(size: tuple[int, int], place: str) -> None:
    if size[0] * size[1] > _MAX_PIXELS:
        raise DataError(
            f"Got an image of too many pixels, {place} ({size[0]}×{size[1]}); at most {_MAX_PIXELS:,} fit."
        )


def _undecodable(image: EncodedImage, error: Exception) -> DataError:
    reason = "no known image format" if isinstance(error, PIL.UnidentifiedImageError) else str(error)
    return DataError(f"Got an image that cannot be decoded, {image.place} ({reason}); replace or remove it.")


def _is_grey(picture: Image.Image) -> bool:
    return picture.mode in ("1", "L", "LA", "La", "F") or picture.mode.startswith("I")


def _upright(picture: Image.Image) -> Image.Image:
    if picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return picture
    return ImageOps.exif_transpose(picture)


def _to_mode(picture: Image.Image, mode: Mode, place: str) -> Image.Image:
    if picture.mode.startswith("I"):
        picture = _to_8_bits(picture, place)
    elif picture.mode == "F":
        raise DataError(f"Got an image of floating-point values, {place}; expected 8 or 16 bits a channel.")
    if picture.has_transparency_data:
        layers = picture.convert("RGBA")
        white = Image.new("RGBA", layers.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, layers)
    return picture if picture.mode == mode else picture.convert(mode)


def _to_8_bits(picture: Image.Image, place: str) -> Image.Image:
    """Grey values of 16 bits, rounded to 8: v / 257."""
    values: npt.NDArray[Any] = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"Got an image of more than 16 bits a channel, {place}; expected 8 or 16.")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _square(picture: Image.Image, size: int, place: str) -> Image.Image:
    """Shorter side to `size`, then the centre `size`×`size`: 178×218 → 64×78 → rows 7 to 70."""
    shorter = min(picture.size)
    width, height = (max(size, round(side * size / shorter)) for side in picture.size)
    _check_pixels((width, height), place)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}×{shape[1]}"
