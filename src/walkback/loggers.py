"""Loggers of a run's figures: `metrics.jsonl`, which is always written, and loggers from plugins."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from walkback.errors import WalkbackError
from walkback.storage.files import write_bytes, writing_to

FILE_NAME = "metrics.jsonl"


class Logger(ABC):
    """Abstract receiver of a run's figures.

    Built as `cls(directory)` with the run directory, only in the process that writes files. The keyword-only
    arguments of `__init__` are its configuration. A resumed run may log the same steps again.
    """

    @abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record figures by name after `step` walks."""

    @abstractmethod
    def close(self) -> None:
        """Flush and close (idempotent)."""


@final
class JsonLines(Logger):
    """Appends to `metrics.jsonl`, one JSON object per line: `{"step": 50, "loss": 1.2}`. Each line is flushed.

    JSON has no NaN or infinity. Such figures are written as null, and their values are listed in the line as
    `"nonfinite": {"loss": "nan"}`.
    """

    def __init__(self, directory: Path, *, resume_step: int | None = None) -> None:
        """Open the file.

        Args:
            directory: The run directory.
            resume_step: Drop the lines of later steps, and a truncated last line. None creates a new file, which
                must not exist.

        Raises:
            WalkbackError: The file cannot be written.
        """
        self._path = directory / FILE_NAME
        with writing_to(self._path):
            if resume_step is not None and self._path.exists():
                _rewind(self._path, resume_step)
            self._file = self._path.open("x" if resume_step is None else "a", encoding="utf-8")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line; raises WalkbackError if it cannot be written."""
        taken = {"step", "nonfinite"} & metrics.keys()
        if taken:
            raise WalkbackError(
                f"Got a figure called {taken.pop()!r}, which is a reserved name; choose another."
            )
        nonfinite = {name: str(float(value)) for name, value in metrics.items() if not math.isfinite(value)}
        record: dict[str, Any] = {"step": step}
        record |= {name: None if name in nonfinite else value for name, value in metrics.items()}
        if nonfinite:
            record["nonfinite"] = nonfinite
        with writing_to(self._path):
            self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file (idempotent)."""
        with writing_to(self._path):
            self._file.close()


def _rewind(path: Path, step: int) -> None:
    """Keep the whole lines of a metrics file that belong to steps up to `step`."""
    content = path.read_bytes()
    kept = b"".join(line for line in content.splitlines(keepends=True) if _belongs(line, step))
    if kept != content:
        write_bytes(path, kept)


def _belongs(line: bytes, step: int) -> bool:
    """Return whether a line is complete and not later than `step`."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    match record:
        case {"step": int(logged)}:
            return line.endswith(b"\n") and logged <= step
        case _:
            return False
