"""Tables of runs: search, filters, order, and the options in which the runs differ."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from walkback.configuration.overrides import parse_value
from walkback.errors import ConfigurationError, escaped
from walkback.report import Series
from walkback.reporting.record import RunRecord, bound_text, is_run, read_run
from walkback.support import html as markup
from walkback.support.curves import drawn
from walkback.support.text import nearest, printable

_DEPTH = 3
"""Depth to which folders are searched for runs: `runs/sweep/seed=1`."""

_QUIET = ("run.threads", "run.device")
"""Options that are not listed as differences: they describe where a run was executed, not the run itself."""

_KINDS = ("recipe", "operator.name", "data.name")
"""Options by which runs are of a kind."""

_MOST_DIFFERENCES = 8
"""Most options that a table shows of a run; `walkback runs compare`, CSV and JSON have all."""

_KEYS: Mapping[str, Callable[[RunRecord], Any]] = {
    "bound": lambda run: None if run.best is None else run.best.nats,
    "final": lambda run: None if run.final is None else run.final.nats,
    "speed": lambda run: None if run.speed is None else -run.speed,
    "walks": lambda run: -run.walks,
    "updated": lambda run: None if run.updated is None else -run.updated.timestamp(),
    "state": lambda run: run.state,
    "name": lambda run: run.name,
}
"""Sort keys; the best, fastest, longest and newest runs come first."""


@final
@dataclass(frozen=True, slots=True)
class RunTable:
    """A table of runs.

    Attributes:
        runs: Runs in the order of the table.
    """

    runs: tuple[RunRecord, ...]

    @property
    def differing(self) -> tuple[str, ...]:
        """Dotted paths of the options that differ between readable runs."""
        tables = [run.options for run in self.runs if run.options]
        paths = dict.fromkeys(path for table in tables for path in table)
        return tuple(
            path
            for path in paths
            if path not in _QUIET and any(table.get(path) != tables[0].get(path) for table in tables)
        )

    def differences(self) -> tuple[str, ...]:
        """Return what sets each run apart, in a line: `operator.sigma=0.05 run.seed=1`.

        Runs of another recipe, operator or data set differ in nearly all options, so these three are told, and then the
        options that differ from other runs of the same kind; at most `_MOST_DIFFERENCES` of them.
        """
        apart = [path for path in _KINDS if path in self.differing]
        kinds: dict[tuple[str, ...], list[RunRecord]] = {}
        for run in self.runs:
            kinds.setdefault(_kind(run), []).append(run)
        within = {kind: RunTable(tuple(runs)).differing for kind, runs in kinds.items()}
        lines = []
        for run in self.runs:
            paths = [path for path in (*apart, *within[_kind(run)]) if path in run.options]
            words = [f"{path}={run.options[path]}" for path in paths[:_MOST_DIFFERENCES]]
            more = len(paths) - len(words)
            lines.append(" ".join([*words, f"and {more} more"] if more else words))
        return tuple(lines)

    def sorted(self, key: str) -> RunTable:
        """Return the runs sorted by "bound", "final", "speed", "walks", "updated", "state", "name" or an option.

        Runs without the value come last.

        Raises:
            ConfigurationError: There is no such key.
        """
        if key in _KEYS:
            value = _KEYS[key]
        else:
            path = self._option(key, "--sort")

            def value(run: RunRecord) -> Any:
                return run.options.get(path)

        return replace(self, runs=tuple(sorted(self.runs, key=lambda run: _rank(value(run)))))

    def filtered(self, conditions: Iterable[str]) -> RunTable:
        """Return the runs that satisfy every condition, `KEY=VALUE` or `KEY!=VALUE`.

        KEY is "state", "name" or an option; the last parts of its path suffice if they are unambiguous.

        Raises:
            ConfigurationError: A condition has another form, or no run has the option.
        """
        found = self
        for condition in conditions:
            key, equals, wanted = condition.partition("=")
            negated = key.endswith("!")
            key = key.removesuffix("!").strip()
            if not equals or not key:
                raise ConfigurationError(f"Got --filter {condition!r}, expected --filter KEY=VALUE.")
            path = key if key in ("state", "name") else self._option(key, "--filter")
            kept = (run for run in found.runs if _matches(_value(run, path), wanted.strip()) != negated)
            found = replace(found, runs=tuple(kept))
        return found

    def _option(self, key: str, asked: str) -> str:
        """Return the dotted path of an option given by its full path or the last parts of it."""
        paths = dict.fromkeys(path for run in self.runs for path in run.options)
        if key in paths:
            return key
        ends = [path for path in paths if path.endswith(f".{key}")]
        if len(ends) == 1:
            return ends[0]
        if ends:
            raise ConfigurationError(f"{asked} {key} could be {', '.join(ends)}: give its full path.")
        known = [*_KEYS, *paths]
        raise ConfigurationError(
            f"No run has an option {key!r}{nearest(key, known)}; besides options there are {', '.join(_KEYS)}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types: `runs`, and the paths of differing options."""
        return {"runs": [run.to_dict() for run in self.runs], "differing": list(self.differing)}

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat record per run, with differing options: the rows of `to_csv`, or of a data frame."""
        differing = self.differing
        return [_flat(run) | {path: run.options.get(path) for path in differing} for run in self.runs]

    def to_csv(self) -> str:
        """Format `rows` as CSV with a header."""
        text = io.StringIO()
        columns = [*_flat(RunRecord(Path(), "damaged")), *self.differing]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        for row in self.rows():
            writer.writerow({key: _cell(value) for key, value in row.items()})
        return text.getvalue()

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of a table for people; empty columns are omitted."""
        header = ["run", "state", "walks", "best validation bound", "final bound", "walks/s", "updated (UTC)"]
        header += ["differs in"]
        rows = [
            [
                run.name,
                run.state,
                _progress(run),
                bound_text(run.best),
                bound_text(run.final),
                "" if run.speed is None else f"{run.speed:.3g}",
                "" if run.updated is None else f"{run.updated:%Y-%m-%d %H:%M}",
                apart,
            ]
            for run, apart in zip(self.runs, self.differences(), strict=True)
        ]
        used = [index for index in range(len(header)) if index < 3 or any(row[index] for row in rows)]
        return [header[index] for index in used], [[row[index] for index in used] for row in rows]

    def plot(self) -> Any:
        """Draw the best validation bound and the final bound of each run as a matplotlib figure (extra viz).

        Bounds are in bits/dim if all runs have them, else in nats. Runs are numbered as in the table.
        """
        unit = "bits_per_dimension" if all(_in_bits(run) for run in self.runs) else "nats"
        label = "bound on -log p (bits/dim)" if unit != "nats" else "bound on -log p (nats)"
        series = []
        for name in ("best", "final"):
            found = [(n, getattr(run, name)) for n, run in enumerate(self.runs) if getattr(run, name)]
            x, y = [float(n) for n, _ in found], [float(getattr(bound, unit)) for _, bound in found]
            if x:
                series.append(
                    Series(f"{name} bound", tuple(x), tuple(y), "run (row of the table)", label, marks=True)
                )
        return drawn("runs", series)

    def __len__(self) -> int:
        return len(self.runs)

    def __str__(self) -> str:
        header, rows = self.cells()
        return printable("\n".join("  ".join(row) for row in [header, *rows]))

    def _repr_html_(self) -> str:
        header, rows = self.cells()
        return markup.table(rows, header)


