"""`metrics.jsonl`: the figures of a run, one JSON object a line, `{"step": 50, "loss": 1.2}`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from walkback.errors import WalkbackError
from walkback.storage.files import write_bytes, writing_to

FILE_NAME = "metrics.jsonl"


@final
class MetricsFile:
    """Appends to the file; each line is flushed.

    JSON has no NaN or infinity: such figures are null, and `"nonfinite": {"loss": "nan"}` in the line says
    what they were.
    """

    def __init__(self, directory: Path, *, resume_step: int | None = None) -> None:
        """Open the file.

        Args:
            directory: The run directory.
            resume_step: Drop the lines of later steps, and a last line that a kill cut short. None starts a
                new file, which must not exist.

        Raises:
            WalkbackError: The file cannot be written.
        """
        self._path = directory / FILE_NAME
        with writing_to(self._path):
            if resume_step is not None and self._path.exists():
                _rewind(self._path, resume_step)
            self._file = self._path.open("x" if resume_step is None else "a", encoding="utf-8")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Append one line; raises WalkbackError where it cannot be written."""
        taken = {"step", "nonfinite"} & figures.keys()
        if taken:
            raise WalkbackError(
                f"{taken.pop()!r} is reserved and cannot be the name of a figure: choose another name."
            )
        nonfinite = {name: str(float(value)) for name, value in figures.items() if not math.isfinite(value)}
        record: dict[str, Any] = {"step": step}
        record |= {name: None if name in nonfinite else value for name, value in figures.items()}
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
    """Whether a line is whole and not later than `step`."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    match record:
        case {"step": int(logged)}:
            return line.endswith(b"\n") and logged <= step
        case _:
            return False
