"""Pair plots: the marginals of columns, the plane of every two of them, and the Gaussian energy.

The diagonal holds a histogram of each column; below it, each pair of columns is a scatter plot. Samples are blue, data
gray. States with more than `MOST` columns are represented by their leading principal components. The upper right corner
holds a histogram of the energy, see `walkback.pictures.planes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from torch import Tensor

from walkback.data import DataInfo
from walkback.errors import shortened
from walkback.pictures.images import Picture
from walkback.pictures.planes import Directions

MOST = 6
"""Largest number of columns that are drawn directly."""

_COMPONENTS = 4
"""Number of principal components drawn if there are more columns."""

_BINS = 30
_MOST_POINTS = 2000
_GAP, _LEFT, _TOP, _BOTTOM = 14, 26, 26, 34  # pixels
_TAIL = 0.001
"""Share of the data at each end that an axis may omit, so that outliers do not determine its range."""

_WHITE, _FRAME, _TEXT = (255, 255, 255), (190, 190, 190), (60, 60, 60)
_DATA, _DATA_FILL, _SAMPLES = (170, 170, 170), (214, 214, 214), (31, 90, 180)
_FONT = 12
_MOST_NAME = 60
"""Maximum length of a name whose width is measured: files may contain names of any length."""


@dataclass(frozen=True, slots=True)
class _Column:
    """One axis: its name, samples, data (possibly empty), and range."""

    name: str
    values: npt.NDArray[np.float64]
    data: npt.NDArray[np.float64]
    low: float
    high: float

    def unit(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return positions along the axis; those of values in range are in [0, 1]."""
        place: npt.NDArray[np.float64] = (values - self.low) / (self.high - self.low)
        return place


