"""`walkback compare`: methods on one data set, the same network and compute, one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from walkback.cli.common import Device, Json, carry_out, registry_of
from walkback.cli.console import Output, plain, table
from walkback.errors import in_one_line

if TYPE_CHECKING:
    from walkback.comparing.published import Published
    from walkback.comparing.table import ComparisonTable, Group

_GAP = 2
"""Spaces between two columns."""


def compare(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="The methods, and what to measure.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory of runs and results (default: runs/FILE-comparison)."),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Show published figures in a table of their own.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show methods, network calls and runs, and do nothing.")
    ] = False,
    device: Device = "auto",
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")] = False,
) -> None:
    """Train methods on one data set with the same network and the same number of network calls, and measure all alike.

    The table has bounds, importance sampling, distances of samples and of long chains, with errors over seeds. It is
    written to the output directory (comparison.json, .csv, .html). The same command resumes.

    walkback compare examples/compare/swiss-roll.toml --dry-run

    walkback compare examples/compare/swiss-roll.toml --out comparison
    """
    from walkback.jobs.compare import CompareJob
    from walkback.jobs.job import flags

    output = Output()
    job = CompareJob(file, out, published, device, flags)
    if dry_run:
        with output.progress() as watch:
            plan = job.check(registry_of(ctx), watch).plan()
        _show_plan(output, plan, json=json)
        return
    found = carry_out(ctx, output, job)
    if json:
        output.emit_json(found.to_dict())
    elif csv:
        output.write(found.to_csv())
    else:
        show_comparison(output, found)


def _show_plan(output: Output, plan: Sequence[dict[str, Any]], *, json: bool) -> None:
    if json:
        output.emit_json({"methods": list(plan)})
        return
    for entry in plan:
        output.show(plain(in_one_line(f"{entry['method']}: {entry['label']}"), "cyan"))
        facts = [f"{entry['parameters']:,} parameters"]
        if entry["steps"] is not None:
            facts.append(f"{entry['steps']:,} walks")
        if entry["calls"] is not None:
            facts.append(
                f"{entry['calls']:,} network calls a run, {entry['gradient_calls'] or 0:,} with gradient"
            )
        output.show(Padding(plain(", ".join(facts)), (0, 0, 0, 2)))
        for place, state in entry["runs"].items():
            output.show(Padding(plain(in_one_line(f"{state}  {place}")), (0, 0, 0, 2)))


def show_comparison(output: Output, found: ComparisonTable) -> None:
    """Print the table in blocks of as many methods as fit the terminal, footnotes, and published figures."""
    from walkback.comparing.notes import Footnotes

    notes = Footnotes()
    output.show(plain(in_one_line(f"{found.title}: {found.data}"), "bold"))
    for column in found.columns:
        if column.label != column.name:
            output.show(Text.assemble((f"  {column.name}  ", "cyan"), plain(in_one_line(column.label))))
    lines = _lines(found, notes)
    for block in _blocks(lines, output.results.width):
        output.show("", *block)
    output.show("", *(plain(in_one_line(line)) for line in notes.lines(found.columns)))
    if found.published:
        _show_published(output, found.published)


def _lines(found: ComparisonTable, notes: Any) -> list[list[str]]:
    """Return header and rows; a row with only a label is the title of a group. The last column is training data."""
    lines = [["", *(column.name for column in found.columns), "(data)"]]
    for group in found.groups:
        rows = [row for row in found.rows(group) if row.shown]
        if _is_missing(rows, group):
            lines.append([group.title, *(notes.marked(cell, "1") for cell in rows[0].cells), ""])
            continue
        lines.append([group.title, *("" for _ in lines[0][1:])])
        for row in rows:
            reference = "" if row.reference is None else row.reference.text(row.unit)
            lines.append([f"  {row.name}", *(notes.marked(cell, row.unit) for cell in row.cells), reference])
    return lines


def _is_missing(rows: Sequence[Any], group: Group) -> bool:
    """Return whether no method has a figure of a group."""
    return len(rows) == 1 and rows[0].key == group.name


def _blocks(lines: Sequence[Sequence[str]], width: int) -> list[list[Text]]:
    """Split a table into blocks of columns that fit, each with the labels."""
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    chosen: list[list[int]] = [[]]
    for index in range(1, len(widths)):
        taken = widths[0] + sum(_GAP + widths[other] for other in [*chosen[-1], index])
        if chosen[-1] and taken > width:
            chosen.append([])
        chosen[-1].append(index)
    return [_block(lines, columns, widths) for columns in chosen]


def _block(lines: Sequence[Sequence[str]], columns: Sequence[int], widths: Sequence[int]) -> list[Text]:
    """Return the lines of some columns, without rows that are empty in all of them."""
    block: list[Text] = []
    title: list[Text] = []
    for number, line in enumerate(lines):
        cells = [line[0].ljust(widths[0]), *(line[index].ljust(widths[index]) for index in columns)]
        text = (" " * _GAP).join(cells).rstrip()
        if not any(line[1:]):
            title = [plain(text, "dim")]
        elif any(line[index] for index in columns):
            block += [*title, plain(text, "" if number else "cyan")]
            title = []
    return block


def _show_published(output: Output, figures: Sequence[Published]) -> None:
    output.show("", plain("Published figures, with other networks, data and protocols", "bold"))
    for data, figure, unit in dict.fromkeys((each.data, each.figure, each.unit) for each in figures):
        rows = [
            (each.text, each.method, each.source)
            for each in figures
            if (each.data, each.figure) == (data, figure)
        ]
        name = f"{data}, {figure}" if unit == "1" else f"{data}, {figure} ({unit})"
        output.show("", table((name, "method", "source"), rows))
