"""Exceptions that are not caused by code: signals, and insufficient memory. Does not import torch."""

from __future__ import annotations

import signal

from walkback.support.interrupts import Interrupted, Stopped
from walkback.support.memory_errors import is_out_of_memory


def is_not_of_code(error: BaseException) -> bool:
    """Return whether an exception comes from the user or the machine, not from the code that it was raised in.

    A KeyboardInterrupt comes from the user if Python's default handler of Ctrl-C is installed. If walkback's handler is
    installed, signals raise `Stopped`, and any other KeyboardInterrupt was raised by code.
    """
    if isinstance(error, Stopped | Interrupted | BrokenPipeError) or is_out_of_memory(error):
        return True
    return (
        isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