def pairs(values: Tensor, info: DataInfo, reference: Tensor | None = None) -> Picture:
    """Draw a pair plot of values `(N, *E)`, in the units of the data, over reference values `(M, *E)` in gray."""
    over = values[:0] if reference is None else reference[:_MOST_POINTS]
    shown = values[:_MOST_POINTS]
    directions = Directions.of(over if len(over) else shown)
    columns, about = _columns(shown, over, info, directions)
    num = len(columns)
    cell = max(110, min(220, 900 // max(num, 3)))
    width = _LEFT + num * (cell + _GAP)
    picture = Image.new("RGB", (max(width, 420), _TOP + num * (cell + _GAP) + _BOTTOM), _WHITE)
    draw = ImageDraw.Draw(picture)
    draw.text((_LEFT, 6), f"samples blue{', data gray' if len(over) else ''}{about}", _TEXT, font_size=_FONT)
    for row in range(num):
        for column in range(row + 1):
            corner = (_LEFT + column * (cell + _GAP), _TOP + row * (cell + _GAP))
            if row == column:
                _histogram(draw, corner, cell, columns[row])
            else:
                _points(draw, corner, cell, columns[column], columns[row])
    for index, axis in enumerate(columns):
        _labels(draw, picture, cell, index, num, axis)
    if num > 1 and len(directions):
        energy = _column(
            f"Gaussian energy (nats, {len(directions)} directions)",
            directions.energy(shown).numpy(),
            directions.energy(over).numpy(),
            least=0.0,
        )
        corner = (_LEFT + (num - 1) * (cell + _GAP), _TOP)
        _histogram(draw, corner, cell, energy)
        _range_below(draw, corner, cell, energy)
    return np.asarray(picture)


def _columns(
    values: Tensor, over: Tensor, info: DataInfo, directions: Directions
) -> tuple[list[_Column], str]:
    """Return the axes, and their description in the title."""
    size = values[0].numel()
    if size <= MOST:
        names: Sequence[str] = info.columns or [f"x{index}" for index in range(size)]
        drawn, data = values.double().flatten(1), over.double().flatten(1)
        about = ""
    else:
        names = [f"PC {k + 1} ({share:.0%})" for k, share in enumerate(directions.shares[:_COMPONENTS])]
        drawn, data = directions.components(values), directions.components(over)
        about = f"; principal components of {size:,} standardized entries"
    pairs_of = zip(names, drawn.T.cpu().numpy(), data.T.cpu().numpy(), strict=False)
    return [_column(name, own, others) for name, own, others in pairs_of], about


def _column(
    name: str, values: npt.NDArray[np.float64], data: npt.NDArray[np.float64], least: float = -np.inf
) -> _Column:
    base = data if len(data) else values
    base = base[np.isfinite(base)]
    low, high = np.quantile(base, (_TAIL, 1 - _TAIL)) if len(base) else (0.0, 1.0)
    room = 0.08 * (high - low) or max(abs(low), 1.0) * 0.05
    return _Column(name, values, data, max(float(low - room), least), float(high + room))


def _histogram(draw: ImageDraw.ImageDraw, corner: tuple[int, int], cell: int, column: _Column) -> None:
    """Draw the densities of data (filled bars) and samples (line) at the same scale."""
    x, y = corner
    draw.rectangle((x, y, x + cell, y + cell), outline=_FRAME)
    heights = [_density(column, own) for own in (column.data, column.values)]
    most = max(float(own.max(initial=0.0)) for own in heights) or 1.0
    edges = x + np.arange(_BINS + 1) * cell / _BINS
    tops = [y + cell - own / most * 0.9 * cell for own in heights]
    for left, right, top in zip(edges[:-1], edges[1:], tops[0], strict=True):
        if top < y + cell - 1:
            draw.rectangle((left, top, right, y + cell - 1), fill=_DATA_FILL)
    steps = [(edge, top) for k, top in enumerate(tops[1]) for edge in (edges[k], edges[k + 1])]
    draw.line(steps, fill=_SAMPLES, width=2)


def _density(column: _Column, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    counts, _ = np.histogram(column.unit(values), _BINS, (0.0, 1.0))
    share: npt.NDArray[np.float64] = counts / max(len(values), 1)
    return share


def _points(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], cell: int, across: _Column, up: _Column
) -> None:
    x, y = corner
    draw.rectangle((x, y, x + cell, y + cell), outline=_FRAME)
    for own, other, color in ((across.data, up.data, _DATA), (across.values, up.values, _SAMPLES)):
        places = np.stack([across.unit(own), 1 - up.unit(other)], 1)
        inside = places[((places > 0) & (places < 1)).all(1)]
        for place_x, place_y in inside * cell:
            left, top = x + place_x, y + place_y
            draw.rectangle((left - 0.5, top - 0.5, left + 0.5, top + 0.5), fill=color)


def _labels(
    draw: ImageDraw.ImageDraw, picture: Image.Image, cell: int, index: int, num: int, column: _Column
) -> None:
    """Draw the name and range of an axis below its column, and its name to the left of its row."""
    name = _fitting(draw, column.name, cell)
    x, below = _LEFT + index * (cell + _GAP), _TOP + num * (cell + _GAP) - _GAP
    draw.text((x + cell / 2, below + 16), name, _TEXT, anchor="ma", font_size=_FONT)
    _range_below(draw, (x, below - cell), cell, column, named=False)
    if index:
        label = Image.new("RGB", (cell, 16), _WHITE)
        ImageDraw.Draw(label).text((cell / 2, 1), name, _TEXT, anchor="ma", font_size=_FONT)
        picture.paste(label.transpose(Image.Transpose.ROTATE_90), (4, _TOP + index * (cell + _GAP)))


def _range_below(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], cell: int, column: _Column, *, named: bool = True
) -> None:
    x, y = corner
    draw.text((x, y + cell + 2), f"{column.low:.4g}", _TEXT, anchor="la", font_size=10)
    draw.text((x + cell, y + cell + 2), f"{column.high:.4g}", _TEXT, anchor="ra", font_size=10)
    if named:
        text = column.name
        draw.text((x + cell, y + cell + 16), text, _TEXT, anchor="ra", font_size=_FONT)


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """Shorten a text to a width in pixels."""
    line = shortened(" ".join(text.split()), _MOST_NAME)
    if draw.textlength(line, font_size=_FONT) <= width:
        return line
    while line and draw.textlength(f"{line}…", font_size=_FONT) > width:
        line = line[:-1]
    return f"{line}…"
