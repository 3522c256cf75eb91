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
"""A square of the plane: left edge, bottom edge, side length."""

_WIDTH = 640  # approximate width of a grid of enlarged small images, in pixels
_LARGEST_CELL = 128
_OVERSAMPLING = 4
_WHITE, _GREY, _BLACK = (255, 255, 255), (200, 200, 200), (60, 60, 60)
_BLUE = (31, 90, 180)


def to_uint8(images: Tensor) -> Picture:
    """Convert images `(N, C, H, W)` with values in [0, 1] to bytes `(N, H, W, C)`; clips others, NaN becomes 0."""
    # ⌊256 x⌋ and not round(255 x): all gray levels of dequantized data have intervals of equal length.
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
    """Arrange pictures `(N, H, W, C)` in a grid, row by row, `pad` pixels apart on gray.

    Picture n starts at row `pad + (n // columns) (s H + pad)` and column `pad + (n % columns) (s W + pad)`.

    Args:
        pictures: At least one picture.
        columns: Pictures per row; None makes the grid roughly square.
        pad: Pixels between pictures and around the grid.
        scale: Enlargement s of each pixel; None enlarges small pictures to a readable size.
        background: Gray level of the background, from 0 to 255.
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
    """Arrange images `(N, C, H, W)` in a grid, see `tile`."""
    return tile(to_uint8(images), columns, pad, scale)


def filmstrip(frames: Tensor, pad: int = 4, scale: int | None = None) -> Picture:
    """Arrange frames `(F, N, C, H, W)` of N chains: a row for each chain, a column for each recorded step."""
    return tile(to_uint8(frames.transpose(0, 1).flatten(0, 1)), frames.shape[0], pad, scale)


def scatter(
    points: Tensor,
    reference: Tensor | None = None,
    window: Window | None = None,
    size: int = 480,
    title: str = "",
) -> Picture:
    """Plot points `(N, 2)` over `(M, 2)` reference points in gray; returns `(size, size, 3)`.

    Labels show the title, the limits of the window, and the number of points outside it.

    Args:
        points: Points to plot.
        reference: Points to compare with, e.g. data.
        window: Part of the plane to show; by default, one that contains the reference, or the points if there is none.
        size: Width and height in pixels; below 384 pixels, limits are not labelled.
        title: Title above the plot.
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
    """Plot arrows `(N, 2)` at points `(N, 2)` over reference points `(M, 2)` in gray; returns `(size, size, 3)`.

    Arrows are drawn to scale, except those that start outside the window or are not finite, which are omitted.
    """
    canvas = _canvas(size)
    _draw_dots(canvas, reference, window, _GREY)
    for row in _finite(torch.cat([tails, arrows], 1)):
        _draw_arrow(canvas, row[:2], row[2:], window)
    return _framed(canvas, size, window, "", title)


def window_of(points: Tensor) -> Window:
    """Return a window that contains all finite points `(N, 2)`, with a margin."""
    finite = _finite(points)
    if len(finite) == 0:
        return (-1.0, -1.0, 2.0)
    low, high = finite.min(0), finite.max(0)
    side = max(1.1 * float((high - low).max()), 1e-6)
    left, bottom = ((low + high - side) / 2).tolist()
    return (left, bottom, side)


def as_image(picture: Picture) -> Image.Image:
    """Convert a picture to a Pillow image, gray or RGB."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """Return a protocol as JSON text for the metadata of a file."""
    return json.dumps(protocol, sort_keys=True, ensure_ascii=False)


def encode_png(picture: Picture, metadata: Mapping[str, Any] | None = None) -> bytes:
    """Encode a picture in PNG format, with a JSON document (e.g. the protocol) in the text chunk `walkback`."""
    text = PngInfo()
    if metadata is not None:
        text.add_itxt("walkback", protocol_text(metadata))
    buffer = BytesIO()  # Pillow's errors do not say why writing to a file failed
    as_image(picture).save(buffer, "png", pnginfo=text)
    return buffer.getvalue()


def save_png(path: Path, picture: Picture, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a picture atomically, see `encode_png`.

    Raises:
        WalkbackError: The file cannot be written.
    """
    write_bytes(path, encode_png(picture, metadata))


def _readable_scale(columns: int, side: int) -> int:
    """Return the enlargement at which `columns` images of `side` pixels fill the width."""
    return max(1, min(round(_WIDTH / (columns * side)), _LARGEST_CELL // side))


def _finite(points: Tensor) -> npt.NDArray[np.float64]:
    rows: npt.NDArray[np.float64] = points.detach().double().cpu().numpy()
    return rows[np.isfinite(rows).all(1)]


def _canvas(size: int) -> Image.Image:
    """Return a white canvas, larger than the inside of a plot of `size` pixels: reducing it smooths edges."""
    return Image.new("RGB", 2 * ((size - 2 * _margin(size)) * _OVERSAMPLING,), _WHITE)


def _margin(size: int) -> int:
    """Return the margin of a plot of `size` pixels."""
    return size // 16


def _framed(canvas: Image.Image, size: int, window: Window, note: str, title: str) -> Picture:
    """Reduce a canvas to its final size, and add frame and labels."""
    picture = Image.new("RGB", (size, size), _WHITE)
    picture.paste(canvas.reduce(_OVERSAMPLING), 2 * (_margin(size),))
    _draw_frame(picture, _margin(size), window, note, title)
    return np.asarray(picture)


def _draw_dots(canvas: Image.Image, points: Tensor, window: Window, color: tuple[int, int, int]) -> int:
    """Draw the points inside the window; returns their number."""
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
    """Draw an arrow, or a dot if it is shorter than the width of its line."""
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
    """Draw a frame `margin` pixels from the edge, with the limits at its corners and title and note above."""
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
