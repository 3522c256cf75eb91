"""Device memory: asynchronous copies, peak usage, and advice when memory runs out.

A copy from pageable memory to a CUDA device blocks the CPU until the device has finished all queued work. A copy from
pinned memory is asynchronous: the CPU can queue the next operations at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.support.memory_errors import is_out_of_memory, wanted_by


def send(values: Tensor, device: torch.device) -> Tensor:
    """Copy `values` from the CPU to `device`, asynchronously if it is a CUDA device."""
    if device.type != "cuda":
        return values.to(device)
    # The pinned copy may be released here: the caching allocator does not reuse it before the transfer is done.
    return values.pin_memory().to(device, non_blocking=True)


def forget_peak(device: torch.device) -> None:
    """Reset `peak_memory` of a CUDA device; the peak of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Return the peak memory in bytes: of tensors on a CUDA device since `forget_peak`, else of the process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_of_process()


def peak_of_process() -> int | None:
    """Return the peak main memory of this process in bytes; None if the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    # ru_maxrss is in bytes on macOS, in KiB elsewhere.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextmanager
def within_memory(work: str, advice: str) -> Iterator[None]:
    """Turn out-of-memory errors of the block, on a device or in main memory, into an error with advice.

    Args:
        work: Description of the work, with its size: "training on 512 states at a time".
        advice: What the user can do: "lower training.batch_size".

    Raises:
        WalkbackError: The memory was not sufficient.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        raise WalkbackError(
            f"Got too little memory{wanted_by(error)} for {work}, expected it to suffice: {advice}."
        ) from error
