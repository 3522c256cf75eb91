"""From the bytes of an image file to pixels: uint8 `(channels, height, width)`.

This is the only module in which Pillow reads untrusted bytes. Only common raster formats are enabled (some of Pillow's
other readers start programs), and every failure becomes a DataError that names the image.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
import numpy.typing as npt
import PIL
from PIL import ExifTags, Image, ImageOps

from walkback.errors import DataError
from walkback_hf.depth import (
    PNG,
    Deepest,
    check_grey,
    depth_of,
    grey_values,
    is_deep_colour,
    is_deep_grey,
    to_8_bits,
)
from walkback_hf.encoded import EncodedImage

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
_READ = "PNG, JPEG, WebP, BMP, GIF, TIFF and PPM"
_MAX_PIXELS = 64_000_000
_BATCH = 1024
_RULES = 2  # increment when the pixels decoded from a file change: invalidates the cache

Pixels = npt.NDArray[np.uint8]
_Mode = Literal["L", "RGB"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The format to which all images of a dataset are converted.

    Attributes:
        mode: "L" for one channel of gray, "RGB" for three of color.
        convert: Whether color images are converted to gray if `mode` is "L"; otherwise they are rejected.
        size: Side of the square to resize and crop to; None leaves images as they are.
        bits: Number of bits used by the values of 16-bit files.
    """

    mode: _Mode
    convert: bool
    size: int | None
    bits: int = 16

    @property
    def steps(self) -> tuple[str, ...]:
        """Returns a description of each step."""
        colour = "one channel, grey" if self.mode == "L" else "three channels, RGB"
        depth = (
            ()
            if self.bits == 16
            else (f"files of 16 bits hold {self.bits}: v · 255 / {(1 << self.bits) - 1:,}",)
        )
        if self.size is None:
            return (*depth, colour)
        return (
            *depth,
            colour,
            f"shorter side resized to {self.size} (bicubic, antialiased)",
            f"centre crop {self.size}×{self.size}",
        )

    @property
    def key(self) -> str:
        """Returns everything that determines the pixels of a given file, including these rules and Pillow's version."""
        return f"{self.mode} {self.convert} {self.size} {self.bits} rules {_RULES} Pillow {PIL.__version__}"


def find_layout(image: EncodedImage, size: int | None, grayscale: bool | None) -> Layout:
    """Returns the requested layout; if `grayscale` is None, the first image decides."""
    if grayscale is None:
        with _undecodable(image):
            grey = _says_grey(_open(image), image)
        return Layout("L" if grey else "RGB", convert=False, size=size)
    return Layout("L" if grayscale else "RGB", convert=True, size=size)


def find_depth(image: EncodedImage) -> Deepest:
    """Returns the largest values of an image, if it has more than 8 bits.

    Raises:
        DataError: It cannot be decoded.
    """
    with _undecodable(image):
        return depth_of(_open(image), image)


