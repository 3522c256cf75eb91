"""Work of single paths, level by level, in both directions.

    heating   s_0 given,  s_t ~ q_{T_t}(· | s_{t-1})         cooling   s_K ~ p*,  s_{t-1} ~ p_{T_t}(· | s_t)

    Δ_t = log q_{T_t}(s_t | s_{t-1}) - log p_{T_t}(s_{t-1} | s_t)                     entropy production of step t
    W   = Σ_t Δ_t - log p*(s_K)                                                       work of the path

W is the same quantity for both kinds of path. With p(s_0) the density of cooling at s_0,

    E[exp(-W) | s_0] = p(s_0)        over heating paths (Jarzynski; eq. 10 of the paper)
    E[exp(+W) | s_0] = 1 / p(s_0)    over cooling paths that end in s_0

so -E[W] bounds log p(s_0) from below in heating (eq. 5) and from above in cooling. If the operator has latent units,
log q(h_0 | data) is added to W for heating from data. A cooled s_0 is a whole state (data, h_0), so nothing is added.

A process that is only `Bridged` draws q(s_1 … s_K | s_0) = q(s_K | s_0) Π_{t≥2} q(s_{t-1} | s_t, s_0) from the hot end:

    Δ_t = log q(s_{t-1} | s_t, s_0) - log p_{T_t}(s_{t-1} | s_t),   Δ_1 = -log p(s_0 | s_1)
    W   = Σ_t Δ_t + log q(s_K | s_0) - log p*(s_K)

For a process that is `Jumping`, each Δ_t can be replaced by its expectation KL(q(s_{t-1} | s_t, s_0) ‖ p). This keeps
E[W] and reduces its variance, but exp(-W) no longer averages to p(s_0): it serves the bound alone.
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
from walkback.processes import Bridged, Jumping, Stepwise, require_stepwise
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
        terms: The same path with exact terms, for processes that are `Jumping`.
    """

    production: Tensor
    boundary: Tensor
    terms: PathWork | None = None

    @property
    def work(self) -> Tensor:
        """W, `(B,)`, nats."""
        return self.production.sum(1) + self.boundary

    @property
    def bound(self) -> PathWork:
        """The work to take the mean of: with exact terms where they are known, else the work itself."""
        return self.terms or self


@torch.no_grad()
def heating_work(
    model: Model, data: Tensor, levels: Levels, generator: torch.Generator, context: Context = None
) -> PathWork:
    """Heat each row of `data` `(B, *E)` once. With `context`, bounds and averages refer to log p(s_0 | context).

    Raises:
        ConfigurationError: The process is neither `Stepwise` nor `Bridged`.
        WalkbackError: States are clipped, so the kernel does not describe their density.
    """
    state, log_latent = initial_state(model.operator, data, generator)
    return _work(model, Start(state, context=context), levels, generator, log_latent)


@torch.no_grad()
def reheating_work(
    model: Model, state: State, levels: Levels, generator: torch.Generator, context: Context = None
) -> PathWork:
    """Heat whole states s_0 `(B, *E)` including latent parts, e.g. the final states of `cooling_work`."""
    none = leaves(state)[0].new_zeros(len(leaves(state)[0]))
    return _work(model, Start(state, context=context), levels, generator, none)


@torch.no_grad()
def cooling_work(
    model: Model, num: int, levels: Levels, generator: torch.Generator, context: Context = None
) -> tuple[State, PathWork]:
    """Cool `num` states from the prior; return the final states s_0 `(num, *E)` and the work of the same paths.

    All K + 1 states are held in memory, because q may depend on s_0, which is known only at the end of the path.

    Raises:
        ConfigurationError: The process is neither `Stepwise` nor `Bridged`.
        WalkbackError: States are clipped.
    """
    process = _measurable(model)
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
    # Reorder from cold to hot: states[t] is s_t; outputs and ways_back begin with those at s_1.
    states.reverse()
    outputs, ways_back = conditionals[::-1], ways_back[::-1]
    if isinstance(process, Stepwise):
        # As in `walk`, the output at a state is that of its own level; s_0 gets that of the first level.
        sources = [model.operator(state, levels[0], context), *outputs]
        log_q = [
            process.heating(sources[number], states[number], level, state).log_prob(states[number + 1])
            for number, level in enumerate(levels)
        ]
    else:
        boundary = boundary + process.end(state, levels[-1], model.prior).log_prob(states[-1])
        log_q = [torch.zeros_like(boundary)] + [
            process.bridge(outputs[number], states[number + 1], level, state, levels[-1]).log_prob(
                states[number]
            )
            for number, level in enumerate(levels)
            if number
        ]
    production = [there - back for there, back in zip(log_q, ways_back, strict=True)]
    return state, PathWork(torch.stack(production, 1), boundary)


def _measurable(model: Model) -> Stepwise | Bridged:
    """Return the process of a model, whose paths have densities."""
    process = model.process
    return process if isinstance(process, Bridged) else require_stepwise(process, "the work of a path")


def _work(
    model: Model, start: Start, levels: Levels, generator: torch.Generator, log_latent: Tensor
) -> PathWork:
    """Draw one path from each row of `start`."""
    process = _measurable(model)
    if isinstance(process, Stepwise):
        return _heat(model, start, levels, generator, log_latent)
    return _bridge(model, process, start, levels, generator, log_latent)


def _heat(
    model: Model, start: Start, levels: Levels, generator: torch.Generator, log_latent: Tensor
) -> PathWork:
    """Draw a path step by step from its cold end."""
    process = model.process
    jumping = process if isinstance(process, Jumping) else None
    state, production, terms, clipping = start.state, [], [], ClippingCheck(model)
    for transition in model.walk(start, levels, generator):
        state = transition.target
        clipping.look(state)
        production.append(transition.log_q - transition.log_p)
        if jumping is not None:
            posterior = jumping.posterior(state, transition.level, start.state)
            terms.append(transition._replace(posterior=posterior).term)
    clipping.require()
    boundary = log_latent - model.prior.log_prob(state)
    exact = None
    known = [term for term in terms if term is not None]
    if jumping is not None and known:
        log_q = jumping.marginal(start.state, levels[-1]).log_prob(state)
        exact = PathWork(torch.stack(known, 1), boundary + log_q)
    return PathWork(torch.stack(production, 1), boundary, exact)


def _bridge(
    model: Model,
    process: Bridged,
    start: Start,
    levels: Levels,
    generator: torch.Generator,
    log_latent: Tensor,
) -> PathWork:
    """Draw a path from its hot end, given its cold end."""
    origin, production, clipping = start.state, [], ClippingCheck(model)
    end = process.end(origin, levels[-1], model.prior)
    target = end.sample(generator)
    boundary = log_latent + end.log_prob(target) - model.prior.log_prob(target)
    for level in levels[:0:-1]:
        clipping.look(target)
        conditional = model.operator(target, level, start.context)
        bridge = process.bridge(conditional, target, level, origin, levels[-1])
        source = bridge.sample(generator)
        production.append(bridge.log_prob(source) - conditional.cooling(level).log_prob(source))
        target = source
    clipping.look(target)
    clipping.require()
    last = model.operator(target, levels[0], start.context).cooling(levels[0])
    return PathWork(torch.stack([-last.log_prob(origin), *production[::-1]], 1), boundary)


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
