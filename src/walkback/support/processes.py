"""This process among those that a launcher has started together. Does not import torch."""

from __future__ import annotations

import os
import signal
import threading
import time

from walkback.errors import ConfigurationError

_LOOK = 1.0  # seconds between two looks at the parent

_FEWEST_LIMIT, _PER_CORE = 16, 2
"""Processes that are allowed on any machine, and for each of its cores."""


def is_one_of_several() -> bool:
    """Whether a launcher (`walkback run --nproc`, torchrun) has announced several processes."""
    return "WORLD_SIZE" in os.environ


def world_size() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def talks() -> bool:
    """Whether this process is the one of them that talks to people, or alone."""
    return os.environ.get("RANK", "0") == "0"


def follow_parent() -> None:
    """Ask this process to stop, by SIGTERM, when its parent is gone.

    A launcher that is killed cannot end what it has started: without this, processes would train on unseen.
    """
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, name="follow-parent", daemon=True).start()


def require_few(nproc: int) -> None:
    """Refuse more processes than this machine could run side by side; raises ConfigurationError."""
    most = max(_FEWEST_LIMIT, _PER_CORE * (os.cpu_count() or 1))
    if nproc > most:
        raise ConfigurationError(
            f"Got run.nproc = {nproc}, expected at most {most} on this machine: one process per device."
        )
