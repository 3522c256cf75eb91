"""Work of single paths, level by level, in both directions.

    heating   s_0 given,  s_t ~ q_{T_t}(· | s_{t-1})         cooling   s_K ~ p*,  s_{t-1} ~ p_{T_t}(· | s_t)

    Δ_t = log q_{T_t}(s_t | s_{t-1}) - log p_{T_t}(s_{t-1} | s_t)                     entropy production of step t
    W   = Σ_t Δ_t - log p*(s_K)                                                       work of the path

W is the same quantity for both kinds of path. With p(s_0) the density of cooling at s_0,

    E[exp(-W) | s_0] = p(s_0)        over heating paths (Jarzynski; eq. 10 of the paper)
    E[exp(+W) | s_0] = 1 / p(s_0)    over cooling paths that end in s_0

so -E[W] bounds log p(s_0) from below in heating (eq. 5) and from above in cooling. If the operator has latent units,
log q(h_0 | data) is added to W for heating from data. A cooled s_0 is a whole state (data, h_0), so nothing is added.
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
"""Number of entries of a batch at exactly the same extreme value that a continuous kernel does not produce."""


@dataclass(frozen=True, slots=True)
class PathWork:
    """One path from each of B states s_0, in nats.

    Attributes:
        production: Δ_t, `(B, K)`, coldest level first.
        boundary: -log p*(s_K), plus log q(h_0 | data) if there are latent units: `(B,)`.
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
    """Heat each row of `data` `(B, *E)` once. With `context`, bounds and averages refer to log p(s_0 | context).

    Raises:
        ConfigurationError: The process is not `Stepwise`.
        WalkbackError: States are clipped, so the kernel does not describe their density.
    """
    state, log_latent = initial_state(model.operator, data, generator)
    return _heat(model, Start(state, context=context), levels, generator, log_latent)


@torch.no_grad()
def reheating_work(
    model: Model, state: State, levels: Levels, generator: torch.Generator, context: Context = None
) -> PathWork:
    """Heat whole states s_0 `(B, *E)` including latent parts, e.g. the final states of `cooling_work`."""
    none = leaves(state)[0].new_zeros(len(leaves(state)[0]))
    return _heat(model, Start(state, context=context), levels, generator, none)


@torch.no_grad()
def cooling_work(
    model: Model, num: int, levels: Levels, generator: torch.Generator, context: Context = None
) -> tuple[State, PathWork]:
    """Cool `num` states from the prior; return the final states s_0 `(num, *E)` and the work of the same paths.

    All K + 1 states are held in memory, because q may depend on s_0, which is known only at the end of the path.

    Raises:
        ConfigurationError: The process is not `Stepwise`.
        WalkbackError: States are clipped.
    """
    process = require_stepwise(model.process, "the work of a path")
    # Cooling scores p while it draws. q is scored afterwards, with the outputs of the network that cooling computed and
    # one more at s_0: K + 1 runs of the network, as in heating.
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
    # Reorder from cold to hot: states[t] is s_t, outputs[t] is the operator at s_t. Output t was computed at the level
    # of the state (t at s_t), as in `walk`, and s_0 gets that of the first level.
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
    """Detects sampled states that pile up at an extreme value, which indicates clipping.

    A clipped normal has atoms at both ends that its density ignores, so a bound computed from it is too high. States
    are inspected on their device. Only `require` synchronizes with it, once per path instead of once per step.

    Args:
        model: The model that the states come from.
    """

    def __init__(self, model: Model) -> None:
        self._spaces = spaces(model.prior.space)
        self._piles: list[tuple[Tensor, int]] = []

    def look(self, state: State) -> None:
        """Inspect states `(B, *E)`."""
        for leaf, space in zip(leaves(state), self._spaces, strict=True):
            if space.support != "real" or leaf.numel() < 2 * _TIES:
                continue
            low, high = leaf.amin(), leaf.amax()
            most = torch.maximum((leaf == low).sum(), (leaf == high).sum())
            piled = (most >= max(_TIES, leaf.numel() // 1000)) | (low == high)
            # Non-finite values are not reported as clipping: the work is then not finite either, and is refused.
            found = piled & low.isfinite() & high.isfinite()
            self._piles.append((torch.where(found, most, 0), leaf.numel()))

    def require(self) -> None:
        """Raise WalkbackError if any inspected states are clipped, and forget the inspected states."""
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
    """Return -log mean exp(-W) over the last dimension, `(…, P)` → `(…)`, nats, in float64.

    For P heating paths from s_0 it estimates -log p(s_0), with an upward bias that vanishes as P grows.
    """
    return math.log(work.shape[-1]) - (-work.double()).logsumexp(-1)


def effective_sample_size(work: Tensor) -> Tensor:
    """Return (Σ w)² / Σ w² of the weights w = exp(-W) over the last dimension, `(…, P)` → `(…)`, from 1 to P."""
    return (-work.double()).softmax(-1).square().sum(-1).reciprocal()
