"""The HTML page of a comparison: table, samples of the methods side by side, published figures, plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from walkback.comparing.notes import Footnotes
from walkback.comparing.published import Published
from walkback.comparing.table import ComparisonTable, Group
from walkback.reporting.page import captioned, document, section, wide_table
from walkback.reporting.record import flattened
from walkback.reporting.svg import dots
from walkback.support import html as markup


@dataclass(frozen=True, slots=True)
class PicturedSamples:
    """Samples of a method after some steps at T = 1: label of the method, and the content of a PNG file."""

    label: str
    steps: int
    png: bytes


def comparison_page(table: ComparisonTable, pictures: Sequence[PicturedSamples]) -> str:
    """Format a comparison as a self-contained HTML document."""
    body = [
        f"<header><h1>{markup.text(table.title)}</h1><p>{markup.text(table.data)}</p></header>",
        markup.notes(table.warnings),
        section("Bound", _bounds(table)),
        section("Table", _table(table)),
        section("Samples", _samples(pictures)),
        section("All figures", _all(table)),
        section("Published figures", published_table(table.published)),
        section("Protocol", wide_table(flattened(table.protocol), ())),
    ]
    return document(table.title, body)


def _table(table: ComparisonTable) -> str:
    notes = Footnotes()
    header = ("", *(column.label for column in table.columns), "training data")
    rows: list[Sequence[object]] = []
    for group in table.groups:
        shown = [row for row in table.rows(group) if row.shown]
        if not shown:
            continue
        rows.append((group.title, *("" for _ in header[1:])))
        for row in shown:
            reference = "" if row.reference is None else row.reference.text(row.unit)
            rows.append((row.name, *(notes.marked(cell, row.unit) for cell in row.cells), reference))
    return wide_table(rows, header) + markup.notes(notes.lines(table.columns))


def _bounds(table: ComparisonTable) -> str:
    """Draw the bound of each method that has one."""
    rows = [row for group in table.groups for row in table.rows(group) if row.shown]
    bound = next((row for row in rows if row.key.removesuffix("_bits") == "likelihood.bound"), None)
    if bound is None:
        return ""
    points = [
        (column.name, cell.value, cell.error)
        for column, cell in zip(table.columns, bound.cells, strict=True)
        if cell.value is not None
    ]
    return dots(points, f"upper bound on -log p of held-out data ({bound.unit}), lower is better")


def _samples(pictures: Sequence[PicturedSamples]) -> str:
    parts: list[str] = []
    for steps in dict.fromkeys(each.steps for each in pictures):
        title = f"After {steps:,} steps at T = 1" if steps else "Annealed"
        some = "".join(captioned(each.png, each.label) for each in pictures if each.steps == steps)
        parts.append(f'<h3>{markup.text(title)}</h3><div class="grid3">{some}</div>')
    return "".join(parts)


def _all(table: ComparisonTable) -> str:
    return "".join(markup.folded(group.title, _group(table, group)) for group in table.groups)


def _group(table: ComparisonTable, group: Group) -> str:
    header = ("figure", *(column.name for column in table.columns), "training data", "meaning")
    rows = [
        (
            row.name,
            *(cell.text(row.unit) for cell in row.cells),
            "" if row.reference is None else row.reference.text(row.unit),
            row.meaning,
        )
        for row in table.rows(group)
    ]
    return wide_table(rows, header)


def published_table(figures: Iterable[Published]) -> str:
    """Format published figures with their protocols and sources."""
    rows = [
        (each.method, each.data, each.figure, each.text, each.unit, each.protocol, each.source)
        for each in figures
    ]
    return wide_table(rows, ("method", "data", "figure", "value", "unit", "protocol", "source"))
