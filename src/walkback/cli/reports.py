"""Display of reports: a table with value, error and unit, warnings and protocol; or one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.text import Text

from walkback.cli.console import Output, plain, table
from walkback.errors import in_one_line

if TYPE_CHECKING:
    from walkback.report import Figure, Report

_SHOWN = (
    *("checkpoint", "recipe", "operator", "parameters", "weights", "progress", "data", "split", "examples"),
    *("preprocessing", "paths", "levels", "mean_levels", "diagnostic", "repeats", "compiled", "threads"),
    *("seed", "precision", "device", "device_name", "torch", "walkback"),
)
"""Entries of the protocol that are displayed; `--json` contains all of them."""


def tell_report(output: Output, report: Report, *, json: bool, plot: Path | None = None, **more: Any) -> None:
    """Print a report (as one JSON document with `more`, or for people with warnings on stderr), and draw its plot.

    Raises:
        ConfigurationError: There is nothing to plot, or matplotlib is not installed.
        WalkbackError: The plot cannot be written.
    """
    if json:
        output.emit_json({**report.to_dict(), **more})
    else:
        _show(output, report)
    if plot is not None:
        from walkback.pictures.plots import save_plot

        save_plot(plot, report)


def _show(output: Output, report: Report) -> None:
    _show_figures(output, report.figures)
    protocol = [
        (key.replace("_", " "), _text(report.protocol[key])) for key in _SHOWN if key in report.protocol
    ]
    output.show("", table(("protocol", ""), protocol))
    for warning in report.warnings:
        output.warn(warning)


def _show_figures(output: Output, figures: Sequence[Figure]) -> None:
    """Print one line per figure, followed by its meaning."""
    from walkback.report import number

    cells = [
        (in_one_line(figure.name.replace("_", " "), 100), number(figure), figure.unit) for figure in figures
    ]
    wide = [max(len(row[column]) for row in cells) for column in range(2)]
    for (name, value, unit), figure in zip(cells, figures, strict=True):
        output.show(
            Text.assemble((name.ljust(wide[0]), "cyan"), "  ", value.ljust(wide[1]), "  ", plain(unit))
        )
        if figure.meaning:
            output.show(Padding(plain(figure.meaning, "dim"), (0, 0, 0, 4)))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(_text(item) for item in value)
    return str(value)
