"""Signals that end work: Ctrl-C (SIGINT), SIGTERM, and SIGHUP, which is sent when the terminal is closed.

    ended_by_signals    a signal raises `Stopped` at the current statement; files are written completely or not at all
    stoppable           the same, except in `stop.deferred()`, which delays the first signal to the end of the block

The exit code is 128 + the number of the last signal: 130, 143 or 129. Python calls handlers in the main thread, between
two instructions; a signal that arrives during a long computation in C++ is handled when that returns.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TypeAlias, final

_Handler: TypeAlias = Callable[[int, FrameType | None], None]

_AGAIN = 0.05  # seconds before a signal whose exception was lost is sent again

_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "stopped: the terminal was closed"}


def handled_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end work, without SIGHUP if it is ignored, as under `nohup`."""
    found = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        found.append(hangup)
    return tuple(found)


@final
class Stopped(KeyboardInterrupt):
    """A signal has ended the work; `signal` is its number.

    Not an `Exception`: third-party code that catches errors must not catch this. `insisted` is true if an earlier
    signal was deferred. Notes (`add_note`) say which results are kept.
    """

    def __init__(self, number: int, insisted: bool = False) -> None:
        super().__init__(_WORDS.get(signal.Signals(number).name, "stopped"))
        self.signal = number
        self.insisted = insisted


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """A run stopped on request, and can be resumed; `signal` is the signal's number."""

    def __init__(self, number: int, directory: Path | None, walks: int, where: str = "") -> None:
        hint = "" if directory is None else f"; go on with walkback run --resume {directory}"
        super().__init__(f"Stopped {where and f'{where}, '}after {walks} walks{hint}")
        self.signal = number
        self.directory = directory
        self.walks = walks


@final
class Stop:
    """Whether a stop was requested by the user or the system; `signal` is the number of the signal.

    Args:
        on_request: Called once when a request is deferred, to tell the user.
    """

    def __init__(self, on_request: Callable[[], None] = lambda: None) -> None:
        self.signal: int | None = None
        self._on_request = on_request
        self._deferred = False

    def __bool__(self) -> bool:
        return self.signal is not None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer the first signal to the end of the block; a second one raises `Stopped` at once.

        Raises:
            Stopped: A signal arrived, and the block ended without an exception.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.signal is not None:
            raise Stopped(self.signal)

    def handle(self, number: int, _: FrameType | None) -> None:
        """Handle a signal: raise `Stopped`, or record the signal if it is deferred."""
        if self or not self._deferred:
            raise Stopped(number, insisted=bool(self))
        self.signal = number
        with suppress(RuntimeError):  # the signal has interrupted another write to the same stream
            self._on_request()


@contextmanager
def ended_by_signals() -> Iterator[list[Stopped]]:
    """Raise `Stopped` in the block when a signal arrives; yields a list of the exceptions raised.

    The list is for callers of libraries that replace a KeyboardInterrupt by an exception of their own.
    """
    raised: list[Stopped] = []

    def handle(number: int, _: FrameType | None) -> None:
        raised.append(Stopped(number))
        raise raised[-1]

    with _handling(handle):
        yield raised


@contextmanager
def stoppable(on_request: Callable[[], None] = lambda: None) -> Iterator[Stop]:
    """Raise `Stopped` in the block when a signal arrives, unless it is deferred, see `Stop.deferred`.

    Args:
        on_request: Called once when a request is deferred, to tell the user.
    """
    stop = Stop(on_request)
    with _handling(stop.handle):
        yield stop


@contextmanager
def _handling(handle: _Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    hook = sys.unraisablehook

    def repeat(lost: sys.UnraisableHookArgs) -> None:
        # Python drops an exception that a handler raises during a finalizer or a callback of the garbage collector.
        # Send the signal again shortly, from a thread, so that it arrives outside of that code.
        if isinstance(lost.exc_value, Stopped):
            threading.Timer(_AGAIN, os.kill, (os.getpid(), lost.exc_value.signal)).start()
        else:
            hook(lost)

    previous = {number: signal.signal(number, handle) for number in handled_signals()}
    sys.unraisablehook = repeat
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in previous.items():
            signal.signal(number, handler)
