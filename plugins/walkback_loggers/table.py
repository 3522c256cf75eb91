"""Figures as a table: `metrics.csv`, with a row each time the run logs and a column for each figure.

step,loss,seconds,gradient_norm,learning_rate,validation_nats
1,-91.8,0.05,12.1,0.0001,
2,,,,,13.65
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias, final

from walkback.loggers import Logger
from walkback.storage.files import write_text, writing_to

Row: TypeAlias = dict[str, Any]

_STEP = "step"


@final
class Table(Logger):
    """Writes `metrics.csv` in the run directory.

    The file is rewritten with a new column when a figure appears for the first time. If a resumed run logs a step
    again, the rows from that step on are dropped. Pictures are not logged; they are in `samples/`.

    Args:
        separator: Separator of the columns.
    """

    def __init__(self, *, separator: Literal[",", ";", "\t"] = ",") -> None:
        self._separator = separator
        self._path = Path()
        self._columns = [_STEP]
        self._file: TextIO | None = None
        self._last = 0

    def open(self, directory: Path, config: Mapping[str, Any]) -> None:
        """Set the file to write."""
        self._path = directory / "metrics.csv"

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Append a row of the figures after `step` walks."""
        if step < self._last:  # training went back
            self.close()
            self._file = None
        self._last = step
        if self._file is None or not figures.keys() <= set(self._columns):
            self._begin(step, figures)
        with writing_to(self._path):
            self._write(self._file, {_STEP: step, **figures})

    def log_picture(self, step: int, name: str, png: bytes) -> None:
        """Do nothing: a table has no pictures."""

    def close(self) -> None:
        """Close the file (idempotent)."""
        if self._file is not None:
            with writing_to(self._path):
                self._file.close()

    def _begin(self, step: int, figures: Mapping[str, float]) -> None:
        """Rewrite the file with columns for `figures`, and open it for appending."""
        first = self._file is None
        self.close()
        columns, rows = self._read()
        kept = [row for row in rows if not first or _is_before(row, step)]
        self._columns = list(dict.fromkeys([_STEP, *columns, *figures]))
        text = StringIO()
        csv.DictWriter(text, self._columns, delimiter=self._separator, lineterminator="\n").writeheader()
        for row in kept:
            self._write(text, row)
        write_text(self._path, text.getvalue())
        with writing_to(self._path):
            self._file = self._path.open("a", encoding="utf-8", newline="")

    def _read(self) -> tuple[list[str], list[Row]]:
        """Read existing columns and rows."""
        if not self._path.exists():
            return [], []
        with writing_to(self._path), self._path.open(encoding="utf-8", newline="", errors="replace") as file:
            reader = csv.DictReader(file, delimiter=self._separator)
            return list(reader.fieldnames or ()), list(reader)

    def _write(self, file: TextIO | None, row: Row) -> None:
        if file is None:
            raise ValueError("Got a figure before the table was opened.")
        writer = csv.DictWriter(
            file, self._columns, delimiter=self._separator, lineterminator="\n", extrasaction="ignore"
        )
        writer.writerow(row)
        file.flush()


def _is_before(row: Row, step: int) -> bool:
    """Return whether a line is whole and earlier than `step`."""
    try:
        return None not in row.values() and int(row[_STEP]) < step
    except (KeyError, TypeError, ValueError):
        return False
