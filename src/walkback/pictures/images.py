"""States as pictures: grids of images, and scatter plots of points in the plane.

A picture is a numpy array `(H, W, C)` of uint8 with one channel or three. Pixel values in [0, 1] become
⌊256 x⌋, which undoes both x = v / 255 and uniform dequantization, x = (v + u) / 256.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from walkback.storage.files import write_bytes

Picture: TypeAlias = npt.NDArray[np.uint8]
Window: TypeAlias = tuple[float, float, float]
"""A square of the plane: its left side, its lower side, their length."""

_WIDTH = 640  # aimed at when small images are enlarged, in pixels
_LARGEST_CELL = 128
_OVERSAMPLING = 4
_WHITE, _GREY, _BLACK = (255, 255, 255), (200, 200, 200), (60, 60, 60)
_BLUE = (31, 90, 180)


def to_uint8(images: Tensor) -> Picture:
    """Images `(N, C, H, W)` with values in [0, 1] as bytes `(N, H, W, C)`; clips others, NaN becomes 0."""
    # ⌊256 x⌋ and not round(255 x), so that every level of dequantized data is met by an interval of equal length.
    values = images.detach().float().nan_to_num(0.0, 1.0, 0.0).mul(256).clamp(0, 255)
    pixels: Picture = values.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def tile(
    pictures: Picture,
    columns: int | None = None,
    pad: int = 4,
    scale: int | None = None,
    background: int = 128,
) -> Picture:
    """Put pictures `(N, H, W, C)` side by side, row by row, `pad` pixels apart on gray.

    Picture n starts at row `pad + (n // columns) (s H + pad)` and column `pad + (n % columns) (s W + pad)`.

    Args:
        pictures: At least one picture.
        columns: Pictures in a row; None makes the grid about square.
        pad: Pixels between two pictures and around all of them.
        scale: Pixels drawn for each pixel, s; None enlarges small pictures to make a readable grid.
        background: The gray, from 0 to 255.
    """
    num, height, width, channels = pictures.shape
    columns = columns or math.ceil(math.sqrt(num))
    rows = math.ceil(num / columns)
    scale = scale or _readable_scale(columns, max(height, width))
    big = pictures.repeat(scale, axis=1).repeat(scale, axis=2)
    step_y, step_x = scale * height + pad, scale * width + pad
    canvas = np.full((pad + rows * step_y, pad + columns * step_x, channels), background, np.uint8)
    for index, picture in enumerate(big):
        y, x = pad + index // columns * step_y, pad + index % columns * step_x
        canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return canvas


def grid(images: Tensor, columns: int | None = None, pad: int = 4, scale: int | None = None) -> Picture:
    """Images `(N, C, H, W)` in a grid, see `tile`."""
    return tile(to_uint8(images), columns, pad, scale)


def filmstrip(frames: Tensor, pad: int = 4, scale: int | None = None) -> Picture:
    """Frames `(F, N, C, H, W)` of N chains: a row for each chain, a column for each recorded step."""
    return tile(to_uint8(frames.transpose(0, 1).flatten(0, 1)), frames.shape[0], pad, scale)


def scatter(
    points: Tensor,
    reference: Tensor | None = None,
    window: Window | None = None,
    size: int = 480,
    title: str = "",
) -> Picture:
    """Points `(N, 2)` in the plane, drawn over `(M, 2)` reference points in gray; `(size, size, 3)`.

    The labels are the title, the limits of the window, and the number of points that are not in it.

    Args:
        points: What is drawn.
        reference: What it is compared with, e.g. data.
        window: What part of the plane is drawn; by default one that holds the reference, or else the points.
        size: Width and height in pixels; pictures under 384 pixels have no labels of limits.
        title: Stands above the plot.
    """
    window = window or window_of(points if reference is None else reference)
    canvas = _canvas(size)
    if reference is not None:
        _draw_dots(canvas, reference, window, _GREY)
    outside = len(points) - _draw_dots(canvas, points, window, _BLUE)
    return _framed(canvas, size, window, f"{outside} outside" if outside else "", title)


def quiver(
    tails: Tensor, arrows: Tensor, reference: Tensor, window: Window, size: int = 480, title: str = ""
) -> Picture:
    """Arrows `(N, 2)` from points `(N, 2)` of the plane over reference points `(M, 2)` in gray; `(size, size, 3)`.

    Arrows are drawn to scale; those that start outside the window, or are not finite, are not drawn.
    """
    canvas = _canvas(size)
    _draw_dots(canvas, reference, window, _GREY)
    for row in _finite(torch.cat([tails, arrows], 1)):
        _draw_arrow(canvas, row[:2], row[2:], window)
    return _framed(canvas, size, window, "", title)


def window_of(points: Tensor) -> Window:
    """A window that holds all finite points `(N, 2)`, with some room around them."""
    finite = _finite(points)
    if len(finite) == 0:
        return (-1.0, -1.0, 2.0)
    low, high = finite.min(0), finite.max(0)
    side = max(1.1 * float((high - low).max()), 1e-6)
    left, bottom = ((low + high - side) / 2).tolist()
    return (left, bottom, side)


def as_image(picture: Picture) -> Image.Image:
    """A picture as Pillow's image, gray or RGB."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """The JSON text that a file of pictures or arrays carries."""
    return json.dumps(protocol, sort_keys=True, ensure_ascii=False)


