"""The heating walk, one record a step.

    s_0 ~ data,   s_t ~ q_{T_t}(· | s_{t-1}),   t = 1 … K

Each step is yielded as a `Transition` that carries both kernels: q_{T_t}(· | s_{t-1}), which drew s_t, and
p_{T_t}(· | s_t), which is asked to walk back to s_{t-1}. States are detached: no gradient flows through the walk.

The network runs once per state, K + 1 times a walk. Its output at s_t serves both to score s_{t-1} at T_t and to draw
s_{t+1} at T_{t+1}; a network that looks at the level sees that of the state (t at s_t) in both roles, which leaves the
bound valid because it holds for any heating kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from walkback.kernels import Kernel
from walkback.operators import Conditional, TransitionOperator
from walkback.priors import Prior
from walkback.schedules import Level, Levels
from walkback.state import Context, State

Heating: TypeAlias = Callable[[Conditional, State, Level, State], Kernel]
"""The operator at s_{t-1}, s_{t-1}, level t, s_0 → q_{T_t}(· | s_{t-1})."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where paths begin.

    Attributes:
        state: s_0, `(B, *E)`.
        anchor: x, `(B, *E)`: what s_0 is scattered around, an example of the data without the noise that s_0 was
            given; None stands for s_0.
        context: What the rows are conditioned on, `(B, …)`; None: nothing.
        prior: p*, for paths that begin at the hot end; None where there is none.
    """

    state: State
    anchor: State | None = None
    context: Context = None
    prior: Prior | None = None


class Transition(NamedTuple):
    """Step t between a colder state s_{t-1} and a hotter one s_t, and the two kernels that judge it.

    `anchor` and `context` are those of the `Start`: the anchor is s_0 where no more is known, and None for a transition
    that belongs to no walk.
    """

    source: State
    target: State
    level: Level
    forward: Kernel
    reverse: Kernel
    anchor: State | None = None
    context: Context = None

    @property
    def log_q(self) -> Tensor:
        """log q_{T_t}(s_t | s_{t-1}), `(B,)`, nats."""
        return self.forward.log_prob(self.target)

    @property
    def log_p(self) -> Tensor:
        """log p_{T_t}(s_{t-1} | s_t), `(B,)`, nats."""
        return self.reverse.log_prob(self.source)


def walk(
    operator: TransitionOperator,
    heating: Heating,
    start: Start,
    levels: Levels,
    generator: torch.Generator,
) -> Iterator[Transition]:
    """Heat s_0 of `start` through `levels`, running the network once per state (K + 1 times).

    The operator is called when the next transition is asked for: a caller who updates its weights between two steps
    (online learning) draws s_{t+1} from the output at s_t of just before the update.
    """
    source = origin = start.state
    anchor = origin if start.anchor is None else start.anchor
    context = start.context
    conditional = operator(origin, levels[0], context)
    for level in levels:
        forward = heating(conditional, source, level, origin)
        target = forward.sample(generator)
        conditional = operator(target, level, context)
        yield Transition(source, target, level, forward, conditional.cooling(level), anchor, context)
        source = target


def by_cooling(conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
    """p_T(· | s) in the place of q_T: a walk at one level is then a chain of the model."""
    return conditional.cooling(level)
