"""The table of a comparison: a column a method, a row a figure, with errors over seeds.

    n ≥ 2 seeds    mean and standard error over seeds, std / √n
    one seed       the figure and its own error, within the run

A figure that a method does not have is a dash with its reason as a footnote.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, final

from walkback.comparing.published import Published
from walkback.errors import escaped
from walkback.report import Figure
from walkback.support import html as markup
from walkback.support.numbers import with_error
from walkback.support.text import printable

COUNTS = ("calls", "parameters")
"""Units of whole numbers."""

_REFERENCE = "_reference"
"""Ending of the name of a figure of training data in place of samples."""

_WORDS = {
    "seconds": "time of training",
    "calls": "network calls",
    "gradient_calls": "… with gradient",
    "calls_per_sample": "network calls a sample",
    "bound": "bound on -log p",
    "is_nll": "importance sampling",
    "simulated_below": "own samples, lower end",
    "simulated_above": "own samples, upper end",
    "classifier_confident": "classifier ≥ 90 % certain",
    "class_entropy": "entropy of classes",
}
"""Names of figures for people, without the ending of bits/dim."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group of rows: what is measured in one go.

    Attributes:
        name: Name in keys.
        title: Title for people.
        shown: Names of the figures in the table for people; the others are in JSON, CSV and on the page.
    """

    name: str
    title: str
    shown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one model.

    Attributes:
        seed: Seed of its run; None for a checkpoint.
        figures: Figures by group.
        reasons: Why a group has no figures, by its name.
    """

    seed: int | None
    figures: Mapping[str, Sequence[Figure]] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Column:
    """A method with the models that were measured."""

    name: str
    label: str
    models: tuple[Measured, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure of a method.

    Attributes:
        value: Mean over the seeds where it is defined; None if it is defined nowhere.
        error: One standard error.
        error_of: Whether the error is over seeds or within the run.
        seeds: Number of seeds where it is defined.
        reason: Why it is missing for the other seeds; empty if it is not.
    """

    value: float | None = None
    error: float | None = None
    error_of: Literal["seeds", "run"] | None = None
    seeds: int = 0
    reason: str = ""

    @classmethod
    def over(cls, figures: Sequence[Figure], reason: str) -> Cell:
        """Summarize one figure per seed."""
        values = [figure.value for figure in figures]
        if len(values) > 1:
            over_seeds = statistics.stdev(values) / math.sqrt(len(values))
            return cls(statistics.fmean(values), over_seeds, "seeds", len(values), reason)
        if not values:
            return cls(reason=reason or "not measured")
        error = figures[0].error
        return cls(values[0], error, None if error is None else "run", 1, reason)

    def text(self, unit: str) -> str:
        """Format value and error.

        >>> Cell(2.6734, 0.0123, "seeds", 3).text("bits/dim"), Cell(1234567.0).text("calls"), Cell().text("1")
        ('2.673 ± 0.012', '1,234,567', '–')
        """
        if self.value is None:
            return "–"
        return f"{self.value:,.0f}" if unit in COUNTS else with_error(self.value, self.error)


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of all methods.

    Attributes:
        key: `GROUP.FIGURE`.
        label: The figure for people, without its group.
        unit: Unit of the values.
        meaning: What the figure is.
        cells: One cell per method.
        reference: The same figure of training data in place of samples, if there is one.
        shown: Whether the table for people has the row.
    """

    key: str
    label: str
    unit: str
    meaning: str
    cells: tuple[Cell, ...]
    reference: Cell | None
    shown: bool

    @property
    def name(self) -> str:
        """Label and unit."""
        return self.label if self.unit in ("1", *COUNTS) else f"{self.label} ({self.unit})"


@final
@dataclass(frozen=True, slots=True)
class ComparisonTable:
    """The result of a comparison.

    Attributes:
        title: Its title.
        data: Name of the data.
        columns: The methods.
        groups: The groups of rows.
        protocol: How the figures were made, in plain JSON types.
        warnings: Caveats, one sentence each.
        published: Published figures to show beside it, never mixed with it.
    """

    title: str
    data: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()

    def rows(self, group: Group) -> tuple[Row, ...]:
        """Return the rows of a group; one row without figures if no method has any."""
        named: dict[str, Figure] = {}
        for model in self._models():
            named = {**{f.name: f for f in model.figures.get(group.name, ())}, **named}
        own = [name for name in named if not name.endswith(_REFERENCE)]
        if not own:
            empty = tuple(Cell(reason=_reason(column, group) or "not measured") for column in self.columns)
            return (Row(group.name, group.title, "1", "", empty, None, shown=True),)
        bits = {name.removesuffix("_bits") for name in own if name.endswith("_bits")}
        shown = {name for name in own if name.removesuffix("_bits") in group.shown and name not in bits}
        return tuple(self._row(group, named, name, shown=name in shown) for name in own)

    def _row(self, group: Group, named: Mapping[str, Figure], name: str, *, shown: bool) -> Row:
        figure, other = named[name], f"{name}{_REFERENCE}"
        cells = tuple(
            Cell.over(found := _of(column, group, name), _lacking(column, group, len(found)))
            for column in self.columns
        )
        # The reference does not depend on the model, so one of them stands for all.
        reference = Cell.over([named[other]], "") if other in named else None
        plain = name.removesuffix("_bits")
        label = _WORDS.get(plain, plain.replace("_", " "))
        return Row(f"{group.name}.{name}", label, figure.unit, figure.meaning, cells, reference, shown)

    def _models(self) -> Iterator[Measured]:
        for column in self.columns:
            yield from column.models

    def all_rows(self) -> tuple[Row, ...]:
        """Return the rows of all groups."""
        return tuple(row for group in self.groups for row in self.rows(group))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types; see docs/schemas/comparison.schema.json."""
        return {
            "title": self.title,
            "data": self.data,
            "methods": [
                {"name": column.name, "label": column.label, "seeds": [model.seed for model in column.models]}
                for column in self.columns
            ],
            "rows": [
                {
                    "key": row.key,
                    "label": row.label,
                    "unit": row.unit,
                    "meaning": row.meaning,
                    "shown": row.shown,
                    "cells": {c.name: asdict(cell) for c, cell in zip(self.columns, row.cells, strict=True)},
                    "training_data": None if row.reference is None else asdict(row.reference),
                }
                for row in self.all_rows()
            ],
            "warnings": list(self.warnings),
            "published": [asdict(each) for each in self.published],
            "protocol": dict(self.protocol),
        }

    def records(self) -> list[dict[str, Any]]:
        """Return one flat record per method and figure: the rows of `to_csv`, or of a data frame."""
        return [
            {
                "method": column.name,
                "label": column.label,
                "figure": row.key,
                "unit": row.unit,
                **asdict(cell),
            }
            for row in self.all_rows()
            for column, cell in zip(self.columns, row.cells, strict=True)
        ]

    def to_csv(self) -> str:
        """Format `records` as CSV with a header."""
        text = io.StringIO()
        names = ["method", "label", "figure", "unit", *Cell.__dataclass_fields__]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        for record in self.records():
            writer.writerow({key: _csv(value) for key, value in record.items()})
        return text.getvalue()

    def __str__(self) -> str:
        return printable("\n".join("  ".join(line) for line in self._lines()))

    def _repr_html_(self) -> str:
        lines = list(self._lines())
        return markup.heading(self.title) + markup.table(lines[1:], lines[0])

    def _lines(self) -> Iterator[list[str]]:
        yield ["", *(column.name for column in self.columns)]
        for group in self.groups:
            yield [group.title, *("" for _ in self.columns)]
            for row in self.rows(group):
                if row.shown:
                    yield [row.name, *(cell.text(row.unit) for cell in row.cells)]


def _of(column: Column, group: Group, name: str) -> list[Figure]:
    """Return a figure of each model of a method that has it."""
    found = (
        next((f for f in model.figures.get(group.name, ()) if f.name == name), None)
        for model in column.models
    )
    return [figure for figure in found if figure is not None]


def _reason(column: Column, group: Group) -> str:
    told = dict.fromkeys(model.reasons[group.name] for model in column.models if group.name in model.reasons)
    return " ".join(told)


def _lacking(column: Column, group: Group, found: int) -> str:
    """Return why a figure is missing for some models; empty if all have it."""
    missing = len(column.models) - found
    if not missing:
        return ""
    return _reason(column, group) or "This model has no such figure."


def _csv(value: Any) -> Any:
    """Format a CSV cell; text must not control a terminal, nor be a formula in a spreadsheet."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = escaped(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
