"""The place of this process in a group started by a launcher. Does not import torch."""

from __future__ import annotations

import os
import signal
import threading
import time

from walkback.errors import ConfigurationError

_LOOK = 1.0  # seconds between checks of the parent process

_FEWEST_LIMIT, _PER_CORE = 16, 2
"""Number of processes allowed on any machine, and per core."""


def is_one_of_several() -> bool:
    """Return whether a launcher (`walkback run --nproc`, torchrun) started this process as part of a group."""
    return "WORLD_SIZE" in os.environ


def world_size() -> int:
    """Return the number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def talks() -> bool:
    """Return whether this process prints messages: rank 0, or the only process."""
    return os.environ.get("RANK", "0") == "0"


def follow_parent() -> None:
    """Send SIGTERM to this process when its parent has ended.

    A launcher that is killed cannot stop the processes that it started, which would otherwise continue to train.
    """
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, name="follow-parent", daemon=True).start()


def require_few(nproc: int, given: str) -> None:
    """Raise ConfigurationError if `nproc`, as `given`, exceeds what this machine can run in parallel."""
    most = max(_FEWEST_LIMIT, _PER_CORE * (os.cpu_count() or 1))
    if nproc > most:
        raise ConfigurationError(
            f"Got {given}, expected at most {most} on this machine: one process per device."
        )
