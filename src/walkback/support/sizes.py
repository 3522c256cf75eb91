"""Whether tensors fit into this machine, asked before work begins. Does not import torch."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from walkback.errors import ConfigurationError

_BYTES = 4  # of an entry of a state, in single precision
_GROUP = Path("/sys/fs/cgroup/memory.max")


def machine_memory() -> int | None:
    """The memory that this process could have at most, in bytes; None where the system does not tell."""
    limits: list[int] = []
    with suppress(ValueError, OSError, AttributeError):  # not on Windows
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ValueError, OSError):  # a container; "max" where it has no limit
        limits.append(int(_GROUP.read_text()))
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            limits.append(soft)
    return min(limits, default=None)


def require_room(option: str, entries: int) -> None:
    """Refuse an option whose states alone need more memory than there is; says nothing of smaller ones.

    Args:
        option: As the user wrote it, with its value: "training.batch_size = 1000000".
        entries: How many numbers its states have.

    Raises:
        ConfigurationError: They do not fit.
    """
    memory = machine_memory()
    if memory is not None and entries * _BYTES > memory:
        raise ConfigurationError(
            f"Got {option}, whose states alone need {_size(entries * _BYTES)} of memory, expected at most what there "
            f"is, {_size(memory)}: lower it."
        )


def _size(num: int) -> str:
    """A number of bytes in words.

    >>> _size(8_500_000_000), _size(2_600_000_000_000_000)
    ('8.5 GB', '2,600 TB')
    """
    for unit, name in ((10**12, "TB"), (10**9, "GB")):
        if num >= unit:
            return f"{num / unit:,.2g} {name}" if num < 10 * unit else f"{num / unit:,.0f} {name}"
    return f"{num / 10**6:,.0f} MB"
