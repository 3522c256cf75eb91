"""Line charts as inline SVG, for pages that load nothing; the page's style sets colors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from walkback.support.html import text

_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 14, 12, 44
_ROW, _NAMES = 24, 170

_MOST_POINTS = 400
"""Maximum number of points of a line; more are averaged in groups of neighbors."""

_MOST_VALUES = 0.95
"""Share of the values that the axis must show if a few others are far above them."""

COLORS = 6
"""Number of colors of lines, `.line0`, `.line1`, … of the page's style."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart.

    Attributes:
        name: Name in the legend.
        x: Finite positions.
        y: Finite values, in the same number.
        error: One standard error of each value, drawn as a band; None if there is none.
        marks: Whether values are drawn as markers without a line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] | None = None
    marks: bool = False


def chart(lines: Sequence[Line], x_label: str, y_label: str) -> str:
    """Draw lines over common axes, with a legend if there are several; empty if there is nothing to draw."""
    lines = [_thinned(line) for line in lines if line.x]
    if not lines:
        return ""
    xs = [x for line in lines for x in line.x]
    low, high, cut = _range([y for line in lines for y in _shown(line)])
    frame = _Frame(*_widened(min(xs), max(xs)), *_widened(low, high))
    parts = [_axes(frame, x_label, y_label)]
    for number, line in enumerate(lines):
        parts.append(_drawn(frame, line, number % COLORS))
    drawing = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text(y_label)} over {text(x_label)}">'
        f'<svg x="{_LEFT}" y="{_TOP}" width="{_WIDTH - _LEFT - _RIGHT}" height="{_HEIGHT - _TOP - _BOTTOM}" '
        f'viewBox="{_LEFT} {_TOP} {_WIDTH - _LEFT - _RIGHT} {_HEIGHT - _TOP - _BOTTOM}" overflow="hidden">'
        f"{''.join(parts[1:])}</svg>{parts[0]}</svg>"
    )
    keys = "".join(
        f'<span class="key line{i % COLORS}">{text(line.name)}</span>' for i, line in enumerate(lines)
    )
    remark = "<p>Larger values are cut off.</p>" if cut else ""
    return f"<figure>{drawing}{f'<p>{keys}</p>' if len(lines) > 1 else ''}{remark}</figure>"


@dataclass(frozen=True, slots=True)
class _Frame:
    """The ranges of both axes."""

    left: float
    right: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return _LEFT + (value - self.left) / (self.right - self.left) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - self.low) / (self.high - self.low) * (_HEIGHT - _TOP - _BOTTOM)


def _drawn(frame: _Frame, line: Line, color: int) -> str:
    points = [(frame.x(x), frame.y(y)) for x, y in zip(line.x, line.y, strict=True)]
    if line.marks or len(points) == 1:
        radius = 2.5 if line.marks else 4
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>' for x, y in points)
        return f'<g class="dots line{color}">{dots}</g>'
    band = ""
    if line.error is not None:
        pairs = list(zip(line.x, line.y, line.error, strict=True))
        upper = [(frame.x(x), frame.y(y + e)) for x, y, e in pairs]
        lower = [(frame.x(x), frame.y(y - e)) for x, y, e in reversed(pairs)]
        band = f'<polygon class="band line{color}" points="{_listed(upper + lower)}"/>'
    return f'{band}<polyline class="line line{color}" points="{_listed(points)}"/>'


def _listed(points: Sequence[tuple[float, float]]) -> str:
    # Clamp coordinates far outside of the frame: some browsers draw very large numbers incorrectly.
    return " ".join(f"{x:.1f},{min(max(y, -9999.0), 9999.0):.1f}" for x, y in points)


