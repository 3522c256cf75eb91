"""Autocorrelation, burn-in and relaxation of recorded chains, by arviz-stats, pymbar and deeptime.

Series are `(N, C)` or `(N, C, S)`: recorded steps, chains, statistics. Errors are jackknife errors that leave out one
chain at a time (`walkback.measuring.jackknife`):

    error² = (C - 1)/C Σ_c (x_{without c} - mean)²

The jackknife error of an autocorrelation time misses what all chains share, namely where the sum over lags is cut off.
The asymptotic error of a sum over a window of 5 τ/2 lags (Madras and Sokal 1988) is added in quadrature:

    error² = 2 (5 τ + 1) / (C N) τ²

Whether chains differ is tested by an analysis of variance of the means of four pieces of each chain (of ranks instead
of values), which are nearly independent if chains are many autocorrelation times long:

    F = between chains / residual ~ F(C - 1, 3 (C - 1))        t = mean change from first to second half / its error
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.measuring.jackknife import jackknife
from walkback.support.extras import require

_PIECES = 4
"""Number of pieces per chain whose means are compared within and between chains."""

_CANDIDATES = 50
"""Number of candidate ends of the burn-in."""


def require_libraries(*, timescales: bool) -> None:
    """Raises ConfigurationError if a library is missing, before any work is done."""
    require("arviz_stats", "eval")
    with _quiet():
        require("pymbar", "eval")
    if timescales:
        require("deeptime", "kinetics")


def effective_sample_size(series: Tensor) -> float:
    """Returns the effective sample size of the mean of all chains, `(N, C)`."""
    return float(_arviz().ess(series.T.double().numpy(), method="mean"))


def autocorrelation_time(series: Tensor) -> float:
    """Returns τ of `(N, C)` in recorded steps."""
    return series.numel() / effective_sample_size(series)


def least_time(num: int) -> float:
    """Returns the smallest autocorrelation time that arviz-stats reports for `num` values: 1 / log10(num)."""
    return 1 / math.log10(num)


def time_with_error(series: Tensor) -> tuple[float, float]:
    """Returns τ of `(N, C)` in recorded steps and its standard error; the module's docstring has the equations."""
    # The cut-off of the sum over lags is chosen from all chains together, so leaving out one hardly moves it, and the
    # jackknife alone is too small. The second term is the scatter of a sum over a window; they overlap, which is safe.
    time, jackknife = with_error(autocorrelation_time, series)
    return time, math.hypot(jackknife, time * math.sqrt(2 * (5 * time + 1) / series.numel()))


def p_of_mixed(series: Tensor) -> float:
    """Returns the p-value of mixed chains `(N, C)`: equal location and spread, between chains and along them."""
    size = len(series) // _PIECES * _PIECES
    rows = series[len(series) - size :].double()
    # Chains of one location may differ in spread: distances from the common median show that as a difference of means.
    found = [_p_of_means(_normal_scores(values)) for values in (rows, (rows - rows.median()).abs())]
    return min(1.0, 4 * min(map(min, found)))  # Bonferroni: two tests each of values and distances


def _normal_scores(series: Tensor) -> Tensor:
    """Transforms ranks to normal quantiles (Blom), ties averaged: means then have a variance for any distribution."""
    ranks = torch.from_numpy(stats.rankdata(series.numpy(), axis=None)).reshape(series.shape)
    scores: Tensor = torch.special.ndtri((ranks - 0.375) / (series.numel() + 0.25))
    return scores


def _p_of_means(scores: Tensor) -> tuple[float, float]:
    """Returns the p-values of equal chains and of equal halves."""
    chains = scores.shape[1]
    means = scores.reshape(_PIECES, -1, chains).mean(1)
    of_chains = means.mean(0)
    # The residual leaves out what all chains share at a time, so that a common drift does not hide differences between
    # chains; the drift has a test of its own.
    rest = means - of_chains - means.mean(1, keepdim=True) + means.mean()
    residual = float(rest.square().sum()) / ((_PIECES - 1) * (chains - 1))
    between = _PIECES * float(of_chains.var())
    change = means[_PIECES // 2 :].mean(0) - means[: _PIECES // 2].mean(0)
    spread = float(change.std()) / math.sqrt(chains)
    drift = abs(float(change.mean()))
    return (
        float(stats.f.sf(between / residual, chains - 1, (_PIECES - 1) * (chains - 1)))
        if residual
        else float(not between),
        2 * float(stats.t.sf(drift / spread, chains - 1)) if spread else float(not drift),
    )


def r_hat(series: Tensor) -> float:
    """Returns the rank-normalized split R-hat of `(N, C)`; infinite if every chain is stuck at a different place."""
    value = float(_arviz().rhat(series.T.double().numpy(), method="rank"))
    return math.inf if math.isnan(value) else value


def burn_in(series: Tensor) -> int:
    """Returns the recorded steps of `(N, C, S)` to discard: the largest over statistics, from the mean over chains.

    Chains share the relaxation while their fluctuations average out, so the mean shows it best.
    """
    with _quiet():
        timeseries: Any = require("pymbar.timeseries", "eval")
        means = series.double().mean(1).T.contiguous().numpy()
        stride = max(1, len(series) // _CANDIDATES)
        return max(int(timeseries.detect_equilibration(row, fast=True, nskip=stride)[0]) for row in means)


def implied_timescale(series: Tensor, lag: int) -> float:
    """Returns the slowest relaxation time of projections `(N, C, S)`, in recorded steps.

    Raises:
        WalkbackError: Nothing relaxes, or everything has relaxed after `lag`.
    """
    covariance: Any = require("deeptime.covariance", "kinetics")
    decomposition: Any = require("deeptime.decomposition", "kinetics")
    chains = [chain.contiguous().numpy() for chain in series.double().unbind(1)]
    # Subtract the mean: the constant function never relaxes and would be the slowest.
    moments = covariance.Covariance(lagtime=lag, compute_c0t=True, compute_ctt=True, remove_data_mean=True)
    joint = moments.fit(chains).fetch_model()
    largest = float(decomposition.VAMP().fit_from_covariances(joint).fetch_model().singular_values[0])
    if not 0 < largest < 1:
        raise WalkbackError(
            f"Got a largest singular value of {largest:.4g} at lag {lag}, expected one between 0 and 1: the chain "
            "does not relax in the steps recorded, or forgets everything within the lag; change --set steps=… or lag."
        )
    return -lag / math.log(largest)


def with_error(estimate: Callable[[Tensor], float], series: Tensor) -> tuple[float, float]:
    """Returns an estimate from chains `(N, C, …)` and its standard error."""
    (value,), (error,) = jackknife(
        lambda chains: (estimate(series[:, chains]),), series.shape[1], groups=None
    )
    return value, error


def _arviz() -> Any:
    return require("arviz_stats.base", "eval").array_stats


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the message about JAX that pymbar logs when it is imported."""
    logger = logging.getLogger("pymbar")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