def find_runs(places: Sequence[Path]) -> RunTable:
    """Read the runs in `places`: run directories, checkpoints, and folders of runs up to three levels deep.

    Raises:
        ConfigurationError: A place does not exist or cannot be listed.
    """
    paths: dict[Path, None] = {}
    for place in places:
        if not place.exists():
            raise ConfigurationError(f"{place} does not exist, expected run directories or checkpoints.")
        try:
            paths |= dict.fromkeys(_runs_in(place, _DEPTH))
        except OSError as error:
            raise ConfigurationError(f"{place} cannot be listed: {error.strerror}.") from error
    return RunTable(tuple(read_run(path) for path in paths))


def _runs_in(place: Path, depth: int) -> list[Path]:
    if not place.is_dir() or is_run(place):
        return [place]
    if depth == 0:
        return []
    below = sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [run for path in below for run in _runs_in(path, depth - 1)]


def _kind(run: RunRecord) -> tuple[str, ...]:
    return tuple(str(run.options.get(path)) for path in _KINDS)


def _in_bits(run: RunRecord) -> bool:
    return all(bound is None or bound.bits_per_dimension is not None for bound in (run.best, run.final))


def _flat(run: RunRecord) -> dict[str, Any]:
    record: dict[str, Any] = {
        "run": run.name,
        "state": run.state,
        "walks": run.walks,
        "steps": run.steps,
        "walks_per_second": run.speed,
        "seconds": run.seconds,
    }
    for name, bound in (("best", run.best), ("final", run.final)):
        for unit in ("nats", "nats_error", "bits_per_dimension", "bits_error"):
            record[f"{name}_{unit}"] = None if bound is None else getattr(bound, unit)
    updated = None if run.updated is None else run.updated.isoformat(timespec="seconds")
    return record | {"updated": updated, "problem": run.problem}


def _cell(value: Any) -> Any:
    """Format a CSV cell; text from files must not control a terminal, nor be a formula in a spreadsheet."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = escaped(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _progress(run: RunRecord) -> str:
    return f"{run.walks:,}" if run.steps in (None, run.walks) else f"{run.walks:,} of {run.steps:,}"


def _value(run: RunRecord, path: str) -> Any:
    return {"state": run.state, "name": run.name}.get(path, run.options.get(path))


def _matches(value: Any, wanted: str) -> bool:
    """Return whether a value equals the requested one, as text or as TOML: 0.05 is 5e-2."""
    return str(value) == wanted or (value is not None and value == parse_value(wanted))


def _rank(value: Any) -> tuple[int, float, str]:
    """Return a sort key: numbers in order, then text, missing values last."""
    if value is None:
        return 2, 0.0, ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (2, 0.0, "") if math.isnan(value) else (0, float(value), "")
    return 1, 0.0, str(value)
