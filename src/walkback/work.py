"""Work of single paths, level by level, in both directions.

    heating   s_0 given,  s_t ~ q_{T_t}(· | s_{t-1})         cooling   s_K ~ p*,  s_{t-1} ~ p_{T_t}(· | s_t)

    Δ_t = log q_{T_t}(s_t | s_{t-1}) - log p_{T_t}(s_{t-1} | s_t)                     entropy production of step t
    W   = Σ_t Δ_t - log p*(s_K)                                                       work of the path

The same W is computed for paths of both kinds. With p(s_0) the density that cooling has at s_0,

    E[exp(-W) | s_0] = p(s_0)        over heating paths (Jarzynski; eq. 10 of the paper)
    E[exp(+W) | s_0] = 1 / p(s_0)    over cooling paths that end in s_0

so -E[W] bounds log p(s_0) from below in heating (eq. 5) and from above in cooling. Where an operator has latent units,
log q(h_0 | data) is added to W of heating from data; a cooled s_0 is a whole state, (data, h_0), and nothing is added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.model import Model
from walkback.operators import initial_state
from walkback.processes import require_stepwise
from walkback.schedules import Levels
from walkback.state import Context, State, leaves, spaces
from walkback.walk import Start

_TIES = 4
"""Entries of one batch at the very same extreme value that a continuous kernel does not give."""


@dataclass(frozen=True, slots=True)
class PathWork:
    """One path from each of B states s_0, in nats.

    Attributes:
        production: Δ_t, `(B, K)`, coldest level first.
        boundary: -log p*(s_K), plus log q(h_0 | data) where there are latent units: `(B,)`.
    """

    production: Tensor
    boundary: Tensor

    @property
    def work(self) -> Tensor:
        """W, `(B,)`, nats."""
        return self.production.sum(1) + self.boundary


@torch.no_grad()
def heating_work(
    model: Model, data: Tensor, levels: Levels, generator: torch.Generator, context: Context = None
) -> PathWork:
    """Heat each row of `data` `(B, *E)` once; with `context`, bounds and averages are of log p(s_0 | context).

    Raises:
        ConfigurationError: The process does not tell its single steps.
        WalkbackError: States are clipped, so that their density is not what the kernel says.
    """
    state, log_latent = initial_state(model.operator, data, generator)
    return _heat(model, Start(state, context=context), levels, generator, log_latent)


@torch.no_grad()
def reheating_work(
    model: Model, state: State, levels: Levels, generator: torch.Generator, context: Context = None
) -> PathWork:
    """Heat whole states s_0 `(B, *E)`, latent parts included, e.g. those that `cooling_work` ended in."""
    none = leaves(state)[0].new_zeros(len(leaves(state)[0]))
    return _heat(model, Start(state, context=context), levels, generator, none)


@torch.no_grad()
def cooling_work(
    model: Model, num: int, levels: Levels, generator: torch.Generator, context: Context = None
) -> tuple[State, PathWork]:
    """Cool `num` states from the prior: where they end, s_0 `(num, *E)`, and the work of the same paths.

    Holds all K + 1 states at once, because a process may ask where the path ends.

    Raises:
        ConfigurationError: The process does not tell its single steps.
        WalkbackError: States are clipped.
    """
    process = require_stepwise(model.process, "the work of a path")
    state = model.prior.sample(num, generator)
    boundary = -model.prior.log_prob(state)
    states, conditionals, ways_back, clipping = [state], [], [], ClippingCheck(model)
    for level in reversed(levels):
        conditional = model.operator(state, level, context)
        kernel = conditional.cooling(level)
        target = kernel.sample(generator)
        clipping.look(target)
        ways_back.append(kernel.log_prob(target))
        conditionals.append(conditional)
        states.append(target)
        state = target
    clipping.require()
    # From the end of the path: s_0 and its output, s_1 and its, …
    states.reverse()
    outputs = [model.operator(state, levels[0], context), *reversed(conditionals)]
    production = []
    for number, level in enumerate(levels):
        kernel = process.heating(outputs[number], states[number], level, state)
        production.append(kernel.log_prob(states[number + 1]) - ways_back[len(levels) - 1 - number])
    return state, PathWork(torch.stack(production, 1), boundary)


def _heat(
    model: Model, start: Start, levels: Levels, generator: torch.Generator, log_latent: Tensor
) -> PathWork:
    state, production, clipping = start.state, [], ClippingCheck(model)
    for transition in model.walk(start, levels, generator):
        state = transition.target
        clipping.look(state)
        production.append(transition.log_q - transition.log_p)
    clipping.require()
    return PathWork(torch.stack(production, 1), log_latent - model.prior.log_prob(state))


@final
class ClippingCheck:
    """Refuses sampled states that pile up at an extreme value, as clipping makes them.

    A clipped normal has atoms at the ends, its density says nothing of them, and a bound made of it is too high. States
    are looked at on their device; `require` alone waits for it, once a path and not at every step.

    Args:
        model: Whose states they are.
    """

    def __init__(self, model: Model) -> None:
        self._spaces = spaces(model.prior.space)
        self._piles: list[tuple[Tensor, int]] = []

    def look(self, state: State) -> None:
        """Look at states `(B, *E)`."""
        for leaf, space in zip(leaves(state), self._spaces, strict=True):
            if space.support != "real" or leaf.numel() < 2 * _TIES:
                continue
            low, high = leaf.amin(), leaf.amax()
            most = torch.maximum((leaf == low).sum(), (leaf == high).sum())
            piled = (most >= max(_TIES, leaf.numel() // 1000)) | (low == high)
            # Where they are not finite there is no pile: the work itself will not be finite.
            found = piled & low.isfinite() & high.isfinite()
            self._piles.append((torch.where(found, most, 0), leaf.numel()))

    def require(self) -> None:
        """Raise WalkbackError where states that were looked at are clipped, and forget them."""
        piles, self._piles = self._piles, []
        if not piles:
            return
        counts = torch.stack([most for most, _ in piles]).tolist()
        for most, (_, size) in zip(counts, piles, strict=True):
            if most:
                raise WalkbackError(
                    f"Got {most} of {size} entries of sampled states at the same extreme value, expected "
                    "different ones: the kernel clips its samples, and its density does not say so; leave them "
                    "unclipped to evaluate."
                )


def exponential_average(work: Tensor) -> Tensor:
    """-log mean exp(-W) over the last dimension, `(…, P)` → `(…)`, nats, in float64.

    Of P heating paths from s_0 it estimates -log p(s_0), from above by the finite P.
    """
    return math.log(work.shape[-1]) - (-work.double()).logsumexp(-1)


def effective_sample_size(work: Tensor) -> Tensor:
    """(Σ w)² / Σ w² of the weights w = exp(-W) over the last dimension, `(…, P)` → `(…)`, from 1 to P."""
    return (-work.double()).softmax(-1).square().sum(-1).reciprocal()
