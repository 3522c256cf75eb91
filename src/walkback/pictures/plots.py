"""Plots of a report's series: one panel per pair of axes, with bands of one standard error.

Uses matplotlib without pyplot, so there is no global figure and no display is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from walkback.errors import ConfigurationError
from walkback.pictures.images import save_png
from walkback.report import Report, Series
from walkback.storage.files import require_target
from walkback.support.extras import require
from walkback.support.formats import PNG

_WIDTH, _HEIGHT, _DPI = 5.2, 3.6, 110
_WIDE = 30.0
"""Ratio of the largest to the smallest of positive values from which an axis is logarithmic."""


def check_plot_target(path: Path, overwrite: bool) -> None:
    """Refuse a target before work starts.

    Raises:
        ConfigurationError: It cannot be written, see `require_target`, or matplotlib is not installed.
    """
    require_target(path, (PNG,), overwrite=overwrite)
    require("matplotlib", "viz")


def save_plot(path: Path, report: Report) -> None:
    """Write the picture of a report's series, with its protocol in the metadata.

    Raises:
        ConfigurationError: There is nothing to draw, or matplotlib is not installed.
        WalkbackError: The file cannot be written.
    """
    panels: dict[tuple[str, str], list[Series]] = {}
    for series in report.series:
        panels.setdefault((series.x_label, series.y_label), []).append(series)
    if not panels:
        raise ConfigurationError(f"The report of {report.name} has no series to plot: leave the plot out.")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = require("matplotlib.figure", "viz").Figure(
        figsize=(_WIDTH * columns, _HEIGHT * rows), dpi=_DPI, layout="constrained"
    )
    for number, (labels, group) in enumerate(panels.items(), start=1):
        _panel(figure.add_subplot(rows, columns, number), labels, group)
    canvas = require("matplotlib.backends.backend_agg", "viz").FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba(), dtype=np.uint8)[..., :3].copy()
    save_png(path, picture, {"report": report.name, **report.protocol})


def _panel(axes: Any, labels: tuple[str, str], group: Sequence[Series]) -> None:
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
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(alpha=0.25)
    axes.legend(fontsize="small", frameon=False)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _spans(values: Sequence[float]) -> bool:
    """Whether positive values spread over so wide a range, few of them, that only a logarithm shows them all."""
    distinct = sorted(set(values))
    return bool(distinct) and distinct[0] > 0 and len(distinct) <= 40 and distinct[-1] / distinct[0] >= _WIDE
