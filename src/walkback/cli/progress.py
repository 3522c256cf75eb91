"""Progress of long work on stderr: a bar at a terminal, now and then a line elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self, final

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

from walkback.cli.console import Output, plain

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
    """A `walkback.support.reporting.Reporter` for people.

    Args:
        output: Where messages go.
        shown: Whether anything is; of several processes that train together, one talks.
    """

    def __init__(self, output: Output, shown: bool = True) -> None:
        self._output = output
        self._shown = shown
        self._live = shown and output.messages.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}", style="cyan"),
            console=output.messages,
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
        self._progress.stop()

    def stage(self, text: str, total: int, done: int = 0) -> None:
        """Start a bar of `total` units."""
        self._description, self._total, self._lines = text, total, 0
        self._task = self._progress.add_task(text, total=total, completed=done, figures="")

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        """Move the bar, and show the figures that matter."""
        if self._task is None or not self._shown:
            return
        text = _summary(figures)
        self._progress.update(self._task, completed=done, figures=text)
        if not self._live and self._total and done * _LINES // self._total > self._lines:
            self._lines = done * _LINES // self._total
            self._output.note(f"{self._description} {done}/{self._total} {text}".rstrip())

    def note(self, text: str) -> None:
        """A line of its own."""
        if self._shown:
            self._progress.console.print(plain(text))


def _summary(figures: Mapping[str, float]) -> str:
    """The few figures that fit beside a bar; bits/dim instead of nats where the data have them."""
    shown = dict(figures)
    if "validation_bits_per_dimension" in shown:
        shown.pop("validation_nats", None)
    return " · ".join(_SHORT[name].format(value) for name, value in shown.items() if name in _SHORT)
