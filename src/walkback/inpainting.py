"""Inpainting: cooling with a part of every state held at what is known (section 5 of the paper).

    s_K ~ p*,   s_{t-1} ~ p_{T_t}(· | s_t),   and after each draw   x ← m ⊙ known + (1 - m) ⊙ x

x is the data part of the state, and m = 1 where it is kept. That is what the paper does. It samples p(rest | kept) in
the limit of small steps only: a step draws both parts together, then the kept one is put back, so that even detailed
balance with the joint law does not carry over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat

import torch
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.model import Model
from walkback.operators import TransitionOperator, visible
from walkback.readout import read_out
from walkback.sampling import COLD, last, steps
from walkback.schedules import Levels
from walkback.state import Context, State, leaves, map_context, map_state
from walkback.support.memory import within_memory
from walkback.support.readouts import Readout
from walkback.support.seeding import generator as seeded

BATCH = 250
"""Data that are filled in at a time."""


@torch.no_grad()
def inpaint(
    model: Model,
    known: Tensor,
    mask: Tensor,
    levels: Levels,
    generator: torch.Generator,
    context: Context = None,
    *,
    extra: int = 0,
) -> Iterator[State]:
    """Fill in what the mask leaves open: yields s_K, …, s_0, then `extra` further states at T = 1.

    In every one of them the kept part is that of `known`, bit for bit; latent parts are free. Without levels, `()`,
    it starts at T = 1 from the corrupted data: what is known, and noise from the prior for the rest.

    Args:
        model: In evaluation mode.
        known: Data `(B, *E)`; where nothing is kept it does not matter.
        mask: True where `known` is kept; bool, broadcastable to `(B, *E)`.
        levels: Cooled through, hottest first.
        generator: On the device of `known`.
        context: What the rows are conditioned on.
        extra: Steps at T = 1 after those.

    Raises:
        WalkbackError: The operator shows data that are none of its state's tensors, so that nothing can be held.
    """
    operator = model.operator

    def hold(state: State) -> State:
        return clamped(operator, state, known, mask)

    state = hold(model.prior.sample(len(known), generator))
    yield state
    way = (*reversed(levels), *repeat(COLD, extra))
    yield from steps(operator, state, way, generator, context, hold=hold)


def fill_in(
    model: Model,
    known: Tensor,
    mask: Tensor,
    levels: Levels,
    context: Context = None,
    *,
    extra: int,
    readout: Readout,
    seed: int,
    device: torch.device,
    on_step: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """What `inpaint` ends at, as it is shown: data `(N, *E)` like `known`, whose kept part is in it bit for bit.

    It goes batch by batch, each with its own stream of noise.

    Args:
        model: In evaluation mode, on `device`.
        known: Data `(N, *E)` on the CPU.
        mask: True where `known` is kept; bool, broadcastable to `(N, *E)`, on the CPU.
        levels: See `inpaint`.
        context: What the rows are conditioned on, `(N, …)`, on the CPU.
        extra: See `inpaint`.
        readout: What is shown of the last states.
        seed: Of the noise.
        device: Where to compute.
        on_step: Hears the number of steps taken, of `fill_steps`.

    Raises:
        ConfigurationError: The mean is to be shown, and the operator's kernels do not tell it.
        WalkbackError: As `inpaint`.
    """
    batches, masks = torch.split(known, BATCH), torch.split(mask.expand_as(known), BATCH)
    ends = []
    for number, (part, held) in enumerate(zip(batches, masks, strict=True)):
        noise = seeded(device, seed, "inpaint", number)
        rows = slice(number * BATCH, (number + 1) * BATCH)
        given = map_context(lambda leaf, rows=rows: leaf[rows].to(device), context)  # type: ignore[misc]
        with within_memory(f"filling in {len(part)} states at a time", "ask for fewer, or use the CPU"):
            states = inpaint(model, part.to(device), held.to(device), levels, noise, given, extra=extra)
            end = last(_told(states, on_step, number * (len(levels) + extra)))
        # A mean has no part of the state as it was: it is held once more.
        ends.append(torch.where(held, part, read_out(model.operator, end, readout, given).to(part)))
    return torch.cat(ends)


def fill_steps(num: int, levels: Levels, extra: int) -> int:
    """Steps that `fill_in` takes for `num` data."""
    return -(-num // BATCH) * (len(levels) + extra)


def _told(states: Iterator[State], on_step: Callable[[int], None], done: int) -> Iterator[State]:
    for step, state in enumerate(states):
        on_step(done + step)
        yield state


def clamped(operator: TransitionOperator, state: State, known: Tensor, mask: Tensor) -> State:
    """The state with its data part `(B, *E)` set to `known` where `mask` is true; raises as `inpaint`."""
    shown = visible(operator, state)
    if not any(leaf is shown for leaf in leaves(state)):
        raise WalkbackError(
            f"Got data that {type(operator).__name__}.visible computes, expected one of the state's tensors: "
            "such a state cannot be held."
        )
    held = torch.where(mask, known, shown.to(known.dtype))
    return map_state(lambda leaf: held if leaf is shown else leaf, state)
