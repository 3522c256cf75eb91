"""Inpainting: cooling with the known part of every state held fixed (section 5 of the paper).

    s_K ~ p*,   s_{t-1} ~ p_{T_t}(· | s_t),   and after each draw   x ← m ⊙ known + (1 - m) ⊙ x

x is the data part of the state, and m = 1 where it is kept. This is the paper's procedure. It samples p(rest | kept)
only in the limit of small steps: each step draws both parts jointly and then restores the kept one, so detailed balance
with the joint distribution does not imply detailed balance with the conditional one. Noise that is known has a way of
its own, see `walkback.sampling.returning`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat

import torch
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.model import Model
from walkback.operators import TransitionOperator, visible
from walkback.sampling.chains import COLD, last, steps
from walkback.sampling.finite import FiniteStates, require_finite
from walkback.sampling.readout import read_out
from walkback.sampling.returning import Returns, levels_of_moves, repaint
from walkback.schedules import Levels
from walkback.state import Context, State, leaves, map_context, map_state
from walkback.support.memory import within_memory
from walkback.support.readouts import Readout
from walkback.support.seeding import generator as seeded

BATCH = 250
"""Number of examples to fill in at a time."""


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
    returns: Returns | None = None,
) -> Iterator[State]:
    """Fill in the part that the mask leaves open; yield s_K, …, s_0, then `extra` further states at T = 1.

    With `returns`, yield the states of `walkback.sampling.returning`, through the schedule's own levels.

    The kept part of every state equals that of `known` bit for bit; latent parts are free. With `levels = ()` it starts
    at T = 1 from the known part completed with noise from the prior.

    Args:
        model: The model in evaluation mode.
        known: Data `(B, *E)`; values outside the mask are ignored.
        mask: True where `known` is kept; bool, broadcastable to `(B, *E)`.
        levels: Levels to cool through, hottest first.
        generator: Generator on the device of `known`.
        context: Context that rows are conditioned on.
        extra: Number of steps at T = 1, or of excursions, after annealing.
        returns: How to return to hotter levels.

    Raises:
        WalkbackError: The data part is not one of the state's tensors, so it cannot be held fixed.
    """
    operator = model.operator

    def hold(state: State, values: Tensor = known) -> State:
        return clamped(operator, state, values, mask)

    if returns is not None:
        yield from repaint(
            model, known, hold, generator, context, returns=returns, annealed=bool(levels), extra=extra
        )
        return
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
    returns: Returns | None = None,
    readout: Readout,
    seed: int,
    on_step: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Return the readout of the last states of `inpaint`: data `(N, *E)` whose kept part equals `known` bit for bit.

    Works batch by batch; each batch has its own stream of noise.

    Args:
        model: The model in evaluation mode.
        known: Data `(N, *E)` on the CPU.
        mask: True where `known` is kept; bool, broadcastable to `(N, *E)`, on the CPU.
        levels: See `inpaint`.
        context: Context that rows are conditioned on, `(N, …)`, on the CPU.
        extra: See `inpaint`.
        returns: See `inpaint`.
        readout: How the last states are shown; see `walkback.sampling.readout`.
        seed: Seed of the noise.
        on_step: Called with the number of steps done, out of `fill_steps`.

    Raises:
        ConfigurationError: The readout is a mean, and the operator's kernels have none in closed form.
        WalkbackError: See `inpaint`; or a state is not finite.
    """
    batches, masks = torch.split(known, BATCH), torch.split(mask.expand_as(known), BATCH)
    ends, way, device = [], levels[::-1], model.device
    if returns is not None:
        way = levels_of_moves(model.levels(), returns.moves(len(levels), extra))
    for number, (part, held) in enumerate(zip(batches, masks, strict=True)):
        # One stream per batch, so that the result of a batch does not depend on the others.
        noise = seeded(device, seed, "inpaint", number)
        rows = slice(number * BATCH, (number + 1) * BATCH)
        given = map_context(lambda leaf, rows=rows: leaf[rows].to(device), context)  # type: ignore[misc]
        with within_memory(f"filling in {len(part)} states at a time", "ask for fewer, or use the CPU"):
            states = inpaint(
                model, part.to(device), held.to(device), levels, noise, given, extra=extra, returns=returns
            )
            finite = FiniteStates(way, fill_steps(1, levels, extra, returns))
            end = last(_told(states, on_step, number * fill_steps(1, levels, extra, returns), finite))
            finite.require()
        # A mean readout changes every entry, so the kept part is restored once more.
        ends.append(torch.where(held, part, read_out(model.operator, end, readout, given).to(part)))
    return require_finite(torch.cat(ends), f"the readout '{readout}'")


def fill_steps(num: int, levels: Levels, extra: int, returns: Returns | None = None) -> int:
    """Return the number of steps that `fill_in` takes for `num` examples."""
    each = len(levels) + extra if returns is None else sum(1 for _ in returns.moves(len(levels), extra))
    return -(-num // BATCH) * each


def _told(
    states: Iterator[State], on_step: Callable[[int], None], done: int, finite: FiniteStates
) -> Iterator[State]:
    for step, state in enumerate(states):
        finite.add(state)
        on_step(done + step)
        yield state


def clamped(operator: TransitionOperator, state: State, known: Tensor, mask: Tensor) -> State:
    """Return the state with its data part `(B, *E)` set to `known` where `mask` is true; raises like `inpaint`."""
    # Identity, not equality: the held values must go back into the tensor that the next step reads.
    shown = visible(operator, state)
    if not any(leaf is shown for leaf in leaves(state)):
        raise WalkbackError(
            f"The data part of the state cannot be held fixed: {type(operator).__name__}.visible computes it instead "
            "of returning one of the state's tensors."
        )
    # Not m * known + (1 - m) * x: `where` keeps the bits, and ignores NaN outside the mask.
    held = torch.where(mask, known, shown.to(known.dtype))
    return map_state(lambda leaf: held if leaf is shown else leaf, state)
