"""The number of CPU threads that torch uses."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from walkback.errors import ConfigurationError


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Use `count` CPU threads in the block (0 leaves the number unchanged), and restore the number afterwards.

    Raises:
        ConfigurationError: The system does not allow this process to start that many threads.
    """
    if count > (os.cpu_count() or 1):
        _require_startable(count)
    before = torch.get_num_threads()
    try:
        if count:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def _require_startable(count: int) -> None:
    """Start and end that many threads at once: if the system refused one later, OpenMP would abort the process."""
    gate, started = threading.Event(), list[threading.Thread]()
    try:
        for _ in range(count):
            thread = threading.Thread(target=gate.wait, daemon=True)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError) as error:
        raise ConfigurationError(
            f"run.threads = {count} exceeds the {len(started)} threads that the limits on memory and processes allow: "
            f"lower run.threads; this machine has {os.cpu_count()} processors."
        ) from error
    finally:
        gate.set()
        for thread in started:
            thread.join()
