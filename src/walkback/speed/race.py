"""Interleaved timing of several pieces of work in one process.

    repeat r:   entrant 1, entrant 2, …, each once

A drift in the machine's speed thus affects all entrants alike, and their times can be compared repeat by repeat.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, final

from walkback.speed.clock import Meter
from walkback.support.memory import peak_of_process
from walkback.support.text import one_line
from walkback.support.watch import Watch

Work: TypeAlias = Callable[[], object]
"""What is measured: one piece of it each time that it is called."""


@final
class Entrant:
    """One that takes part.

    Args:
        name: In words, for messages.
        build: Makes ready what is needed, and returns the work.
        optional: Whether the race goes on without it, should it fail.
    """

    def __init__(self, name: str, build: Callable[[], Work], *, optional: bool = False) -> None:
        self.name = name
        self.optional = optional
        self._build = build
        self._work: Work | None = None
        self._seconds: list[float] = []
        self._own_bytes = 0
        self._peaks: list[int] = []

    @property
    def seconds(self) -> tuple[float, ...]:
        """Of each repeat, in order."""
        return tuple(self._seconds)

    @property
    def memory(self) -> int | None:
        """The most bytes that it needed on its device, what it keeps included; None where the device does not tell."""
        return self._own_bytes + max(self._peaks) if self._peaks else None

    def warm(self, times: int, meter: Meter) -> None:
        """Make ready, and work so many times without being measured."""
        before = meter.held()
        self._work = self._build()
        for _ in range(times):
            self._work()
        self._own_bytes = meter.held() - before

    def measure(self, meter: Meter) -> None:
        """Work once; nothing, where it could not be made ready or has failed."""
        work = self._work
        if work is not None:
            with meter.peak_of(self._peaks):
                self._seconds.append(meter.seconds(work))

    def leave(self) -> None:
        """Take no further part, and hold no memory."""
        self._work = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a race leaves beside the times of its entrants.

    Attributes:
        arrived: Those that came through all repeats, in their order.
        lost: The others, and why, a sentence each.
        process_peak: Bytes of main memory of this process when only the first entrant had worked; None where the
            system does not tell.
    """

    arrived: tuple[Entrant, ...]
    lost: tuple[str, ...]
    process_peak: int | None


def race(entrants: Sequence[Entrant], *, warmup: int, repeats: int, meter: Meter, watch: Watch) -> Outcome:
    """Make all ready, one by one, then measure each in every repeat.

    Args:
        entrants: The first is made ready before the others exist.
        warmup: Times that each works before it is measured.
        repeats: Times that each is measured.
        meter: Of their device.
        watch: Is told of progress.

    Raises:
        Exception: What an entrant raises that is not optional.
    """
    lost: dict[Entrant, str] = {}
    peak: int | None = None

    def attempt(entrant: Entrant, act: Callable[[], None]) -> None:
        # What an operator cannot do, or what does not fit into memory, costs a comparison and not the measurement.
        try:
            act()
        except Exception as error:
            if not entrant.optional:
                raise
            lost[entrant] = f"{entrant.name} is left out: {one_line(error)}"
            entrant.leave()

    done = itertools.count(1)
    watch.stage("Measuring", len(entrants) * (repeats + 1))
    for number, each in enumerate(entrants):
        attempt(each, partial(each.warm, warmup, meter))
        peak = peak_of_process() if number == 0 else peak
        watch.advance(next(done), {})
    for number in range(repeats):
        # Rotate the order, so that the position in the cycle does not favor an entrant.
        turn = number % len(entrants)
        for each in (*entrants[turn:], *entrants[:turn]):
            attempt(each, partial(each.measure, meter))
            watch.advance(next(done), {})
    arrived = tuple(each for each in entrants if each not in lost)
    return Outcome(arrived, tuple(lost.values()), peak)
