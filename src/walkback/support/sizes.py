"""Checks, before work begins, that tensors fit into the memory of this machine. Does not import torch."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from walkback.errors import ConfigurationError

_BYTES = 4  # per entry of a state, in single precision
_GROUP = Path("/sys/fs/cgroup/memory.max")


def machine_memory() -> int | None:
    """Return the memory available to this process in bytes, the smallest known limit; None if none is known."""
    limits: list[int] = []
    with suppress(ValueError, OSError, AttributeError):  # not on Windows
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ValueError, OSError):  # the limit of a container, or "max" if it has none
        limits.append(int(_GROUP.read_text()))
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            limits.append(soft)
    return min(limits, default=None)


def require_room(option: str, entries: int) -> None:
    """Refuse an option whose states alone exceed the memory; larger needs than those states are not considered.

    Args:
        option: The option with its value, as the user wrote it: "training.batch_size = 1000000".
        entries: Number of entries of its states.

    Raises:
        ConfigurationError: The states do not fit.
    """
    memory = machine_memory()
    if memory is not None and entries * _BYTES > memory:
        raise ConfigurationError(
            f"Got {option}, whose states alone need {_size(entries * _BYTES)} of memory, expected at most the "
            f"{_size(memory)} of this machine: lower it."
        )


def _size(num: int) -> str:
    """Format a number of bytes.

    >>> _size(8_500_000_000), _size(2_600_000_000_000_000)
    ('8.5 GB', '2,600 TB')
    """
    for unit, name in ((10**12, "TB"), (10**9, "GB")):
        if num >= unit:
            return f"{num / unit:,.2g} {name}" if num < 10 * unit else f"{num / unit:,.0f} {name}"
    return f"{num / 10**6:,.0f} MB"
