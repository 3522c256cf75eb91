"""Curves of series with matplotlib: one panel per pair of axes, with bands of one standard error.

Uses matplotlib without pyplot, so there is no global figure and no display is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from walkback.errors import ConfigurationError
from walkback.support.extras import require

_WIDTH, _HEIGHT, _DPI = 5.2, 3.6, 110
_WIDE = 30.0
"""Smallest ratio of the largest to the smallest (positive) value for which an axis is logarithmic."""


class Curve(Protocol):
    """The attributes of a series that are drawn, see `walkback.report.Series`."""

    @property
    def name(self) -> str:
        """Name in the legend."""

    @property
    def x(self) -> Sequence[float]:
        """Positions."""

    @property
    def y(self) -> Sequence[float]:
        """Values."""

    @property
    def x_label(self) -> str:
        """Label of the positions."""

    @property
    def y_label(self) -> str:
        """Label of the values."""

    @property
    def error(self) -> Sequence[float] | None:
        """One standard error of each value."""

    @property
    def marks(self) -> bool:
        """Whether values are drawn as markers without a line."""


def drawn(name: str, series: Sequence[Curve]) -> Any:
    """Draw series as a `matplotlib.figure.Figure`; series with equal labels share a panel.

    Raises:
        ConfigurationError: There is nothing to draw, or matplotlib is not installed.
    """
    panels: dict[tuple[str, str], list[Curve]] = {}
    for curve in series:
        panels.setdefault((curve.x_label, curve.y_label), []).append(curve)
    if not panels:
        raise ConfigurationError(f"The report of {name} has no series to plot: leave the plot out.")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = require("matplotlib.figure", "viz").Figure(
        figsize=(_WIDTH * columns, _HEIGHT * rows), dpi=_DPI, layout="constrained"
    )
    for number, (labels, group) in enumerate(panels.items(), start=1):
        _panel(figure.add_subplot(rows, columns, number), labels, group)
    return figure


def _panel(axes: Any, labels: tuple[str, str], group: Sequence[Curve]) -> None:
    for series in group:
        if series.marks:
            axes.plot(series.x, series.y, ".", markersize=3, label=_words(series.name))
            continue
        (line,) = axes.plot(series.x, series.y, "-", linewidth=1.4, label=_words(series.name))
        if series.error is not None:
            low = [y - e for y, e in zip(series.y, series.error, strict=True)]
            high = [y + e for y, e in zip(series.y, series.error, strict=True)]
            axes.fill_between(series.x, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
    if _spans([x for series in group for x in series.x]) and "level" not in labels[0]:
        axes.set_xscale("log")
    if labels[1].startswith("temperature"):
        axes.set_yscale("log")
    if labels[1].endswith(("(s)", "(MiB)")):
        axes.set_ylim(bottom=0)  # what a cost that hardly grows looks like
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(alpha=0.25)
    axes.legend(fontsize="small", frameon=False)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _spans(values: Sequence[float]) -> bool:
    """Return whether a few positive values span so wide a range that only a logarithmic axis separates them all."""
    distinct = sorted(set(values))
    return bool(distinct) and distinct[0] > 0 and len(distinct) <= 40 and distinct[-1] / distinct[0] >= _WIDE