def encode_png(picture: Picture, metadata: Mapping[str, Any] | None = None) -> bytes:
    """A picture in PNG format, with a JSON document (e.g. the protocol) as its text chunk `walkback`."""
    text = PngInfo()
    if metadata is not None:
        text.add_itxt("walkback", protocol_text(metadata))
    buffer = BytesIO()  # Pillow does not say why it could not write to a file
    as_image(picture).save(buffer, "png", pnginfo=text)
    return buffer.getvalue()


def save_png(path: Path, picture: Picture, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a picture atomically, see `encode_png`.

    Raises:
        WalkbackError: The file cannot be written.
    """
    write_bytes(path, encode_png(picture, metadata))


def _readable_scale(columns: int, side: int) -> int:
    """How much to enlarge images of `side` pixels so that `columns` of them fill the width."""
    return max(1, min(round(_WIDTH / (columns * side)), _LARGEST_CELL // side))


def _finite(points: Tensor) -> npt.NDArray[np.float64]:
    rows: npt.NDArray[np.float64] = points.detach().double().cpu().numpy()
    return rows[np.isfinite(rows).all(1)]


def _canvas(size: int) -> Image.Image:
    """White, several times larger than the inside of a plot of `size` pixels."""
    return Image.new("RGB", 2 * ((size - 2 * _margin(size)) * _OVERSAMPLING,), _WHITE)


def _margin(size: int) -> int:
    """Pixels around a plot of `size` pixels."""
    return size // 16


def _framed(canvas: Image.Image, size: int, window: Window, note: str, title: str) -> Picture:
    """The plot of a canvas: reduced, framed, labelled."""
    picture = Image.new("RGB", (size, size), _WHITE)
    picture.paste(canvas.reduce(_OVERSAMPLING), 2 * (_margin(size),))
    _draw_frame(picture, _margin(size), window, note, title)
    return np.asarray(picture)


def _draw_dots(canvas: Image.Image, points: Tensor, window: Window, color: tuple[int, int, int]) -> int:
    """Draw those points that are in the window; returns their number."""
    left, bottom, side = window
    unit = (_finite(points) - (left, bottom)) / side
    inside = unit[((unit >= 0) & (unit <= 1)).all(1)]
    radius = max(_OVERSAMPLING, canvas.width / 260)
    draw = ImageDraw.Draw(canvas)
    for column, row in (inside * (1, -1) + (0, 1)) * canvas.width:
        draw.ellipse((column - radius, row - radius, column + radius, row + radius), fill=color)
    return len(inside)


def _draw_arrow(
    canvas: Image.Image, tail: npt.NDArray[np.float64], arrow: npt.NDArray[np.float64], window: Window
) -> None:
    """One arrow; of one shorter than its line is wide, a dot is left."""
    left, bottom, side = window
    start = np.array([tail[0] - left, bottom + side - tail[1]]) / side * canvas.width
    along = np.array([arrow[0], -arrow[1]]) / side * canvas.width
    if not ((start >= 0) & (start <= canvas.width)).all():
        return
    length, width = float(np.hypot(*along)), max(1, canvas.width // 400)
    draw = ImageDraw.Draw(canvas)
    draw.ellipse((*(start - width), *(start + width)), fill=_BLUE)
    if length <= width:
        return
    end, unit = start + along, along / length
    head = min(length, 6 * width) * unit
    across = 0.4 * np.array([-head[1], head[0]])
    draw.line((*start, *(end - head / 2)), fill=_BLUE, width=width)
    draw.polygon([tuple(end), tuple(end - head + across), tuple(end - head - across)], fill=_BLUE)


def _draw_frame(picture: Image.Image, margin: int, window: Window, note: str, title: str) -> None:
    """A frame `margin` pixels from the edge, the window's limits at its corners, title and note above it."""
    left, bottom, side = window
    near, far = margin, picture.width - margin
    draw = ImageDraw.Draw(picture)
    draw.rectangle((near, near, far, far), outline=_BLACK)
    draw.text((near, near - 2), title, fill=_BLACK, anchor="lb")
    draw.text((far, near - 2), note, fill=_BLACK, anchor="rb")
    if margin < 24:
        return
    draw.text((near, far + 2), f"{left:.3g}", fill=_BLACK, anchor="la")
    draw.text((far, far + 2), f"{left + side:.3g}", fill=_BLACK, anchor="ra")
    draw.text((near - 2, far), f"{bottom:.3g}", fill=_BLACK, anchor="rb")
    draw.text((near - 2, near), f"{bottom + side:.3g}", fill=_BLACK, anchor="rt")
