"""`walkback runs`: list and compare run directories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.measure import Measurement
from rich.text import Text

from walkback.cli.common import Json
from walkback.cli.console import Output, plain, table
from walkback.errors import in_one_line

if TYPE_CHECKING:
    from walkback.reporting.table import RunTable

_BENT = 20
"""Columns of a terminal that are left to the options in which runs differ."""

_UNBOUNDED = 100_000
"""Width of a terminal into which every table fits."""

app = typer.Typer(no_args_is_help=True, help="List and compare runs.")

Places: TypeAlias = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[DIR]...", help="Run directories, checkpoints, or folders of runs (default: runs)."
    ),
]
Sort: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Sort by bound, final, speed, walks, updated, state, name, or an option such as operator.sigma.",
    ),
]
Filters: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="KEY=VALUE",
        help="Show only runs with this state, name or option (KEY!=VALUE: without it); may be repeated.",
    ),
]
Csv: TypeAlias = Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")]


@app.command("list")
def list_runs(
    places: Places = None, sort: Sort = None, filters: Filters = None, json: Json = False, csv: Csv = False
) -> None:
    """List runs: state, best bound, speed, and the options in which they differ."""
    from walkback.jobs.runs import RunsJob

    show_runs(Output(), RunsJob(places or (), sort, filters or ()).run(), json=json, csv=csv)


@app.command("compare")
def compare(
    places: Places = None, sort: Sort = None, filters: Filters = None, json: Json = False, csv: Csv = False
) -> None:
    """Compare runs side by side: one column per run, one row per fact or differing option."""
    from walkback.jobs.runs import RunsJob

    found, output = RunsJob(places or (), sort, filters or ()).run(), Output()
    if json or csv:
        show_runs(output, found, json=json, csv=csv)
        return
    header, rows = found.cells()
    kept = [index for index, name in enumerate(header) if name != "differs in"]
    columns = ["", *(row[0] for row in rows)]
    lines = [[header[index], *(row[index] for row in rows)] for index in kept[1:]]
    lines += [[path, *(str(run.options.get(path, "")) for run in found.runs)] for path in found.differing]
    if not found.runs:
        output.note("No runs.")
        return
    _show_grid(output, columns, lines, blocks=[*zip(*[columns, *lines], strict=True)])
    _tell_problems(output, found)


@app.command("show")
def show(
    place: Annotated[Path, typer.Argument(metavar="DIR", help="A run directory, or a checkpoint.")],
    json: Json = False,
) -> None:
    """Show all facts about a run, with all options."""
    from walkback.jobs.runs import RunsJob

    output, found = Output(), RunsJob([place]).run()
    if json:
        output.emit_json(found.to_dict())
        return
    header, rows = found.cells()
    for run, row in zip(found.runs, rows, strict=True):
        facts = [(name, cell) for name, cell in zip(header, row, strict=True) if cell]
        options = [(path, str(value)) for path, value in run.options.items()]
        output.show(table(("", ""), facts), "", table(("option", "value"), options))
    _tell_problems(output, found)


def show_runs(output: Output, found: RunTable, *, json: bool = False, csv: bool = False) -> None:
    """Print runs as a table, or as one block per run if the terminal is too narrow."""
    if json:
        output.emit_json(found.to_dict())
    elif csv:
        output.write(found.to_csv())
    elif not found.runs:
        output.note("No runs.")
    else:
        header, rows = found.cells()
        _show_grid(output, header, rows, blocks=[header, *rows])
        _tell_problems(output, found)


def _tell_problems(output: Output, found: RunTable) -> None:
    for run in found.runs:
        if run.problem:
            output.note(f"{run.name}: {run.problem}")


def _show_grid(
    output: Output, header: Sequence[str], rows: Sequence[Sequence[str]], blocks: Sequence[Sequence[str]]
) -> None:
    """Print a table if it fits; otherwise `blocks` (a header and its rows), one below another."""
    console, names = output.results, [in_one_line(cell) for cell in header]
    # Nothing stands beside the last column of a list, so it may take several lines.
    bends = names[-1] == "differs in"
    rigid = table(names[:-1], [row[:-1] for row in rows]) if bends else table(names, rows)
    natural = Measurement.get(console, console.options.update(width=_UNBOUNDED), rigid).maximum
    if natural + (_BENT if bends else 0) <= console.width:
        output.show(table(names, rows))
        return
    titles, *entries = blocks
    for entry in entries:
        output.show(plain(in_one_line(entry[0]), "cyan"))
        for name, cell in zip(titles[1:], entry[1:], strict=True):
            if cell:
                output.show(Text.assemble((f"  {in_one_line(name)}  ", "dim"), plain(in_one_line(cell))))
