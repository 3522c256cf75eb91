"""Plots of a report's series: one panel per pair of axes, with bands of one standard error.

Uses matplotlib without pyplot, so there is no global figure and no display is needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from walkback.pictures.images import save_png
from walkback.report import Report
from walkback.storage.files import require_target
from walkback.support.curves import drawn
from walkback.support.extras import require
from walkback.support.formats import PNG


def check_plot_target(path: Path, overwrite: bool) -> None:
    """Check, before work starts, that a plot can be written.

    Raises:
        ConfigurationError: The file cannot be written (see `require_target`), or matplotlib is not installed.
    """
    require_target(path, (PNG,), overwrite=overwrite)
    require("matplotlib", "viz")


def save_plot(path: Path, report: Report) -> None:
    """Plot the series of a report to a file, with its protocol in the metadata.

    Raises:
        ConfigurationError: There is nothing to draw, or matplotlib is not installed.
        WalkbackError: The file cannot be written.
    """
    figure = drawn(report.name, report.series)
    canvas = require("matplotlib.backends.backend_agg", "viz").FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba(), dtype=np.uint8)[..., :3].copy()
    save_png(path, picture, {"report": report.name, **report.protocol})
