"""Memory of devices: copies to them that nobody waits for, and one sentence where it does not suffice.

A copy of ordinary memory to a CUDA device makes the CPU wait until the device has done all that it was told before. One
of pinned memory does not: the CPU goes on with telling it what comes next.
"""

from __future__ import annotations

import re
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
