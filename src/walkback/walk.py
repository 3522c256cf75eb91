"""The heating walk, one record per step.

    s_0 ~ data,   s_t ~ q_{T_t}(· | s_{t-1}),   t = 1 … K

Each step is yielded as a `Transition` that holds both kernels: q_{T_t}(· | s_{t-1}), which drew s_t, and
p_{T_t}(· | s_t), which scores the way back to s_{t-1}. States are detached: no gradient flows through the walk.

The network runs once per state, K + 1 times per walk. Its output at s_t is used to score s_{t-1} at T_t and to draw
s_{t+1} at T_{t+1}. A network that depends on the level gets that of the state (t at s_t) in both roles. The bound stays
valid because it holds for any heating kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from walkback.kernels import Kernel, divergence
from walkback.noising import Noise
from walkback.operators import Conditional, TransitionOperator
from walkback.priors import Prior
from walkback.schedules import Level, Levels
from walkback.state import Context, State
from walkback.support.shapes import require_like

Heating: TypeAlias = Callable[[Conditional, State, Level, State], Kernel]
"""The operator at s_{t-1}, s_{t-1}, level t, s_0 → q_{T_t}(· | s_{t-1})."""


@dataclass(frozen=True, slots=True)
class Start:
    """Starting point of paths.

    Attributes:
        state: s_0, `(B, *E)`.
        anchor: x, `(B, *E)`: the example that s_0 was made from by adding noise, without that noise; None means s_0.
        context: What the rows are conditioned on, `(B, …)`; None if unconditional.
        prior: p*, for paths that begin at the hot end; None if there is no prior.
    """

    state: State
    anchor: State | None = None
    context: Context = None
    prior: Prior | None = None


class Transition(NamedTuple):
    """Step t between a colder state s_{t-1} and a hotter state s_t, with the two kernels that score it.

    `anchor` and `context` come from the `Start`. The anchor is s_0 if the start has none, and None for a transition
    that is not part of a walk. `posterior` is q(s_{t-1} | s_t, s_0), where the process knows it: the source is a sample
    of it. It has no density in rows at the first level. `noise` has the closed forms that it follows from.
    """

    source: State
    target: State
    level: Level
    forward: Kernel
    reverse: Kernel
    anchor: State | None = None
    context: Context = None
    posterior: Kernel | None = None
    noise: Noise | None = None

    @property
    def log_q(self) -> Tensor:
        """log q_{T_t}(s_t | s_{t-1}), `(B,)`, nats."""
        return self.forward.log_prob(self.target)

    @property
    def log_p(self) -> Tensor:
        """log p_{T_t}(s_{t-1} | s_t), `(B,)`, nats."""
        return self.reverse.log_prob(self.source)

    @property
    def term(self) -> Tensor | None:
        """The term of this step in the bound, `(B,)`, nats; None if the posterior is not known.

        KL(q(s_{t-1} | s_t, s_0) ‖ p_{T_t}(s_{t-1} | s_t)), or the difference of logarithms at the source where it has
        no closed form; -log p(s_0 | s_1) at the first level. The terms of a path and KL(q(s_K | s_0) ‖ p*) sum to -L
        (eq. 5) on average, with a smaller variance than log q - log p.
        """
        if self.posterior is None:
            return None
        return bound_term(self.posterior, self.reverse, self.source, self.level)


def bound_term(posterior: Kernel, reverse: Kernel, source: State, level: Level) -> Tensor:
    """Return the term of a step in the bound, `(B,)`, nats; see `Transition.term`.

    Args:
        posterior: q(s_{t-1} | s_t, s_0).
        reverse: p_{T_t}(· | s_t).
        source: s_{t-1}, `(B, *E)`: s_0 in rows at the first level; not used above it where the divergence is known.
        level: Level t.
    """
    elapsed = level.elapsed
    if not isinstance(elapsed, Tensor) and elapsed == 0:
        return -reverse.log_prob(source)
    exact = divergence(posterior, reverse)
    if not isinstance(elapsed, Tensor):
        return posterior.log_prob(source) - reverse.log_prob(source) if exact is None else exact
    log_p = reverse.log_prob(source)
    if exact is None:
        exact = posterior.log_prob(source) - log_p
    return torch.where(elapsed == 0, -log_p, exact)


def walk(
    operator: TransitionOperator,
    heating: Heating,
    start: Start,
    levels: Levels,
    generator: torch.Generator,
) -> Iterator[Transition]:
    """Heat s_0 of `start` through `levels`, running the network once per state (K + 1 times).

    The operator is called lazily, when the next transition is requested. If a caller updates the weights between two
    steps (online learning), s_{t+1} is drawn from the output at s_t that was computed before the update.

    Raises:
        WalkbackError: A kernel draws states of another shape or dtype.
    """
    source = origin = start.state
    anchor = origin if start.anchor is None else start.anchor
    context = start.context
    conditional = operator(origin, levels[0], context)
    for level in levels:
        forward = heating(conditional, source, level, origin)
        # `sample` detaches, so the graph of `log_p` contains a single run of the network.
        target = forward.sample(generator)
        require_like(target, source, forward, getattr(heating, "__self__", None), conditional, operator)
        conditional = operator(target, level, context)
        yield Transition(source, target, level, forward, conditional.cooling(level), anchor, context)
        source = target


def by_cooling(conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
    """Return p_T(· | s) in place of q_T, which turns a walk at one level into a chain of the model."""
    return conditional.cooling(level)
