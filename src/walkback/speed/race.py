"""Interleaved timing of several pieces of work in one process.

    repeat r:   entrant 1, entrant 2, …, each once

A drift of the machine's speed thus affects all entrants equally, and their times can be compared repeat by repeat.

`torch.utils.benchmark.Timer` is not used: it runs a statement at least twice before every reading of its clock, which
would triple the work. It also repeats the same statement in a block, while here each repeat is a new walk of another
length, which all entrants take in turn.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias, final

import torch

from walkback.building.devices import wait_for
from walkback.support.memory import peak_of_process
from walkback.support.text import one_line
from walkback.support.watch import Watch

Work: TypeAlias = Callable[[], object]
"""Does one piece of the work to be measured per call."""

Clock: TypeAlias = Callable[[], float]
"""Returns seconds since a fixed time."""


@final
class Entrant:
    """Work that is timed, with its measurements.

    Args:
        name: Name for messages.
        build: Prepares the work and returns it.
        optional: Whether the race continues without it if it fails.

    Attributes:
        seconds: Seconds of each repeat, in order.
        memory: Peak memory on a CUDA device in bytes, including tensors that it keeps; None on other devices.
        lost: A sentence about why it was left out; empty if it was not.
    """

    def __init__(self, name: str, build: Callable[[], Work], *, optional: bool = False) -> None:
        self.seconds: list[float] = []
        self.memory: int | None = None
        self.lost = ""
        self._name = name
        self._build = build
        self._optional = optional
        self._work: Work | None = None
        self._kept = 0

    def prepare(self, warmup: int, device: torch.device) -> None:
        """Build the work, and run it `warmup` times."""
        with self._attempt():
            before = _held(device)
            self._work = self._build()
            for _ in range(warmup):
                self._work()
            self._kept = _held(device) - before

    def measure(self, device: torch.device, clock: Clock) -> None:
        """Run the work once; does nothing once it has failed."""
        work = self._work
        if work is None:
            return
        with self._attempt():
            before = _held(device)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            # CUDA calls return before the device has finished: synchronize before and after, so that the time contains
            # exactly this work.
            wait_for(device)
            started = clock()
            work()
            wait_for(device)
            self.seconds.append(clock() - started)
            if device.type == "cuda":
                needed = self._kept + torch.cuda.max_memory_allocated(device) - before
                self.memory = max(needed, self.memory or 0)

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        # An operator that does not support an alternative, or lack of memory, ends this comparison, not the benchmark.
        try:
            yield
        except Exception as error:
            if not self._optional:
                raise
            self.lost = f"{self._name} is left out: {one_line(error)}"
            self._work = None  # releases its memory


def race(
    entrants: Sequence[Entrant],
    *,
    warmup: int,
    repeats: int,
    device: torch.device,
    watch: Watch,
    clock: Clock = time.perf_counter,
) -> int | None:
    """Prepare all entrants one by one, then measure each of them in every repeat.

    Args:
        entrants: The entrants; the first is prepared before the others exist.
        warmup: Number of runs of each entrant before it is measured.
        repeats: Number of measurements of each entrant.
        device: Device of the work.
        watch: Receives progress.
        clock: Read before and after each piece of work, when the device is idle.

    Returns:
        Peak main memory of this process in bytes after preparing the first entrant; None if the system does not report
        it.

    Raises:
        Exception: An entrant that is not optional raised this error.
    """
    done, peak = itertools.count(1), None
    watch.stage("Measuring", len(entrants) * (repeats + 1))
    for number, entrant in enumerate(entrants):
        entrant.prepare(warmup, device)
        peak = peak_of_process() if number == 0 else peak
        watch.advance(next(done), {})
    for number in range(repeats):
        # Rotate the order, so that the position in the cycle does not favor an entrant.
        turn = number % len(entrants)
        for entrant in (*entrants[turn:], *entrants[:turn]):
            entrant.measure(device, clock)
            watch.advance(next(done), {})
    return peak


def _held(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
