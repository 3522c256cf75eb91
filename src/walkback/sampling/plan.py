"""Plans: many samples in batches that step in lockstep, recorded at given steps of their chains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import cast

import torch
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.model import Model
from walkback.operators import TransitionOperator, initial_state
from walkback.sampling.chains import chain, cool
from walkback.sampling.finite import FiniteStates
from walkback.schedules import Levels
from walkback.state import Context, State, concatenate, leaves, map_context
from walkback.support.memory import within_memory
from walkback.support.seeding import generator as seeded
from walkback.support.world import World


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """A sampling plan.

    Attributes:
        num: Number of samples, or of chains.
        extra: Number of steps at T = 1 after annealing, before recording begins.
        chain: Number of recorded steps at T = 1 after those.
        every: Steps between two recorded frames. The first frame is the state before the chain.
        seed: Seed of the samples; each batch has its own stream.
        batch_size: Number of samples computed at a time.
        compiled: Whether steps at T = 1 are compiled.
    """

    num: int
    extra: int = 0
    chain: int = 0
    every: int = 1
    seed: int = 0
    batch_size: int = 1000
    compiled: bool = False

    @property
    def num_frames(self) -> int:
        """Number of recorded frames."""
        return self.chain // self.every + 1

    def total_steps(self, levels: Levels) -> int:
        """Return the number of steps of one sample, annealing included."""
        return len(levels) + self.extra + self.chain


def sample_frames(
    model: Model,
    levels: Levels,
    plan: SamplePlan,
    device: torch.device,
    start: Tensor | None = None,
    context: Context = None,
    world: World | None = None,
) -> Iterator[tuple[int, int | None, State | None]]:
    """Run a plan, all batches in lockstep; yield (steps done, chain step, states `(num, *E)`) after every step.

    Chain step and states are None except at recorded frames. Memory does not depend on the number of steps.

    Args:
        model: The model in evaluation mode, on `device`.
        levels: Levels to cool through first. `()` skips annealing, which suits starts near the data.
        plan: The plan.
        device: Device to compute on.
        start: Data `(num, *E)` that cooling starts from; None draws from the prior.
        context: Context that samples are conditioned on, `(num, …)`, on any device.
        world: The place of this process among those that divide the batches; each yields the states of all.

    Raises:
        WalkbackError: The number of starts is not `plan.num`; or a state is not finite, before a frame after it is
            recorded.
    """
    if start is not None and len(start) != plan.num:
        raise WalkbackError(
            f"Got {len(start)} states to start from, expected one for each of {plan.num} chains."
        )
    # One stream of noise per batch, named by its first row. All batches advance together, so a frame of all chains can
    # be written before the next step, whatever the length of the chain.
    world = world or World()
    firsts = range(0, plan.num, plan.batch_size)
    operator = frozen(model.operator) if plan.compiled else model.operator
    streams = [
        _steps(
            model,
            operator,
            levels,
            plan,
            min(plan.batch_size, plan.num - first),
            seeded(device, plan.seed, "sample", first),
            None if start is None else start[first : first + plan.batch_size].to(device),
            map_context(partial(_part, first, plan.batch_size, device), context),
        )
        for first in firsts[world.rank :: world.size]
    ]
    steps, first = plan.total_steps(levels), len(levels) + plan.extra
    size = min(plan.num, plan.batch_size)
    work = f"drawing {plan.num} samples, {size} at a time"
    finite = FiniteStates(levels[::-1], steps)
    with within_memory(work, "ask for fewer samples, or a smaller batch size"):
        # A process may have no batches, but takes part in frames.
        drawn: Iterable[tuple[State, ...]] = zip(*streams, strict=True) if streams else repeat((), steps + 1)
        for done, own in enumerate(drawn):
            step = done - first
            if own:
                finite.add(*own)
            if step >= 0 and step % plan.every == 0:
                finite.require()
                yield done, step, concatenate(_of_all(own, len(firsts), device, world))
            else:
                yield done, None, None


def _of_all(own: Sequence[State], count: int, device: torch.device, world: World) -> list[State]:
    """Return the states of all `count` batches, of which this process has every `world.size`-th."""
    if world.size == 1:
        return list(own)
    found: list[State] = []
    for number in range(count):
        place, source = divmod(number, world.size)
        mine = leaves(own[place]) if source == world.rank else ()
        parts = world.tensors_from(source, {str(index): leaf for index, leaf in enumerate(mine)})
        rows = tuple(parts[str(index)].to(device) for index in range(len(parts)))
        found.append(rows if len(rows) > 1 else rows[0])
    return found


def frozen(operator: TransitionOperator) -> TransitionOperator:
    """Return the operator compiled with constant weights, which are cast, and norms folded into them, only once.

    Use it without gradients, at one level: another one compiles it again.
    """
    return cast("TransitionOperator", torch.compile(operator, options={"freezing": True}))


@torch.no_grad()
def _steps(
    model: Model,
    cold: TransitionOperator,
    levels: Levels,
    plan: SamplePlan,
    num: int,
    generator: torch.Generator,
    start: Tensor | None,
    context: Context,
) -> Iterator[State]:
    """Yield every state of one batch: its start, cooling, then the chain of the operator `cold`."""
    if start is None:
        state = model.prior.sample(num, generator)
    else:
        state, _ = initial_state(model.operator, start, generator)
    yield state
    for colder in cool(model.operator, state, levels, generator, context):
        state = colder
        yield state
    yield from chain(cold, state, plan.extra + plan.chain, generator, context)


def _part(first: int, num: int, device: torch.device, leaf: Tensor) -> Tensor:
    return leaf[first : first + num].to(device)
