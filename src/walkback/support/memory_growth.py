"""How much a piece of work adds to the memory of this process.

    CUDA      peak of the tensors on the device
    Linux     peak resident set (VmHWM), reset before the work, less the resident set at that time
    others    peak of the process after the work, less that before: 0 if the work needs less than preparations did

`ru_maxrss` is not used on Linux: a new process inherits that of its parent, and it cannot be reset.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch

from walkback.support.memory import forget_peak, peak_memory, peak_of_process

_SELF = Path("/proc/self")


def added_by(work: Callable[[], object], device: torch.device) -> int:
    """Do `work`, and return the bytes that it added at its peak; on the CPU, call it in a process of its own.

    Memory that preparations have released, but the allocator has kept, counts as present before.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        forget_peak(device)
        work()
        return (peak_memory(device) or 0) - before
    before = _mark()
    work()
    return max(0, _peak() - before)


def _mark() -> int:
    """Begin to observe the peak; return what is present, in bytes."""
    try:
        (_SELF / "clear_refs").write_text("5")
    except OSError:  # not Linux, or not permitted
        return _peak()
    return _status("VmRSS")


def _peak() -> int:
    try:
        return _status("VmHWM")
    except OSError:
        return peak_of_process() or 0


def _status(entry: str) -> int:
    found = re.search(rf"^{entry}:\s+(\d+) kB$", (_SELF / "status").read_text(), re.MULTILINE)
    if found is None:
        raise FileNotFoundError(entry)
    return 1024 * int(found[1])
