"""Chains: cool from the prior, then iterate the operator.

    steps    s ← k_T(· | s),   k = p by default, at each of the given levels
    anneal   s_K ~ p*,   s_{t-1} ~ p_{T_t}(· | s_t),   t = K … 1
    chain    s ← p_T(· | s), repeated at one level (T = 1 by default)

All are generators that hold one state at a time, so 100,000 steps need no more memory than one. A context c stays with
the rows of a state through all steps: p_T(· | s, c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, repeat

import torch

from walkback.operators import TransitionOperator
from walkback.priors import Prior
from walkback.sampling.wrapped import Compound
from walkback.schedules import Level, Levels
from walkback.state import Context, State
from walkback.support.shapes import require_like
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
    """Step from `state` `(B, *E)` at each of `levels`, in order; yield every state except the first.

    All chains are built on this function, with one run of the network per step. Use `walk` if steps are also scored.

    Args:
        operator: The operator.
        state: Starting states of the chains.
        levels: The level of each step.
        generator: Source of randomness of the states.
        context: Context that rows are conditioned on.
        kernel: Kernel to draw from.
        hold: Function applied to each drawn state, e.g. to restore some of its entries; None leaves states unchanged.
    """
    origin = state
    for level in levels:
        conditional = operator(state, level, context)
        drawn = kernel(conditional, state, level, origin)
        target = drawn.sample(generator)
        require_like(target, state, drawn, conditional, operator)
        state = target
        # These may reference the previous state, and a chain keeps only one state alive.
        del conditional, drawn, target
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
    """Cool `num` states from the prior; yield s_K, …, s_0 (K + 1 states `(num, *E)`)."""
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
    """Cool `state` s_K through `levels` in single steps, hottest first; yield s_{K-1}, …, s_0."""
    if isinstance(operator, Compound):
        return operator.cool(state, levels, generator, context)
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
    """Apply the operator `num_steps` times at one level; yield the state after every `every` steps."""
    states = steps(operator, state, repeat(level, num_steps), generator, context)
    return islice(states, every - 1, None, every)


def last(states: Iterator[State]) -> State:
    """Return the last of a stream of states, holding one at a time.

    Raises:
        ValueError: The stream is empty.
    """
    state: State | None = None
    for state in states:  # noqa: B007
        pass
    if state is None:
        raise ValueError("Got an empty stream of states, expected at least one.")
    return state
