"""The bound from n of the K levels of each path, for processes that are `Jumping`.

    -log p(s_0 | s_1) + Σ_{j=1}^{n-1} KL_t / (n - 1) P(t) + log q(s_K | s_0) - log p*(s_K),      t = t_j

    KL_t = KL(q(s_{t-1} | s_t, s_0) ‖ p(s_{t-1} | s_t))  at  s_t ~ q(s_t | s_0)
    t_j  = 2 + ⌊(K - 1) x²⌋,   x ~ U[(j - 1)/(n - 1), j/(n - 1)),   P(t) = (√(t - 1) - √(t - 2)) / √(K - 1)

The network runs n times a path instead of K, and the expectation is the bound. The first level, which decodes s_0 and
has the largest term, is always visited; of the others, cold ones are visited more often, since terms fall with t.
"""

from __future__ import annotations

import torch
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.levels import rows_of, stack_levels
from walkback.measuring.work import ClippingCheck, PathWork
from walkback.model import Model
from walkback.operators import Conditional, initial_state
from walkback.processes import Jumping
from walkback.schedules import Level, Levels
from walkback.state import Context, batch_size, device_of
from walkback.walk import Start, bound_term


def require_some_levels(model: Model, levels: Levels, number: int) -> Jumping:
    """Return the process; raise ConfigurationError unless bounds can be estimated from `number` levels of a path."""
    process = model.process
    if not isinstance(process, Jumping):
        raise ConfigurationError(
            f"Got the process {type(process).__name__}, which cannot jump to a level: evaluate whole paths."
        )
    if not 2 <= number < len(levels):
        raise ConfigurationError(
            f"Got {number} of the {len(levels)} levels of each path, expected at least 2 and fewer than all."
        )
    return process


@torch.no_grad()
def bound_of_some_levels(
    model: Model,
    data: Tensor,
    levels: Levels,
    number: int,
    generator: torch.Generator,
    context: Context = None,
) -> PathWork:
    """Return an unbiased estimate of the terms of the bound for each row of `data` `(B, *E)`.

    The terms of levels that are not visited are 0. exp(-W) does not average to p(s_0).

    Args:
        model: A model whose process is `Jumping`.
        data: Examples.
        levels: T_1 … T_K.
        number: n, runs of the network for each row.
        generator: The only source of randomness.
        context: What the rows are conditioned on.

    Raises:
        ConfigurationError: See `require_some_levels`.
        WalkbackError: States are clipped.
    """
    process = require_some_levels(model, levels, number)
    state, boundary = initial_state(model.operator, data, generator)
    start, clipping = Start(state, context=context), ClippingCheck(model)
    production = boundary.new_zeros(batch_size(state), len(levels))
    production[:, 0] = _term(model, process, start, levels[0], generator, clipping)
    table = stack_levels(levels, 1, device_of(state))
    for stratum in range(number - 1):
        index, weight = _drawn(stratum, number - 1, len(levels) - 1, batch_size(state), generator)
        term = _term(model, process, start, rows_of(table, index), generator, clipping)
        production.scatter_add_(1, index[:, None], (weight.to(term) * term)[:, None])
    clipping.require()
    end = process.marginal(state, levels[-1])
    last = end.sample(generator)
    boundary = boundary + end.log_prob(last) - model.prior.log_prob(last)
    return PathWork(production, boundary)


def _drawn(
    stratum: int, strata: int, others: int, rows: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a level above the first for each row; return its place in `levels`, and 1 / (n - 1) P(t), `(rows,)`."""
    uniform = torch.rand(rows, generator=generator, device=generator.device, dtype=torch.float64)
    place = (others * ((stratum + uniform) / strata).square()).long().clamp(max=others - 1)
    share = ((place + 1).double().sqrt() - place.double().sqrt()) / others**0.5
    return place + 1, 1 / (strata * share)


def _term(
    model: Model,
    process: Jumping,
    start: Start,
    level: Level,
    generator: torch.Generator,
    clipping: ClippingCheck,
) -> Tensor:
    """Draw s_t of rows at a level, all at the first or all above it, and return their terms, `(B,)`."""
    target = process.marginal(start.state, level).sample(generator)
    clipping.look(target)
    conditional: Conditional = model.operator(target, level, start.context)
    reverse = conditional.cooling(level)
    posterior = process.posterior(target, level, start.state)
    source = posterior.sample(generator) if isinstance(level.elapsed, Tensor) else start.state
    return bound_term(posterior, reverse, source, level)
