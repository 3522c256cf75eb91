"""Memory of devices: copies to them that nobody waits for, the most that was held, and what to do without enough.

A copy of ordinary memory to a CUDA device makes the CPU wait until the device has done all that it was told before. One
of pinned memory does not: the CPU goes on with telling it what comes next.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from walkback.errors import WalkbackError

_WANTED = re.compile(r"Tried to allocate ([\d.]+ \w+)|tried to allocate (\d+ bytes)")


def send(values: Tensor, device: torch.device) -> Tensor:
    """`values`, which are on the CPU, on `device`; a CUDA device gets them without being waited for."""
    if device.type != "cuda":
        return values.to(device)
    # The caching allocator does not give pinned memory away before the copy that was told of is done.
    return values.pin_memory().to(device, non_blocking=True)


def forget_peak(device: torch.device) -> None:
    """Let `peak_memory` begin now; for the memory of a process it cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Bytes held at most: of tensors on a CUDA device since `forget_peak`, else of the process so far."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_of_process()


def peak_of_process() -> int | None:
    """Bytes of main memory that this process has held at most so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextmanager
def within_memory(work: str, advice: str) -> Iterator[None]:
    """Say what to do where the memory of a device, or of the machine, does not suffice for what is done inside.

    Args:
        work: What is done, with its size: "training on 512 states at a time".
        advice: What to do about it: "lower training.batch_size".

    Raises:
        WalkbackError: It does not.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        found = _WANTED.search(str(error))
        wanted = "" if found is None else f" ({found[1] or found[2]} more)"
        raise WalkbackError(
            f"Got too little memory{wanted} for {work}, expected it to suffice: {advice}."
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    """PyTorch has a class for devices alone; its allocator of main memory raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
