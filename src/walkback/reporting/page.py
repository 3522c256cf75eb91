"""A self-contained HTML page about a run: figures, curves, pictures, reports, configuration, provenance.

The page loads nothing and runs no script; its content security policy forbids both. All text is escaped by
`walkback.support.html`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from walkback.report import Figure, Report, number
from walkback.reporting.curves import running_mean
from walkback.reporting.record import RunRecord, bound_text
from walkback.reporting.style import STYLE
from walkback.reporting.svg import Line, chart, dots
from walkback.support import html as markup
from walkback.support.numbers import is_number

_CURVES = (
    ("Loss", ("loss",), "loss (nats/step)"),
    ("Learning rate", ("learning_rate",), "learning rate"),
    ("Gradient norm", ("gradient_norm",), "norm before clipping"),
)
"""Title, figures of `metrics.jsonl` and label of each chart of training."""

_FEW_PIXELS, _WIDE, _FILM = 480, 800, 1.25
"""Widths in pixels up to which a picture is magnified, and above which it spans the page; aspect ratio of a film."""

_KNOWN = {"step", "seconds", "nonfinite", "best_step", "skipped", "rollbacks", "calls", "gradient_calls"}
"""Figures of `metrics.jsonl` without their own chart."""

_SIMPLE, _HEADER = "baseline_", ("model", "-log p", "unit")
_BESIDE = {"is_nll": "importance sampling"}
"""Figures shown next to the headline, with their titles."""

_NOISY, _FEWEST_SMOOTHED = ("loss", "gradient_norm"), 40
"""Figures that get a running mean, and the number of values from which they do."""

_MOST_COLUMNS = 20
"""Maximum number of charts for metrics of plugins."""

CAPTIONS = {
    "annealed": "Samples: drawn from the prior and cooled through the schedule to T = 1 (data in gray, if shown)",
    "chain": "Chains at T = 1, which start at samples; frames in order of time",
    "walk": "A heating walk from data, and a cooling walk from the prior",
    "field": "Where a step at T = 1 leads: E[s′ | s] - s over the data",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a run: its name and the content of its PNG file."""

    name: str
    png: bytes


@dataclass(frozen=True, slots=True)
class PageContent:
    """The content of a page.

    Attributes:
        run: The run.
        history: Records of `metrics.jsonl`.
        pictures: Pictures in the order of the page.
        reports: Reports of measurements of the run.
        facts: Provenance: versions, plugins, data.
        left_out: One sentence for each omitted part.
    """

    run: RunRecord
    history: Sequence[Mapping[str, Any]] = ()
    pictures: Sequence[Picture] = ()
    reports: Sequence[Report] = ()
    facts: Sequence[tuple[str, str]] = ()
    left_out: Sequence[str] = ()


def page(content: PageContent) -> str:
    """Format a page as an HTML document."""
    run = content.run
    title = (
        f"{run.options.get('operator.name', run.path.name)} on {run.options.get('data.name', 'unknown data')}"
    )
    body = [
        f"<header><h1>{markup.text(title)}</h1><p>{markup.text(run.path)}</p></header>",
        _cards(run),
        markup.notes([run.problem] if run.problem else []),
        section("Training", _training(content.history) + markup.notes(_units(content))),
        section("Samples and chains", _pictures(content.pictures)),
        *(section(report.name, _report(report)) for report in content.reports),
        section("Configuration", _configuration(run.options)),
        section("Provenance", wide_table(content.facts, ())),
        markup.notes(content.left_out),
    ]
    return document(title, body)