def _axes(frame: _Frame, x_label: str, y_label: str) -> str:
    parts = []
    for tick in ticks(frame.low, frame.high):
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    parts += [
        f'<text x="{frame.x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{tick:.6g}</text>'
        for tick in ticks(frame.left, frame.right)
    ]
    middle_x, middle_y = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text x="{middle_x}" y="{_HEIGHT - 8}" text-anchor="middle">{text(x_label)}</text>')
    parts.append(
        f'<text transform="translate(14 {middle_y}) rotate(-90)" text-anchor="middle">{text(y_label)}</text>'
    )
    return "".join(parts)


def dots(rows: Sequence[tuple[str, float, float | None]], label: str) -> str:
    """Draw values with bars of one standard error on a common axis, one row each, the first one highlighted.

    Args:
        rows: Name, value and error (None if there is none).
        label: Label of the axis.
    """
    if not rows:
        return ""
    height = _TOP + _ROW * len(rows) + _BOTTOM
    spans = [(value - (error or 0.0), value + (error or 0.0)) for _, value, error in rows]
    low, high = _widened(min(a for a, _ in spans), max(b for _, b in spans))
    room = 0.04 * (high - low)
    low, high = low - room, high + room

    def place(value: float) -> float:
        return _NAMES + (value - low) / (high - low) * (_WIDTH - _NAMES - _RIGHT)

    parts = []
    for tick in ticks(low, high, 5):
        x = place(tick)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>'
            f'<text x="{x:.1f}" y="{height - _BOTTOM + 16}" text-anchor="middle">{tick:.6g}</text>'
        )
    for number, ((name, value, _), (start, end)) in enumerate(zip(rows, spans, strict=True)):
        y, color = _TOP + _ROW * (number + 0.5), int(number > 0)
        parts.append(f'<text x="{_NAMES - 8}" y="{y + 4:.1f}" text-anchor="end">{text(name)}</text>')
        parts.append(
            f'<line class="line line{color}" x1="{place(start):.1f}" x2="{place(end):.1f}" y1="{y}" y2="{y}"/>'
        )
        parts.append(f'<circle class="dots line{color}" cx="{place(value):.1f}" cy="{y:.1f}" r="4"/>')
    middle = (_NAMES + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{height - 8}" text-anchor="middle">{text(label)}</text>')
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{text(label)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers in [low, high], at most `most` + 1 of them.

    >>> ticks(0, 100), ticks(0.13, 0.31)
    ([0.0, 20.0, 40.0, 60.0, 80.0, 100.0], [0.15, 0.2, 0.25, 0.3])
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    # Multiples of integers, so that rounding errors do not accumulate.
    return [float(f"{number * step:.12g}") for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _shown(line: Line) -> list[float]:
    """Return the values of a line, including the limits of its band."""
    errors = line.error or (0.0,) * len(line.y)
    return [y + side * e for y, e in zip(line.y, errors, strict=True) for side in (-1, 1)]


def _range(values: Sequence[float]) -> tuple[float, float, bool]:
    """Return the range of the axis, and whether values are cut off: first losses may be a thousand times larger."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    most = ordered[min(len(ordered) - 1, math.ceil(_MOST_VALUES * len(ordered)))]
    if most > low and high - low > 4 * (most - low):
        return low, low + 1.2 * (most - low), True
    return low, high, False


def _widened(low: float, high: float) -> tuple[float, float]:
    """Widen a range if it is too small for ticks that differ."""
    least = 1e-9 * max(abs(low), abs(high), 1e-9)
    return (
        (low, high)
        if high - low > least
        else (low - max(abs(low), 1.0) * 0.05, high + max(abs(high), 1.0) * 0.05)
    )


def _thinned(line: Line) -> Line:
    if len(line.x) <= _MOST_POINTS or line.marks:
        return line
    size = -(-len(line.x) // _MOST_POINTS)
    groups = [slice(first, first + size) for first in range(0, len(line.x), size)]

    def means(values: Sequence[float]) -> list[float]:
        return [sum(values[group]) / len(values[group]) for group in groups]

    return Line(line.name, means(line.x), means(line.y), None if line.error is None else means(line.error))
