"""Footnotes of a table: why a figure is missing, and what its error is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from walkback.comparing.table import Cell, Column


@final
class Footnotes:
    """Numbers reasons in the order of their first use; equal reasons have one number."""

    def __init__(self) -> None:
        self._reasons: dict[str, int] = {}
        self._errors: set[str] = set()

    def marked(self, cell: Cell, unit: str) -> str:
        """Return the text of a cell, with the number of its reason: `– [1]`, or `2.67 ± 0.02 (2) [1]` for two seeds."""
        if cell.error_of is not None:
            self._errors.add(cell.error_of)
        text = cell.text(unit)
        if not cell.reason:
            return text
        number = self._reasons.setdefault(cell.reason, len(self._reasons) + 1)
        seeds = f" ({cell.seeds})" if cell.seeds else ""
        return f"{text}{seeds} [{number}]"

    def lines(self, columns: Sequence[Column]) -> list[str]:
        """Return what the errors are, followed by the reasons."""
        most = max((len(column.models) for column in columns), default=0)
        alone = "" if "seeds" in self._errors else " It does not cover other seeds."
        meanings = {
            "seeds": f"± is the standard error over up to {most} seeds; (n) says that only n seeds have the figure.",
            "run": f"± without several seeds is the error within one run, over examples or samples.{alone}",
        }
        told = [meanings[kind] for kind in meanings if kind in self._errors]
        return told + [f"[{number}] {reason}" for reason, number in self._reasons.items()]
