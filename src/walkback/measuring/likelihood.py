"""The likelihood of examples from the work of heating paths.

With W_1 … W_P the works of P paths from one example (`walkback.measuring.work`), w_i = exp(-W_i):

    bound       1/P Σ W_i                     E = KL + NLL ≥ NLL                              (eq. 5)
    is_nll      -log 1/P Σ w_i                E ≥ NLL, falls towards it as P grows             (eq. 10; IWAE, AIS)
    capped_nll  -log 1/P (exp(-W_c) + Σ_{i<P} w_i),  W_c of a cooling path that ended in the example:  E ≤ NLL
    ess         (Σ w_i)² / Σ w_i²             how many paths carry the estimate, from 1 to P

`is_nll` is `work.exponential_average`, `ess` is `work.effective_sample_size`.

`capped_nll` (bidirectional Monte Carlo, Grosse et al. 2015) exists only for examples simulated from the model, whose
cooling path is an exact draw from the posterior of paths. Pareto's k measures how heavy the tail of the weights is;
above 0.7 the error of the estimate is not reliable (Vehtari et al. 2024).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from walkback.measuring.work import exponential_average
from walkback.support.extras import require

HEAVY_TAIL = 0.7
"""Pareto's k from which errors of importance sampling are not reliable."""

FEWEST_FOR_TAIL = 25
"""Number of paths below which no tail is fitted."""

_EQUAL = 1e-3
"""Difference of the largest log-weights, in nats, up to which they count as equal."""

_ROUNDING = 1e-6
"""The same, relative to the works, which are sums of many terms rounded to single precision."""

DOMINANT = 0.5
"""Share of the total weight from which a single path counts as dominating."""


def capped_nll(work: Tensor, cooling: Tensor) -> Tensor:
    """Return the lower end of the bracket `(N,)` from works `(N, P)` and cooling works `(N,)`.

    The cooling path takes the place of the last of the P paths, so both ends of the bracket average P weights.
    """
    return exponential_average(torch.cat([cooling[:, None], work[:, :-1]], 1))


def shares(work: Tensor) -> Tensor:
    """Return the normalized weights w_i / Σ w, `(N, P)`."""
    return (-work).softmax(1)


def is_variance(work: Tensor) -> Tensor:
    """Return the variance over paths of `exponential_average` for each example `(N,)`, nats², by the jackknife.

    (P - 1)/P Σ_i (x_{without i} - mean)² has an expectation of at least the variance with P - 1 paths (Efron and Stein
    1981), whatever the tail of the weights. The linearized variance would be below 1 however much the works differ.
    """
    paths = work.shape[1]
    if paths == 1:
        return work.new_zeros(len(work))
    largest = work.argmin(1, keepdim=True)
    # For the largest weight, compute 1 - share as the sum of the others: the difference would cancel to 0.
    share = shares(work).scatter(1, largest, 0.0)
    rest = (-work).scatter(1, largest, -math.inf).logsumexp(1, keepdim=True) - (-work).logsumexp(
        1, keepdim=True
    )
    left = torch.log1p(-share).scatter(1, largest, rest)
    return left.var(1, correction=0) * (paths - 1)


def path_variance(work: Tensor) -> Tensor:
    """Return the variance over paths of the mean work of each example `(N,)`, nats²; 0 with a single path."""
    return work.var(1) / work.shape[1] if work.shape[1] > 1 else work.new_zeros(len(work))


def by_paths(work: Tensor) -> dict[int, Tensor]:
    """Return `exponential_average` `(N,)` with 1, 2, 4, … P paths, averaged over disjoint groups of the P paths.

    For every example, its expectation decreases with the number of paths.
    """
    paths = work.shape[1]
    sizes = sorted({2**i for i in range(paths.bit_length()) if 2**i <= paths} | {paths})
    found = {}
    for size in sizes:
        groups = paths // size
        parts = work[:, : groups * size].reshape(-1, size)
        found[size] = exponential_average(parts).reshape(len(work), groups).mean(1)
    return found


def pareto_k(work: Tensor) -> Tensor:
    """Return Pareto's k of the weights of each example `(N,)`, by arviz-stats; NaN if the tail has equal weights.

    Args:
        work: Works `(N, P)` with P at least `FEWEST_FOR_TAIL`.

    Raises:
        ConfigurationError: arviz-stats is not installed.
    """
    stats = require("arviz_stats.base", "eval").array_stats
    rows = (-work).double().cpu()
    found = []
    for row, tail in zip(rows.numpy(), _has_tail(rows).tolist(), strict=True):
        try:
            found.append(float(stats.psislw(row)[1]) if tail else math.nan)
        except ValueError:  # "All tail values are the same"
            found.append(math.nan)
    return torch.tensor(found, dtype=torch.float64)


def _has_tail(log_weights: Tensor) -> Tensor:
    """Return whether the largest weights, to which a tail is fitted, differ: `(N, P)` → `(N,)`."""
    paths = log_weights.shape[1]
    # This is the size of the tail in Pareto-smoothed importance sampling. If its weights are equal up to rounding, k
    # would describe the rounding errors.
    size = math.ceil(min(0.2 * paths, 3 * math.sqrt(paths)))
    largest = log_weights.topk(size + 1, 1).values
    equal = (_ROUNDING * log_weights.abs().amax(1)).clamp(min=_EQUAL)
    return largest[:, 0] - largest[:, -1] > equal
