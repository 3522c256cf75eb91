"""How long work tells of its progress, without knowing who listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Reporter(Protocol):
    """Hears how a run goes; the command line shows it as a progress bar."""

    def stage(self, text: str, total: int, done: int = 0) -> None:
        """Work of `total` units begins, `done` of which are already there."""

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        """`done` units are there; `figures` are the latest."""

    def note(self, text: str) -> None:
        """Something worth a line."""
