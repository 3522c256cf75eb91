"""Sampling: cool from the prior, then iterate the operator.

    steps    s ← k_T(· | s),   k = p unless said otherwise, at each of some levels
    anneal   s_K ~ p*,   s_{t-1} ~ p_{T_t}(· | s_t),   t = K … 1
    chain    s ← p_T(· | s), repeated at one level (T = 1 unless said otherwise)

All are generators that hold one state at a time, so 100,000 steps need no more memory than one. A context c goes with
the rows of a state through all steps: p_T(· | s, c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain as joined
from itertools import islice, repeat

import torch
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.model import Model
from walkback.operators import TransitionOperator, initial_state
from walkback.priors import Prior
from walkback.schedules import Level, Levels
from walkback.state import Context, State, concatenate, map_context
from walkback.support.memory import within_memory
from walkback.support.seeding import generator as seeded
from walkback.walk import Heating, by_cooling

COLD = Level(1, 1.0)
"""The level of a chain at temperature 1."""


@torch.no_grad()
def steps(
    operator: TransitionOperator,
    state: State,
    levels: Iterable[Level],
    generator: torch.Generator,
    context: Context = None,
    *,
    kernel: Heating = by_cooling,
    hold: Callable[[State], State] | None = None,
) -> Iterator[State]:
    """Step from `state` `(B, *E)` at each of `levels`, in their order: yields every state but the first.

    What every chain does, one run of the network a step; `walk` is for those whose steps are judged as well.

    Args:
        operator: The operator.
        state: Where the chains begin.
        levels: The level of each step.
        generator: Draws the states.
        context: What the rows are conditioned on.
        kernel: What is drawn from.
        hold: What becomes of a drawn state, e.g. some of its entries are put back; None leaves it as it is.
    """
    origin = state
    for level in levels:
        state = kernel(operator(state, level, context), state, level, origin).sample(generator)
        if hold is not None:
            state = hold(state)
        yield state


def anneal(
    operator: TransitionOperator,
    prior: Prior,
    levels: Levels,
    num: int,
    generator: torch.Generator,
    context: Context = None,
) -> Iterator[State]:
    """Cool `num` states from the prior: yields s_K, …, s_0 (K + 1 states `(num, *E)`)."""
    with torch.no_grad():
        state = prior.sample(num, generator)
    yield state
    yield from cool(operator, state, levels, generator, context)


def cool(
    operator: TransitionOperator,
    state: State,
    levels: Levels,
    generator: torch.Generator,
    context: Context = None,
) -> Iterator[State]:
    """Walk `state` s_K down through `levels`, hottest first: yields s_{K-1}, …, s_0."""
    return steps(operator, state, reversed(levels), generator, context)


def chain(
    operator: TransitionOperator,
    state: State,
    num_steps: int,
    generator: torch.Generator,
    context: Context = None,
    *,
    level: Level = COLD,
    every: int = 1,
) -> Iterator[State]:
    """Apply the operator `num_steps` times at one level: yields the state after every `every` steps."""
    states = steps(operator, state, repeat(level, num_steps), generator, context)
    return islice(states, every - 1, None, every)


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
    model: Model,
    levels: Levels,
    plan: SamplePlan,
    device: torch.device,
    start: Tensor | None = None,
    context: Context = None,
) -> Iterator[tuple[int, int | None, State | None]]:
    """Carry out a plan, all batches in step: yields (steps done, chain step, states `(num, *E)`) after every step.

    Chain step and states are None except at recorded frames. Memory does not depend on the number of steps.

    Args:
        model: In evaluation mode, on `device`.
        levels: Cooled through first; `()` begins with the steps at T = 1, which is what a start near the data needs.
        plan: What to sample.
        device: Where to compute.
        start: Where cooling begins, data `(num, *E)`; None draws from the prior.
        context: What the samples are conditioned on, `(num, …)`, on any device.

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
            map_context(partial(_part, first, plan.batch_size, device), context),
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
    context: Context,
) -> Iterator[State]:
    """Every state of one batch: where it starts, cooling, then the chain."""
    if start is None:
        state = model.prior.sample(num, generator)
    else:
        state, _ = initial_state(model.operator, start, generator)
    yield state
    way = joined(reversed(levels), repeat(COLD, plan.extra + plan.chain))
    yield from steps(model.operator, state, way, generator, context)


def _part(first: int, num: int, device: torch.device, leaf: Tensor) -> Tensor:
    return leaf[first : first + num].to(device)
