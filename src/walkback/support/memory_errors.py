"""Recognition of out-of-memory errors, whichever library raises them. Does not import torch."""

from __future__ import annotations

import errno
import re

WANTED = re.compile(
    r"Tried to allocate ([\d.]+ \w+)|tried to allocate (\d+ bytes)|Unable to allocate ([\d.]+ \w+)"
)

_WORDS = re.compile(
    r"DefaultCPUAllocator|out of memory|bad_alloc|can.?t allocate memory|cannot allocate memory"
    r"|failed to map segment|can't start new thread",
    re.IGNORECASE,
)
"""PyTorch's CPU allocator raises a plain RuntimeError, the loader of shared libraries an ImportError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory or address space is exhausted."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | ImportError) and bool(_WORDS.search(str(error)))


def wanted_by(error: BaseException) -> str:
    """Return the requested amount in parentheses; empty if the error does not state it."""
    found = WANTED.search(str(error))
    return "" if found is None else f" ({next(filter(None, found.groups()))} more)"
