"""The interface through which long work reports its progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, final


class Watch(Protocol):
    """A receiver of progress; `ProgressBar` displays it."""

    def stage(self, text: str, total: int, done: int = 0) -> None:
        """Begin a stage of `total` units (0 if unknown), `done` of which are already done."""

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        """Report that `done` units of the stage are done, with the latest `figures`."""

    def note(self, text: str) -> None:
        """Report a message."""

    def warn(self, text: str) -> None:
        """Report a caveat that affects the results."""


@final
class Silent:
    """A `Watch` that ignores everything."""

    def stage(self, text: str, total: int, done: int = 0) -> None:
        """Do nothing."""

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def warn(self, text: str) -> None:
        """Do nothing."""
