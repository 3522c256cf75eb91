"""Autocorrelation, burn-in and relaxation of recorded chains, by arviz-stats, pymbar and deeptime.

Series are `(N, C)` or `(N, C, S)`: recorded steps, chains, statistics. Errors are from leaving out one chain at a time
(jackknife):

    error² = (C - 1)/C Σ_c (x_{without c} - mean)²
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.support.extras import require

_CANDIDATES = 50
"""Ends of the burn-in that are tried."""


def require_libraries(*, timescales: bool) -> None:
    """Raises ConfigurationError where a library is missing, before any work."""
    require("arviz_stats", "eval")
    with _quiet():
        require("pymbar", "eval")
    if timescales:
        require("deeptime", "kinetics")


def effective_sample_size(series: Tensor) -> float:
    """Of the mean of all chains, `(N, C)`."""
    return float(_arviz().ess(series.T.double().numpy(), method="mean"))


def autocorrelation_time(series: Tensor) -> float:
    """τ in recorded steps, of `(N, C)`."""
    return series.numel() / effective_sample_size(series)


def r_hat(series: Tensor) -> float:
    """Rank-normalized split R-hat of `(N, C)`; infinite where every chain stands still at its own place."""
    value = float(_arviz().rhat(series.T.double().numpy(), method="rank"))
    return math.inf if math.isnan(value) else value


def burn_in(series: Tensor) -> int:
    """Recorded steps to leave out, of `(N, C, S)`: the largest over statistics, from the mean over chains.

    What chains relax from they share, and their fluctuations average out: the mean shows it best.
    """
    with _quiet():
        timeseries: Any = require("pymbar.timeseries", "eval")
        means = series.double().mean(1).T.contiguous().numpy()
        stride = max(1, len(series) // _CANDIDATES)
        return max(int(timeseries.detect_equilibration(row, fast=True, nskip=stride)[0]) for row in means)


def implied_timescale(series: Tensor, lag: int) -> float:
    """The slowest relaxation time in recorded steps, of projections `(N, C, S)`.

    Raises:
        WalkbackError: Nothing relaxes, or everything has after `lag`.
    """
    covariance: Any = require("deeptime.covariance", "kinetics")
    decomposition: Any = require("deeptime.decomposition", "kinetics")
    chains = [chain.contiguous().numpy() for chain in series.double().unbind(1)]
    # Around the mean: the constant function relaxes never.
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
    """An estimate from chains `(N, C, …)` and its standard error."""
    chains = series.shape[1]
    keep = ~torch.eye(chains, dtype=torch.bool)
    without = torch.tensor([estimate(series[:, row]) for row in keep], dtype=torch.float64)
    spread = (without - without.mean()).square().sum() * (chains - 1) / chains
    return estimate(series), float(spread.sqrt())


def _arviz() -> Any:
    return require("arviz_stats.base", "eval").array_stats


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advertisement for JAX that pymbar logs when it is imported."""
    logger = logging.getLogger("pymbar")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