def document(title: str, body: Iterable[str]) -> str:
    """Format sections of HTML as a self-contained document in the style of reports.

    Args:
        title: Its title, which is escaped.
        body: HTML.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{markup.text(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def section(title: str, content: str) -> str:
    """Format a section with a heading; empty without content."""
    return (
        f"<section><h2>{markup.text(title.replace('_', ' ').capitalize())}</h2>{content}</section>"
        if content
        else ""
    )


def wide_table(rows: Iterable[Sequence[object]], header: Sequence[object]) -> str:
    """Return a table with its own scroll bar, for narrow pages."""
    rows = list(rows)
    return f'<div class="wide">{markup.table(rows, header)}</div>' if rows else ""


def _cards(run: RunRecord) -> str:
    """Return the main figures as large cards."""
    speed = "" if run.speed is None else f"{run.speed:.3g}/s"
    cards = [
        ("final bound on -log p", "" if run.final is None else bound_text(run.final), _place(run.final)),
        ("best validation bound", bound_text(run.best), f"after {run.best_walks or 0:,} walks"),
        ("walks", f"{run.walks:,}", "" if run.steps in (None, run.walks) else f"of {run.steps:,}"),
        ("training", "" if run.seconds is None else _duration(run.seconds), speed),
        ("state", run.state, "" if run.updated is None else f"{run.updated:%Y-%m-%d %H:%M} UTC"),
    ]
    shown = "".join(
        f"<div><dt>{markup.text(name)}</dt><dd>{markup.text(value)}<small>{markup.text(more)}</small></dd></div>"
        for name, value, more in cards
        if value
    )
    return f"<dl>{shown}</dl>"


def _place(bound: Any) -> str:
    if bound is None:
        return ""
    return f"{bound.examples:,} {bound.split} examples" if bound.examples else f"{bound.split} data"


def _duration(seconds: float) -> str:
    """Format a duration in suitable units.

    >>> _duration(8.34), _duration(90), _duration(7300)
    ('8.3 s', '1 min 30 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _units(content: PageContent) -> tuple[str, ...]:
    """Return a note if the loss refers to standardized states."""
    if not content.history or "standardized" not in dict(content.facts):
        return ()
    return (
        "The loss is that of standardized states. Bounds, samples and chains are in the units of the data.",
    )


def _training(history: Sequence[Mapping[str, Any]]) -> str:
    """Return charts of the metrics: loss and bound, with the others folded."""
    unit = "bits_per_dimension" if any("validation_bits_per_dimension" in r for r in history) else "nats"
    error = "validation_bits_error" if unit != "nats" else "validation_nats_error"
    shown = {"bits_per_dimension": "bits/dim", "nats": "nats per example"}[unit]
    bounds = [_line(history, f"validation_{unit}", "validation bound", error)]
    charts = [
        (
            title,
            chart([line for name in names for line in _smoothed(_line(history, name, name))], "walks", label),
        )
        for title, names, label in _CURVES
    ]
    charts.insert(1, ("Bound on -log p of validation data", chart(bounds, "walks", f"upper bound ({shown})")))
    taken = {name for _, names, _ in _CURVES for name in names} | _KNOWN
    more = dict.fromkeys(name for record in history for name in record if name not in taken)
    further = [name for name in more if not name.startswith("validation_")][:_MOST_COLUMNS]
    charts += [(name, chart([_line(history, name, name)], "walks", name)) for name in further]
    drawn = [(title, svg) for title, svg in charts if svg]
    first, others = drawn[:2], drawn[2:]
    folded = "".join(_titled(title, svg) for title, svg in others)
    return _grid(_titled(title, svg) for title, svg in first) + (
        markup.folded("More curves", _grid([folded])) if folded else ""
    )


def _line(history: Sequence[Mapping[str, Any]], name: str, shown: str, error: str = "") -> Line:
    points = [(r["step"], r[name], r.get(error)) for r in history if is_number(r.get(name))]
    errors = [float(e) for _, _, e in points if e is not None and is_number(e)]
    whole = bool(points) and len(errors) == len(points)
    return Line(shown, [x for x, _, _ in points], [y for _, y, _ in points], errors if whole else None)


def _smoothed(line: Line) -> list[Line]:
    """Add the running mean of a long line: walks differ in length, and so do their losses."""
    if len(line.x) < _FEWEST_SMOOTHED or line.name not in _NOISY:
        return [line]
    return [line, Line(f"{line.name}, running mean", line.x, running_mean(line.y, len(line.x) // 8))]


def _titled(title: str, svg: str) -> str:
    return f"<div><h3>{markup.text(title)}</h3>{svg}</div>" if svg else ""


def _grid(parts: Iterable[str]) -> str:
    content = "".join(parts)
    return f'<div class="grid2">{content}</div>' if content else ""


def _pictures(pictures: Sequence[Picture]) -> str:
    final = [picture for picture in pictures if not picture.name.startswith("step-")]
    midway = [picture for picture in pictures if picture.name.startswith("step-")]
    folded = _grid(_figure(picture) for picture in midway)
    return _grid(_figure(picture) for picture in final) + (
        markup.folded("Samples during training", folded) if folded else ""
    )


def _figure(picture: Picture) -> str:
    if picture.name.startswith("step-"):
        caption = f"After {picture.name.removeprefix('step-')} walks"
    else:
        caption = CAPTIONS.get(picture.name, picture.name)
    return captioned(picture.png, caption)


def captioned(png: bytes, caption: str) -> str:
    """Embed a PNG file with a caption, which is escaped."""
    width, height = struct.unpack(">II", png[16:24])  # of the header chunk, which comes first in every PNG
    # Small pictures are magnified without smoothing; films need the whole width.
    look = "pixels" if width <= _FEW_PIXELS else "across" if width > _FILM * height or width > _WIDE else ""
    return (
        f'<figure class="{look}">{markup.picture(png, caption)}'
        f"<figcaption>{markup.text(caption)}</figcaption></figure>"
    )


def _report(report: Report) -> str:
    panels: dict[tuple[str, str], list[Line]] = {}
    for series in report.series:
        line = Line(series.name.replace("_", " "), series.x, series.y, series.error, series.marks)
        panels.setdefault((series.x_label, series.y_label), []).append(line)
    charts = _grid(f"<div>{chart(lines, *labels)}</div>" for labels, lines in panels.items())
    figures = _figures(report.figures)
    simple = _baselines(report)
    return (
        simple
        + _quality(report)
        + (markup.folded("All figures", figures) if simple else figures)
        + markup.notes(f"Warning: {warning}" for warning in report.warnings)
        + charts
        + markup.folded("Protocol", wide_table(report.protocol.items(), ()))
    )


def _figures(figures: Iterable[Figure]) -> str:
    rows = [(_words(each.name), number(each), each.unit, each.meaning) for each in figures]
    return f'<div class="figures">{wide_table(rows, ("figure", "value", "unit", "meaning"))}</div>'


def _baselines(report: Report) -> str:
    """Return a comparison of the headline with simple models on the same examples, in bits/dim if available."""
    names = {figure.name: figure for figure in report.figures}
    ending = "_bits" if f"{report.headline}_bits" in names else ""
    own = [name for name in (report.headline, *_BESIDE) if f"{name}{ending}" in names]
    simple = [
        name.removesuffix(ending)
        for name in names
        if name.startswith(_SIMPLE) and (not ending or name.endswith(ending))
    ]
    if not simple:
        return ""
    shown = [names[f"{name}{ending}"] for name in (*own, *simple)]
    titles = [_BESIDE.get(name, _words(name.removeprefix(_SIMPLE))) for name in (*own, *simple)]
    rows = [
        (title, figure.value, figure.error)
        for title, figure in zip(titles, shown, strict=True)
        if figure.unit == shown[0].unit
    ]
    drawn = dots(rows, f"-log p of held-out data ({shown[0].unit}), lower is better")
    table = wide_table([(title, number(f), f.unit) for title, f in zip(titles, shown, strict=True)], _HEADER)
    return _grid([_titled("Bound beside simple models", drawn), f"<div>{table}</div>"])


def _quality(report: Report) -> str:
    """Return distances of samples to data, next to those of training data in place of samples."""
    names = {figure.name: figure for figure in report.figures}
    both = [(names[name], names[f"{name}_reference"]) for name in names if f"{name}_reference" in names]
    rows = [(_words(own.name), number(own), number(other), own.meaning) for own, other in both]
    header = ("samples beside data", "model", "training data", "meaning")
    return f'<div class="figures">{wide_table(rows, header)}</div>' if rows else ""


def _words(name: str) -> str:
    return name.replace("_", " ")


def _configuration(options: Mapping[str, Any]) -> str:
    """Return the options by section, folded, with the component in the title."""
    sections: dict[str, list[tuple[str, Any]]] = {}
    for path, value in options.items():
        section, _, option = path.partition(".")
        sections.setdefault(section, []).append((option, value))
    parts = []
    for section, rows in sections.items():
        name = next((value for option, value in rows if option in ("name", "")), "")
        parts.append(markup.folded(f"{section} {name}".strip(), wide_table(rows, ())))
    return "".join(parts)
