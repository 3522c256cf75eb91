"""Progress in terminals and notebooks, on stderr; silence elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from walkback.support.text import printable

_FIGURES = ("loss", "validation_nats", "validation_bits_per_dimension")


@final
class Bar:
    """A `Reporter` and a `Watch`.

    Args:
        shown: Whether there is to be a bar, where stderr is a terminal or this is a notebook.
    """

    def __init__(self, shown: bool) -> None:
        console = Console(stderr=True, highlight=False)
        self._live = shown and (console.is_terminal or console.is_jupyter)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console,
            disable=not self._live,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, text: str, total: int, done: int = 0) -> None:
        """A bar of `total` units begins."""
        self._task = self._progress.add_task(printable(text), total=total, completed=done, figures="")

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        """`done` of them are done; the figures that matter stand beside the bar."""
        if self._task is not None and self._live:
            shown = (f"{name.replace('_', ' ')} {figures[name]:.4g}" for name in _FIGURES if name in figures)
            self._progress.update(self._task, completed=done, figures=" · ".join(shown))

    def note(self, text: str) -> None:
        """A line of its own."""
        if self._live:
            self._progress.console.print(Text(printable(text)))
