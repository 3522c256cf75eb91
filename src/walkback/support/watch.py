"""The interface through which long work reports its progress."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar, final

Item = TypeVar("Item")


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


_PATIENCE = 2.0
"""Seconds of a loop after which it is reported."""

_REPORTS = 200
"""Most reports of a loop."""


def counted(items: Iterable[Item], watch: Watch, text: str, total: int) -> Iterator[Item]:
    """Yield `items`, and report how many there were once this takes longer than two seconds.

    >>> list(counted("ab", Silent(), "Decoding", 2))
    ['a', 'b']
    """
    begin, shown, every = time.monotonic(), False, max(1, total // _REPORTS)
    for number, item in enumerate(items):
        if shown and number % every == 0:
            watch.advance(number, {})
        elif not shown and time.monotonic() - begin > _PATIENCE:
            shown = True
            watch.stage(text, total, number)
        yield item
