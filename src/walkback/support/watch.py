"""How long work tells of its progress, without knowing who listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, final


class Watch(Protocol):
    """Is told how far the work is; a `ProgressBar` shows it to people."""

    def stage(self, text: str, total: int, done: int = 0) -> None:
        """A stage of `total` units begins, `done` of which are there already; 0 units: nobody knows how many."""

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        """`done` units of the stage are done; `figures` are the latest."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def warn(self, text: str) -> None:
        """Something that a reader of the results must know."""


@final
class Silent:
    """Tells nobody."""

    def stage(self, text: str, total: int, done: int = 0) -> None:
        """Nothing."""

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """Nothing."""
