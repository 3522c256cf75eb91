"""The heating walk, one record a step.

    s_0 ~ data,   s_t ~ q_{T_t}(· | s_{t-1}),   t = 1 … K

Each step is yielded as a `Transition` that carries both kernels: q_{T_t}(· | s_{t-1}), which drew s_t, and
p_{T_t}(· | s_t), which is asked to walk back to s_{t-1}. States are detached: no gradient flows through the walk.

The network runs once per state, K + 1 times a walk. Its output at s_t serves both to score s_{t-1} at T_t and to draw
s_{t+1} at T_{t+1}; a network that looks at the level sees that of the state (t at s_t) in both roles, which leaves the
bound valid because it holds for any heating kernel. `reference_walk` runs it for every kernel anew, 2 K times, at
the level of the transition.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from walkback.kernels import Kernel
from walkback.operators import TransitionOperator
from walkback.processes import Process
from walkback.schedules import Level, Levels
from walkback.state import State


class Transition(NamedTuple):
    """Step t of a heating walk: s_{t-1} → s_t, and the two kernels that judge it.

    `anchor` is x, `(B, *E)`: what the walk's start is scattered around, an example of the data without the noise that
    s_0 was given. It is s_0 where no more is known, and None for a transition that belongs to no walk.
    """

    source: State
    target: State
    level: Level
    forward: Kernel
    reverse: Kernel
    anchor: State | None = None

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
    process: Process,
    origin: State,
    levels: Levels,
    generator: torch.Generator,
    anchor: State | None = None,
) -> Iterator[Transition]:
    """Heat `origin` s_0 `(B, *E)` through `levels`, running the network once per state (K + 1 times).

    The operator is called when the next transition is asked for: a caller who updates its weights between two steps
    (online learning) draws s_{t+1} from the output at s_t of just before the update. `anchor` x `(B, *E)` goes with
    each transition; None stands for s_0.
    """
    source = origin
    anchor = origin if anchor is None else anchor
    conditional = operator(origin, levels[0])
    for level in levels:
        forward = process.heating(conditional, source, level, origin)
        target = forward.sample(generator)
        conditional = operator(target, level)
        yield Transition(source, target, level, forward, conditional.cooling(level), anchor)
        source = target


def reference_walk(
    operator: TransitionOperator, process: Process, origin: State, levels: Levels, generator: torch.Generator
) -> Iterator[Transition]:
    """The same walk with two forwards a step (2 K): heating and cooling see the level of the transition."""
    source = origin
    for level in levels:
        forward = process.heating(operator(source, level), source, level, origin)
        target = forward.sample(generator)
        reverse = operator(target, level).cooling(level)
        yield Transition(source, target, level, forward, reverse, origin)
        source = target
