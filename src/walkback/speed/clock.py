"""Time and memory of work on a device; device synchronization is excluded from the measured time.

CUDA calls return before the device has finished, so the clock is read only after a synchronization.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias, final

import torch

from walkback.building.devices import wait_for

Clock: TypeAlias = Callable[[], float]
"""Seconds since some moment."""


@final
class Meter:
    """Measures work on a device.

    Args:
        device: Where it computes.
        clock: Read before and after.
    """

    def __init__(self, device: torch.device, clock: Clock = time.perf_counter) -> None:
        self._device = device
        self._clock = clock

    @property
    def per_work(self) -> bool:
        """Whether the memory of one piece of work can be told from that of others."""
        return self._device.type == "cuda"

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the duration of `work` in seconds, including its asynchronous part on the device."""
        self._wait()
        started = self._clock()
        work()
        self._wait()
        return self._clock() - started

    def held(self) -> int:
        """Return the bytes of tensors on a CUDA device; 0 on other devices, where they are not counted."""
        return torch.cuda.memory_allocated(self._device) if self.per_work else 0

    @contextmanager
    def peak_of(self, peaks: list[int]) -> Iterator[None]:
        """Append the bytes that the block held at most beyond those before it; nothing where `per_work` is false."""
        if not self.per_work:
            yield
            return
        before = self.held()
        torch.cuda.reset_peak_memory_stats(self._device)
        yield
        peaks.append(torch.cuda.max_memory_allocated(self._device) - before)

    def _wait(self) -> None:
        wait_for(self._device)
