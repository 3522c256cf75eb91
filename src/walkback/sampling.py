"""Sampling: cool from the prior, then iterate the operator.

    anneal   s_K ~ p*,   s_{t-1} ~ p_{T_t}(· | s_t),   t = K … 1
    chain    s ← p_T(· | s), repeated at one level (T = 1 unless said otherwise)

Both are generators that hold one state at a time, so 100,000 steps need no more memory than one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.model import Model
from walkback.operators import TransitionOperator, initial_state
from walkback.priors import Prior
from walkback.schedules import Level, Levels
from walkback.state import State, concatenate
from walkback.support.memory import within_memory
from walkback.support.seeding import generator as seeded

COLD = Level(1, 1.0)
"""The level of a chain at temperature 1."""


@torch.no_grad()
def anneal(
    operator: TransitionOperator, prior: Prior, levels: Levels, num: int, generator: torch.Generator
) -> Iterator[State]:
    """Cool `num` states from the prior: yields s_K, …, s_0 (K + 1 states `(num, *E)`)."""
    state = prior.sample(num, generator)
    yield state
    yield from cool(operator, state, levels, generator)


@torch.no_grad()
def cool(
    operator: TransitionOperator, state: State, levels: Levels, generator: torch.Generator
) -> Iterator[State]:
    """Walk `state` s_K down through `levels`, hottest first: yields s_{K-1}, …, s_0."""
    for level in reversed(levels):
        state = operator(state, level).cooling(level).sample(generator)
        yield state


@torch.no_grad()
def chain(
    operator: TransitionOperator,
    state: State,
    num_steps: int,
    generator: torch.Generator,
    *,
    level: Level = COLD,
    every: int = 1,
) -> Iterator[State]:
    """Apply the operator `num_steps` times at one level: yields the state after every `every` steps."""
    for step in range(1, num_steps + 1):
        state = operator(state, level).cooling(level).sample(generator)
        if step % every == 0:
            yield state


def last(states: Iterator[State]) -> State:
    """The last of a stream of states, holding one at a time.

    Raises:
        ValueError: The stream is empty.
    """
    state: State | None = None
    for state in states:  # noqa: B007
        pass
    if state is None:
        raise ValueError("Got an empty stream of states, expected at least one.")
    return state


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """What to sample.

    Attributes:
        num: Number of samples, or of chains.
        extra: Steps at T = 1 after annealing, before anything is recorded.
        chain: Steps at T = 1 after those, recorded.
        every: Steps between two recorded frames; the first frame is that before the chain.
        seed: Seed of the samples; each batch has its own stream.
        batch_size: Samples computed at a time.
    """

    num: int
    extra: int = 0
    chain: int = 0
    every: int = 1
    seed: int = 0
    batch_size: int = 1000

    @property
    def num_frames(self) -> int:
        """Number of recorded frames."""
        return self.chain // self.every + 1

    def total_steps(self, levels: Levels) -> int:
        """Steps of one sample, annealing included."""
        return len(levels) + self.extra + self.chain


def sample_frames(
    model: Model, levels: Levels, plan: SamplePlan, device: torch.device, start: Tensor | None = None
) -> Iterator[tuple[int, int | None, State | None]]:
    """Carry out a plan, all batches in step: yields (steps done, chain step, states `(num, *E)`) after every step.

    Chain step and states are None except at recorded frames. Memory does not depend on the number of steps.

    Args:
        model: In evaluation mode, on `device`.
        levels: Cooled through first; `()` begins with the steps at T = 1, which is what a start near the data needs.
        plan: What to sample.
        device: Where to compute.
        start: Where cooling begins, data `(num, *E)`; None draws from the prior.

    Raises:
        WalkbackError: There are more or fewer starts than `plan.num`.
    """
    if start is not None and len(start) != plan.num:
        raise WalkbackError(
            f"Got {len(start)} states to start {plan.num} chains from, expected one for each."
        )
    streams = [
        _steps(
            model,
            levels,
            plan,
            min(plan.batch_size, plan.num - first),
            seeded(device, plan.seed, "sample", first),
            None if start is None else start[first : first + plan.batch_size].to(device),
        )
        for first in range(0, plan.num, plan.batch_size)
    ]
    first = len(levels) + plan.extra
    size = min(plan.num, plan.batch_size)
    work = f"drawing {plan.num} samples, {size} at a time"
    with within_memory(work, "ask for fewer samples, or a smaller batch size"):
        for done, states in enumerate(zip(*streams, strict=True)):
            step = done - first
            if step >= 0 and step % plan.every == 0:
                yield done, step, concatenate(states)
            else:
                yield done, None, None


@torch.no_grad()
def _steps(
    model: Model,
    levels: Levels,
    plan: SamplePlan,
    num: int,
    generator: torch.Generator,
    start: Tensor | None,
) -> Iterator[State]:
    """Every state of one batch: where it starts, cooling, then the chain."""
    if start is None:
        state = model.prior.sample(num, generator)
    else:
        state, _ = initial_state(model.operator, start, generator)
    yield state
    for cooler in cool(model.operator, state, levels, generator):
        state = cooler
        yield state
    yield from chain(model.operator, state, plan.extra + plan.chain, generator)
