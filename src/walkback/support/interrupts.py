"""Ctrl-C and SIGTERM during long work: the first stops at the next safe point, a second one interrupts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import final


@final
class Stop:
    """Whether a stop was requested by the user or the system; `signal` is the number of the signal."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """The run stopped on request, after saving a checkpoint; `signal` is the signal's number."""

    def __init__(self, number: int, directory: Path | None, walks: int) -> None:
        hint = "" if directory is None else f"; go on with walkback run --resume {directory}"
        super().__init__(f"Stopped after {walks} walks{hint}")
        self.signal = number
        self.directory = directory
        self.walks = walks


@contextmanager
def stoppable(on_request: Callable[[], None] = lambda: None) -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM in the block into a stop request, and let a second one interrupt.

    Args:
        on_request: Called once when the request arrives, to tell the user.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread can handle signals
        return

    def handle(number: int, _: FrameType | None) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.signal = number
        on_request()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
