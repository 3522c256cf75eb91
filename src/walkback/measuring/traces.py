"""Statistics of chains at one temperature, computed while they run.

    s_{i+1} ~ p_T(· | s_i),   f(s_i, s_{i+1})  averaged over blocks of steps, separately for every chain

Memory depends on the number of blocks, not of steps. Blocks are walked in stretches, each with its own stream of noise,
so a chain resumes after an interruption exactly as if it had never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from walkback.diagnostics import Subject
from walkback.errors import WalkbackError
from walkback.schedules import Level
from walkback.state import State, batch_size, leaves
from walkback.walk import Start, Transition, by_cooling, walk

Statistics = Callable[[Transition], Tensor]
"""Maps a step of all chains to statistics `(C, S)`; `log_q` is log p(target | source), `log_p` that of the reverse."""

_SAVE_SECONDS = 20.0
"""Least time between two writes to the cache."""

_STRETCH = 50
"""Number of steps in a stretch, unless a block is longer.

Longer stretches are cheaper, because the network sees the first state of each stretch twice. Shorter ones can be
interrupted sooner."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Statistics of chains.

    Attributes:
        values: `(blocks, C, S)`, float64, on the CPU.
        state: Last states of the chains, `(C, *E)`.
        block: Number of steps in a block.
    """

    values: Tensor
    state: State
    block: int


@dataclass(frozen=True, slots=True)
class _Record:
    """Statistics of a step, their reduction over the steps of a block, and the check after each stretch."""

    statistics: Statistics
    reduce: Literal["mean", "last"]
    check: Callable[[], None]


def cold_level(subject: Subject, temperature: float) -> Level:
    """Return the level of a chain: the schedule's level with this temperature, else step 1 at this temperature."""
    same = [level for level in subject.model.levels() if level.temperature == temperature]
    return same[0] if same else Level(1, temperature)


@torch.no_grad()
def trace(
    subject: Subject,
    start: Start,
    level: Level,
    num_steps: int,
    statistics: Statistics,
    *,
    name: str,
    blocks: int = 100,
    reduce: Literal["mean", "last"] = "mean",
    check: Callable[[], None] = lambda: None,
) -> Trace:
    """Run chains from `start` `(C, *E)`, with its context, and record their statistics.

    Args:
        subject: Model, seed, cache and watch.
        start: Starting points of the chains.
        level: Level of all steps.
        num_steps: Number of steps, at least 1; rounded up to whole blocks.
        statistics: Statistics to record.
        name: Name of the stream of randomness, of the cache entry and of the stage; unique within a measurement.
        blocks: Largest number of blocks; all have the same length.
        reduce: "mean" records the mean over the steps of each block, "last" the statistics of its last step.
        check: Called after each stretch, when the device is synchronized anyway; raises if a step was invalid.

    Raises:
        WalkbackError: A statistic is not finite.
    """
    # Round up twice: blocks of equal length, and as many as are needed for `num_steps`.
    block = -(-num_steps // blocks)
    count = -(-num_steps // block)
    values, state = _resumed(subject, name, start.state)
    record = _Record(statistics, reduce, check)
    subject.watch.stage(name.replace("-", " ").capitalize(), count * block, len(values) * block)
    saved = time.monotonic()
    while len(values) < count:
        stretch = min(count - len(values), -(-_STRETCH // block))
        here = replace(start, state=state)
        state, found = _stretch(subject, here, level, (stretch, block), record, name, len(values))
        values += found
        if len(values) == count or time.monotonic() - saved > _SAVE_SECONDS:
            parts = {f"leaf.{i}": leaf for i, leaf in enumerate(leaves(state))}
            subject.cache.write(name, {"values": torch.stack(values), **parts})
            saved = time.monotonic()
        subject.watch.advance(len(values) * block, {})
    return Trace(torch.stack(values), state, block)


def settle(subject: Subject, start: Start, level: Level, num_steps: int, *, name: str = "burn-in") -> Start:
    """Return the chains after `num_steps` further steps, without recording anything."""
    if not num_steps:
        return start
    nothing = trace(
        subject, start, level, num_steps, lambda step: _zeros(step.target), name=name, reduce="last"
    )
    return replace(start, state=nothing.state)


def _zeros(state: State) -> Tensor:
    return torch.zeros(batch_size(state), 1, dtype=torch.float64)


def _resumed(subject: Subject, name: str, state: State) -> tuple[list[Tensor], State]:
    """Return the blocks in the cache, and the state after them."""
    found = subject.cache.read(name)
    if found is None:
        return [], state
    parts = tuple(found[f"leaf.{i}"].to(subject.device) for i in range(len(leaves(state))))
    return list(found["values"]), parts if isinstance(state, tuple) else parts[0]


def _stretch(
    subject: Subject,
    start: Start,
    level: Level,
    size: tuple[int, int],
    record: _Record,
    name: str,
    number: int,
) -> tuple[State, list[Tensor]]:
    """Compute blocks `number`, `number + 1`, … of one stretch of the chains; `size` = (blocks, steps per block)."""
    count, block = size
    # Noise depends on the first block alone, and stretches begin at the same blocks after an interruption.
    noise = subject.generator(name, number)
    steps = walk(subject.model.operator, by_cooling, start, (level,) * (count * block), noise)
    found: list[Tensor] = []
    state = start.state
    total: Tensor | None = None
    for index, step in enumerate(steps, start=1):
        state = step.target
        ends = index % block == 0
        if record.reduce == "mean" or ends:
            values = record.statistics(step).double()
            total = values if total is None else total + values
        if ends and total is not None:
            found.append(total / block if record.reduce == "mean" else total)
            total = None
    record.check()
    recorded = list(torch.stack(found).cpu())  # the only synchronization with the device in a stretch
    for index, mean in enumerate(recorded):
        _require_finite(mean, number + index, block)
    return state, recorded


def _require_finite(values: Tensor, number: int, block: int) -> None:
    lost = int((~values.isfinite()).any(1).sum())
    if lost:
        raise WalkbackError(
            f"{lost} of {len(values)} chains have statistics that are not finite in steps {number * block + 1} to "
            f"{(number + 1) * block}: the chain diverges, or its kernel has no density."
        )