def decode_batches(
    images: Iterable[EncodedImage], layout: Layout, shape: tuple[int, ...]
) -> Iterator[Pixels]:
    """Yields all images, decoded, in batches `(B, C, H, W)`.

    Raises:
        DataError: An image cannot be decoded, or has another shape than `shape`; names the file and row.
    """
    batch = []
    for image in images:
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
    """Returns the pixels `(C, H, W)` of one image.

    Raises:
        DataError: The image is corrupt, truncated, too large, has several frames, or does not fit the layout.
    """
    with _undecodable(image):
        pixels = np.asarray(_render(image, layout), dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@contextmanager
def _undecodable(image: EncodedImage) -> Iterator[None]:
    """Turns every exception of Pillow into a DataError that names the image; its warnings leave the pixels intact."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (DataError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"Got an image of too many pixels, {image.place}; at most {_MAX_PIXELS:,} fit."
        ) from error
    except Exception as error:  # Pillow raises almost any exception on malformed bytes
        unknown = isinstance(error, PIL.UnidentifiedImageError)
        reason = f"no known image format; {_READ} are read" if unknown else f"{error}"
        raise DataError(
            f"Got an image that cannot be decoded, {image.place} ({reason:.300}); replace or remove it."
        ) from error


def _render(image: EncodedImage, layout: Layout) -> Image.Image:
    picture = _upright(_open(image))
    picture = _on_white(_to_8_bits(picture, image, layout.bits), image)
    if layout.mode == "L" and not layout.convert and picture.mode not in ("1", "L"):
        picture = _grey_channel(picture, image.place)
    picture = picture if picture.mode == layout.mode else picture.convert(layout.mode)
    return picture if layout.size is None else _square(picture, layout.size, image.place)


def _open(image: EncodedImage) -> Image.Image:
    picture = Image.open(BytesIO(image.data), formats=_FORMATS)
    _check_pixels(picture.size, image.place)
    # A camera's JPEG (MPO) holds several pictures; those after the first are previews and depth maps.
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        raise DataError(
            f"Got an image of several pages or frames, {image.place} ({getattr(picture, 'n_frames', 2)}); expected one "
            "a file: save each in a file of its own."
        )
    return picture


def _check_pixels(size: tuple[int, int], place: str) -> None:
    if size[0] * size[1] > _MAX_PIXELS:
        raise DataError(
            f"Got an image of too many pixels, {place} ({size[0]}×{size[1]}); at most {_MAX_PIXELS:,} fit."
        )


def _says_grey(picture: Image.Image, image: EncodedImage) -> bool:
    """Returns whether a file is gray: by its mode, or by the palette colors that it uses."""
    if picture.mode == "P":
        colours = np.asarray(picture.convert("RGB"))
        return bool((colours == colours[..., :1]).all())
    grey_with_alpha = (
        image.data[:8] == PNG and image.data[25:26] == b"\x04"
    )  # which Pillow reads as RGBA, at 16 bits
    return picture.mode in ("1", "L", "LA", "La", "F") or is_deep_grey(picture) or grey_with_alpha


def _upright(picture: Image.Image) -> Image.Image:
    if picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return picture
    return ImageOps.exif_transpose(picture)


def _to_8_bits(picture: Image.Image, image: EncodedImage, bits: int) -> Image.Image:
    if picture.mode == "F":
        raise DataError(
            f"Got an image of floating-point values, {image.place}; expected 8 or 16 bits a channel."
        )
    clear = picture.info.get("transparency")
    if is_deep_colour(picture, image.data) and clear is not None:
        raise DataError(
            f"Got a 16-bit image with a transparent color, {image.place}; convert it to 8 bits a channel."
        )
    if not is_deep_grey(picture):
        return picture
    check_grey(picture, image.place)
    values = grey_values(picture, image.place)
    # Netpbm files state their largest value, and Pillow has scaled them to 16 bits accordingly.
    levels = to_8_bits(values, 16 if picture.format == "PPM" else bits)
    if isinstance(clear, int):
        levels[values == clear] = 255
    return Image.fromarray(levels)


def _on_white(picture: Image.Image, image: EncodedImage) -> Image.Image:
    """Composites transparent pixels on white."""
    if not picture.has_transparency_data:
        return picture
    clear = picture.info.get("transparency")
    if picture.mode == "L" and isinstance(clear, int) and image.data[:8] == PNG and image.data[24] in (2, 4):
        # Pillow scales 2- and 4-bit grays to 8 bits, but not the value of the transparent gray.
        picture.info["transparency"] = clear * 255 // ((1 << image.data[24]) - 1)
    layers = picture.convert("RGBA")
    white = Image.new("RGBA", layers.size, (255, 255, 255, 255))
    flat = Image.alpha_composite(white, layers)
    return flat.convert("RGB") if picture.mode not in ("1", "L", "LA", "La") else flat.convert("L")


def _grey_channel(picture: Image.Image, place: str) -> Image.Image:
    """Returns one channel of a picture whose three channels are equal."""
    colours = np.asarray(picture.convert("RGB"))
    if not (colours == colours[..., :1]).all():
        raise DataError(
            f"Got an image in color, {place}, where the first one is gray; set data.grayscale to true or false."
        )
    return Image.fromarray(np.ascontiguousarray(colours[..., 0]))


def _square(picture: Image.Image, size: int, place: str) -> Image.Image:
    """Resizes the shorter side to `size` and crops the center `size`×`size`: 178×218 → 64×78 → rows 7 to 70."""
    shorter = min(picture.size)
    width, height = (max(size, round(side * size / shorter)) for side in picture.size)
    _check_pixels((width, height), place)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}×{shape[1]}"
