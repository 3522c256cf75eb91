"""`metrics.jsonl`: the figures of a run, one JSON object per line, `{"step": 50, "loss": 1.2}`."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO, final

from walkback.errors import ConfigurationError, WalkbackError
from walkback.storage.files import write_atomic, writing_to

FILE_NAME = "metrics.jsonl"

_MAX_LINE = 2**20
"""Maximum length of a line in bytes; longer ones were not written by walkback."""


@final
class MetricsFile:
    """Appends to the file; each line is flushed.

    JSON has no NaN or infinity: such figures are null, and `"nonfinite": {"loss": "nan"}` in the same line holds their
    values.

    Attributes:
        damaged: Number of unreadable lines that were dropped, without a last line truncated by a kill.
    """

    def __init__(self, directory: Path, *, resume_step: int | None = None) -> None:
        """Open the file.

        Args:
            directory: The run directory.
            resume_step: Drop the lines of later steps, and a last line truncated by a kill. None creates a new file,
                which must not exist.

        Raises:
            ConfigurationError: The file is a link, or not a regular file.
            WalkbackError: The file cannot be written.
        """
        self._path = directory / FILE_NAME
        self.damaged = 0
        with writing_to(self._path):
            require_own_file(self._path)
            if resume_step is not None and self._path.exists():
                self.damaged = _rewind(self._path, resume_step)
            self._file = _open(self._path, new=resume_step is None)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Append one line; raises WalkbackError if it cannot be written or the name of a figure is reserved."""
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

    def rewind(self, step: int) -> None:
        """Drop the lines of steps after `step`; raises WalkbackError if the file cannot be written."""
        with writing_to(self._path):
            self._file.close()
            self.damaged += _rewind(self._path, step)
            self._file = _open(self._path, new=False)

    def close(self) -> None:
        """Close the file (idempotent)."""
        with writing_to(self._path):
            self._file.close()


def require_own_file(path: Path) -> None:
    """Check that appending to `path` cannot write to another file.

    Raises:
        ConfigurationError: `path` is a symbolic link, which may lead out of the run directory, or not a regular file.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
        raise ConfigurationError(f"{path} is {what}, expected a file of the run: move it away.")


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a metrics file, in constant memory; damaged lines are skipped."""
    with path.open("rb") as file:
        for line in _lines(file):
            record = _record(line)
            if record is not None:
                yield record


def last_step(path: Path) -> int:
    """Return the largest number of walks in a metrics file; 0 if there is no file or no record."""
    if not path.is_file():
        return 0
    return max((record["step"] for record in read_records(path)), default=0)


def _open(path: Path, *, new: bool) -> TextIO:
    """Open for appending; O_NOFOLLOW repeats the check above for links created in the meantime."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | (os.O_EXCL if new else 0)
    return os.fdopen(os.open(path, flags, 0o666), "a", encoding="utf-8")


def _rewind(path: Path, step: int) -> int:
    """Keep the intact lines of a metrics file up to `step`; returns the number of damaged lines."""
    with path.open("rb") as file:
        changed, damaged = _judge(file, step)
        if changed:
            file.seek(0)
            write_atomic(
                path, lambda kept: kept.writelines(line for line in _lines(file) if _belongs(line, step))
            )
    return damaged


def _judge(file: BinaryIO, step: int) -> tuple[bool, int]:
    """Return whether any line must be dropped, and the number of damaged lines except the last line."""
    changed, damaged, last = False, 0, False
    for line in _lines(file):
        damaged += last
        last = _record(line) is None
        changed = changed or not _belongs(line, step)
    return changed, damaged


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; lines that are too long are truncated."""
    while line := file.readline(_MAX_LINE):
        yield line
        while len(line) == _MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(_MAX_LINE)


def _record(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None if the line is damaged or incomplete."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match record:
        case {"step": int()} if line.endswith(b"\n"):
            return dict(record)
        case _:
            return None


def _belongs(line: bytes, step: int) -> bool:
    """Return whether a line is intact and not later than `step`."""
    record = _record(line)
    return record is not None and bool(record["step"] <= step)
