"""The record of a run, read from its files: state, bound, speed, configuration.

Files in the directory are not trusted: a damaged file leads to a damaged record, and not to an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import ValidationError

from walkback.configuration.documents import parse_toml
from walkback.errors import CheckpointError, ConfigurationError
from walkback.report import Figure, number
from walkback.storage.description import read_description
from walkback.storage.migrations import CONFIGURATION
from walkback.storage.outcome import RESULT_FILE, Bound, Outcome, read_outcome
from walkback.storage.rundir import is_locked
from walkback.storage.store import FINAL
from walkback.support.numbers import is_number
from walkback.support.text import one_line
from walkback.support.textfile import read_text
from walkback.training.metrics_file import FILE_NAME, read_records

RunState: TypeAlias = Literal[
    "running", "finished", "interrupted", "diverged", "failed", "damaged", "checkpoint"
]

CONFIG_FILE = "config.toml"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Facts about a run.

    Attributes:
        path: The run directory, or a checkpoint.
        state: "running" if a process holds its lock; "finished"; "interrupted", also by a kill; "diverged" if a loss
            was not finite; "failed" for any other error; "damaged" if the configuration cannot be read; "checkpoint"
            for a file.
        walks: Number of walks taken.
        steps: Requested number of walks; None if unknown.
        best: Lowest bound on validation data; None if there was no validation.
        best_walks: Number of walks at which it was measured.
        final: Bound on held-out data at the end; None if the run has not ended.
        seconds: Seconds of training.
        updated: Time of the last write.
        options: All options by dotted path, including names of components.
        problem: A sentence about what is wrong with the run; empty if nothing is.
    """

    path: Path
    state: RunState
    walks: int = 0
    steps: int | None = None
    best: Bound | None = None
    best_walks: int | None = None
    final: Bound | None = None
    seconds: float | None = None
    updated: datetime | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def speed(self) -> float | None:
        """Walks per second of training; None if nothing was logged."""
        return self.walks / self.seconds if self.walks and self.seconds else None

    @property
    def name(self) -> str:
        """The path as given by the user."""
        return str(self.path)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types."""
        return {
            "run": self.name,
            "state": self.state,
            "walks": self.walks,
            "steps": self.steps,
            "walks_per_second": self.speed,
            "seconds": self.seconds,
            "best": None if self.best is None else self.best.model_dump() | {"walks": self.best_walks},
            "final": None if self.final is None else self.final.model_dump(),
            "updated": None if self.updated is None else self.updated.isoformat(timespec="seconds"),
            "problem": self.problem,
            "options": dict(self.options),
        }


def bound_text(bound: Bound | None) -> str:
    """Format a bound with its error and unit; bits/dim if the data are quantized.

    >>> bound_text(Bound(nats=1.23456, nats_error=0.0123))
    '1.235 ± 0.012 nats'
    """
    if bound is None:
        return ""
    if bound.bits_per_dimension is not None:
        return f"{number(Figure('', bound.bits_per_dimension, '', bound.bits_error))} bits/dim"
    return f"{number(Figure('', bound.nats, '', bound.nats_error))} nats"


def is_run(path: Path) -> bool:
    """Return whether a directory is a run directory, complete or damaged."""
    return any((path / name).exists() for name in (CONFIG_FILE, FILE_NAME, RESULT_FILE, FINAL, "checkpoints"))


def read_run(path: Path) -> RunRecord:
    """Read a run directory, or the description of a checkpoint file."""
    if not path.is_dir():
        return _of_checkpoint(path)
    problems: list[str] = []
    options: dict[str, Any] = {}
    try:
        options = _options_in(path / CONFIG_FILE)
    except ConfigurationError as error:
        problems.append(one_line(error))
    metrics = _Metrics()
    try:
        metrics.read(path / FILE_NAME)
    except OSError as error:
        problems.append(f"{FILE_NAME} cannot be read: {error.strerror}")
    outcome = None
    try:
        outcome = read_outcome(path)
    except CheckpointError as error:
        problems.append(one_line(error))
    if outcome is not None and outcome.walks < metrics.walks:
        outcome = None  # from before the run was resumed and then killed
    if outcome is not None and outcome.reason:
        problems.append(outcome.reason)
    steps = options.get("training.steps")
    return RunRecord(
        path=path,
        state=_state(path, options, metrics, outcome),
        walks=metrics.walks if outcome is None else max(outcome.walks, metrics.walks),
        steps=steps if isinstance(steps, int) else None,
        best=metrics.best,
        best_walks=metrics.best_walks,
        final=None if outcome is None else outcome.bound,
        seconds=metrics.seconds,
        updated=_updated(path),
        options=options,
        problem="; ".join(problems),
    )


def _state(path: Path, options: Mapping[str, Any], metrics: _Metrics, outcome: Outcome | None) -> RunState:
    if is_locked(path):
        return "running"
    if not options:
        return "damaged"
    if outcome is not None:
        return outcome.state
    if metrics.diverged:
        return "diverged"
    # Runs of walkback 0.1 before `result.json`.
    whole = (path / FINAL).is_file() and metrics.walks >= (options.get("training.steps") or math.inf)
    return "finished" if whole else "interrupted"


class _Metrics:
    """The facts in `metrics.jsonl` that a table needs."""

    def __init__(self) -> None:
        self.walks = 0
        self.seconds: float | None = None
        self.best: Bound | None = None
        self.best_walks: int | None = None
        self.diverged = False

    def read(self, path: Path) -> None:
        """Read the file if it is a regular one; raises OSError."""
        if not path.is_file():
            return
        for record in read_records(path):
            self.walks = max(self.walks, record["step"])
            if is_number(record.get("seconds")):
                self.seconds = record["seconds"]
            gone = record.get("nonfinite")
            if "loss" in record or gone:
                self.diverged = isinstance(gone, Mapping) and "loss" in gone
            self._validated(record)

    def _validated(self, record: Mapping[str, Any]) -> None:
        found = {
            key.removeprefix("validation_"): value
            for key, value in record.items()
            if key.startswith("validation_")
        }
        try:
            bound = Bound.model_validate(found)
        except ValidationError:
            return
        if self.best is None or bound.nats < self.best.nats:
            self.best, self.best_walks = bound, record["step"]


def _of_checkpoint(path: Path) -> RunRecord:
    try:
        description = read_description(path)
    except CheckpointError as error:
        return RunRecord(path, "damaged", updated=_updated(path), problem=one_line(error))
    options = dict(flattened(description.config))
    walks, steps = description.progress.get("walks", 0), options.get("training.steps")
    return RunRecord(
        path,
        "checkpoint",
        walks=int(walks),
        steps=steps if isinstance(steps, int) else None,
        updated=_updated(path),
        options=options,
    )


def _options_in(path: Path) -> dict[str, Any]:
    """Return the options in a `config.toml` of any format, without consulting plugins."""
    document = parse_toml(read_text(path), str(path))
    document = CONFIGURATION.migrated(document, path, ConfigurationError)
    hidden = {"digest", *CONFIGURATION.stamp()}
    options = dict(flattened({key: value for key, value in document.items() if key not in hidden}))
    if not options:
        raise ConfigurationError(f"{path} is empty.")
    return options


def flattened(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every option of nested tables by dotted path.

    >>> dict(flattened({"run": {"seed": 1}, "recipe": "digits"}))
    {'run.seed': 1, 'recipe': 'digits'}
    """
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _updated(path: Path) -> datetime | None:
    """Return the time of the last write to metrics, result or configuration."""
    files = [path / name for name in (FILE_NAME, RESULT_FILE, CONFIG_FILE)] if path.is_dir() else [path]
    times = []
    for file in files:
        try:
            times.append(file.stat().st_mtime)
        except OSError:
            continue
    return datetime.fromtimestamp(max(times), UTC) if times else None
