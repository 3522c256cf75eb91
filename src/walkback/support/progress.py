"""Progress of long work on stderr: a bar in terminals and notebooks, otherwise occasional lines or nothing."""

from __future__ import annotations

import threading
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

from walkback.errors import in_one_line

_LINES = 10
"""Number of lines per stage if stderr is not a terminal."""

_DESCRIPTION = 100
"""Maximum length of a stage's description, which may contain names from files."""

_PATIENCE = 2.0
"""Seconds after which a stage is announced if stderr is not a terminal."""

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
    """A `walkback.support.watch.Watch` that displays progress.

    Args:
        console: Console on stderr.
        warn: Called with each warning.
        shown: Whether to show progress.
        lines: Whether to print lines if the console is neither a terminal nor a notebook.
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
        self._done = 0
        self._lines = 0
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_stage()
        self._progress.stop()

    def stage(self, text: str, total: int, done: int = 0) -> None:
        """Start a bar of `total` units; 0 means that the number is unknown."""
        self._end_stage()
        self._description, self._total, self._done, self._lines = (
            in_one_line(text, _DESCRIPTION),
            total,
            done,
            0,
        )
        self._task = self._progress.add_task(
            self._description, total=total or None, completed=done, figures=""
        )
        if self._talks and not self._live:
            self._timer = threading.Timer(_PATIENCE, self._say_what_takes_long)
            self._timer.daemon = True
            self._timer.start()

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        """Move the bar and show selected figures."""
        if self._task is None or not self._talks:
            return
        text, self._done = _summary(figures), done
        self._progress.update(self._task, completed=done, figures=text)
        if not self._live and self._total and done * _LINES // self._total > self._lines:
            self._lines = done * _LINES // self._total
            self._be_patient()
            self._say(f"{self._description} {done}/{self._total} {text}".rstrip())

    def note(self, text: str) -> None:
        """Print a line."""
        if self._talks:
            self._say(text)

    def warn(self, text: str) -> None:
        """Report a warning, even if no bar is shown."""
        self._warn(in_one_line(text))

    def _say(self, text: str) -> None:
        self._console.print(Text(in_one_line(text)), soft_wrap=True)

    def _say_what_takes_long(self) -> None:
        self._say(
            f"{self._description} {self._done}/{self._total}" if self._total else f"{self._description} …"
        )

    def _be_patient(self) -> None:
        """Cancel the announcement of a stage that takes long."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_stage(self) -> None:
        """Remove the bar of a stage of unknown length, which would otherwise keep moving next to the next one."""
        self._be_patient()
        if self._task is not None and not self._total:
            self._progress.remove_task(self._task)
            self._task = None


def _summary(figures: Mapping[str, float]) -> str:
    """Format the figures that fit next to a bar, with bits/dim instead of nats if the data have them."""
    shown = dict(figures)
    if "validation_bits_per_dimension" in shown:
        shown.pop("validation_nats", None)
    return " · ".join(_SHORT[name].format(value) for name, value in shown.items() if name in _SHORT)
