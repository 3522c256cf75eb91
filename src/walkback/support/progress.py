"""Progress of long work on stderr: a bar in terminals and notebooks, elsewhere now and then a line, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from walkback.support.text import printable

_LINES = 10
"""Lines per stage where stderr is no terminal."""

_SHORT = {
    "loss": "loss {:.2f}",
    "validation_bits_per_dimension": "bound {:.3f} bits/dim",
    "validation_nats": "bound {:.3f} nats",
}


@final
class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s", style="dim", no_wrap=True)


@final
class ProgressBar:
    """A `walkback.support.watch.Watch` for people.

    Args:
        console: On stderr.
        warn: What a warning is given to.
        shown: Whether there is to be a bar.
        lines: Whether lines take its place where the console is neither a terminal nor a notebook.
    """

    def __init__(
        self, console: Console, warn: Callable[[str], object], *, shown: bool = True, lines: bool = True
    ) -> None:
        self._console = console
        self._warn = warn
        self._live = shown and (console.is_terminal or console.is_jupyter)
        self._talks = self._live or (shown and lines)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}", style="cyan", markup=False),
            console=console,
            disable=not self._live,
        )
        self._task: TaskID | None = None
        self._description = ""
        self._total = 0
        self._lines = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_endless()
        self._progress.stop()

    def stage(self, text: str, total: int, done: int = 0) -> None:
        """Start a bar of `total` units, or of an unknown number where that is 0."""
        self._end_endless()
        self._description, self._total, self._lines = printable(text), total, 0
        self._task = self._progress.add_task(
            self._description, total=total or None, completed=done, figures=""
        )

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        """Move the bar, and show the figures that matter."""
        if self._task is None or not self._talks:
            return
        text = _summary(figures)
        self._progress.update(self._task, completed=done, figures=text)
        if not self._live and self._total and done * _LINES // self._total > self._lines:
            self._lines = done * _LINES // self._total
            self._say(f"{self._description} {done}/{self._total} {text}".rstrip())

    def note(self, text: str) -> None:
        """A line of its own."""
        if self._talks:
            self._say(text)

    def warn(self, text: str) -> None:
        """A warning, also where no bar is shown."""
        self._warn(text)

    def _say(self, text: str) -> None:
        self._console.print(Text(printable(text)), soft_wrap=True)

    def _end_endless(self) -> None:
        """Take away the bar of a stage that has no end: it would go on beside the next one."""
        if self._task is not None and not self._total:
            self._progress.remove_task(self._task)
            self._task = None


def _summary(figures: Mapping[str, float]) -> str:
    """The few figures that fit beside a bar; bits/dim instead of nats where the data have them."""
    shown = dict(figures)
    if "validation_bits_per_dimension" in shown:
        shown.pop("validation_nats", None)
    return " · ".join(_SHORT[name].format(value) for name, value in shown.items() if name in _SHORT)
