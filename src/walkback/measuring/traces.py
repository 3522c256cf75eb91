"""Chains at one temperature, reduced to statistics while they run.

    s_{i+1} ~ p_T(· | s_i),   f(s_i, s_{i+1})  averaged over blocks of steps, for every chain by itself

Memory depends on the number of blocks, not on that of steps. Blocks are walked in stretches, each with noise of its
own, so a chain that was interrupted goes on exactly as one that was not.
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
"""A step of all chains → their statistics `(C, S)`; `log_q` is log p(target | source), `log_p` the way back."""

_SAVE_SECONDS = 20.0

_STRETCH = 50
"""Steps of a stretch, unless a block is longer: its first state is seen by the network twice."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Statistics of chains.

    Attributes:
        values: `(blocks, C, S)`, float64, on the CPU.
        state: The last state of the chains, `(C, *E)`.
        block: Steps in a block.
    """

    values: Tensor
    state: State
    block: int


@dataclass(frozen=True, slots=True)
class _Record:
    """What is recorded of a step, how a block is made of its steps, and what is checked after some."""

    statistics: Statistics
    reduce: Literal["mean", "last"]
    check: Callable[[], None]


def cold_level(subject: Subject, temperature: float) -> Level:
    """The level of a chain at a temperature: that of the schedule with this temperature, else step 1 at it."""
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
        start: Where the chains are.
        level: One level for all steps.
        num_steps: At least 1; rounded up to whole blocks.
        statistics: What to record.
        name: Of the stream of randomness, of the cache's entry and of the stage: unique in a measurement.
        blocks: At most so many, of equal length.
        reduce: "mean" records the mean over each block's steps, "last" what its last step gives.
        check: Called after each stretch, where the device is waited for anyway; raises where its steps were bad.

    Raises:
        WalkbackError: A statistic is not finite.
    """
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
    """Where the chains are after `num_steps` further steps of which nothing is recorded."""
    if not num_steps:
        return start
    nothing = trace(
        subject, start, level, num_steps, lambda step: _zeros(step.target), name=name, reduce="last"
    )
    return replace(start, state=nothing.state)


def _zeros(state: State) -> Tensor:
    return torch.zeros(batch_size(state), 1, dtype=torch.float64)


def _resumed(subject: Subject, name: str, state: State) -> tuple[list[Tensor], State]:
    """The blocks that the cache has, and the state after them."""
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
    """Blocks `number`, `number + 1`, … of one stretch of the chains, `size` = (blocks, steps of each)."""
    count, block = size
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
    recorded = list(torch.stack(found).cpu())  # the device is waited for once a stretch
    for index, mean in enumerate(recorded):
        _require_finite(mean, number + index, block)
    return state, recorded


def _require_finite(values: Tensor, number: int, block: int) -> None:
    lost = int((~values.isfinite()).any(1).sum())
    if lost:
        raise WalkbackError(
            f"Got {lost} of {len(values)} chains with statistics that are not finite in steps "
            f"{number * block + 1} to {(number + 1) * block}, expected finite ones: the chain diverges, or its "
            "kernel has no density."
        )
