"""Mixing of chains that are short, stuck, antithetic or that relax: verdicts and errors follow what chains can tell.

Coverage is counted: a right program fails a count with the probability stated (fixed seeds).
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binom
from tests.test_mixing import autoregressive
from tests.toy.statistics import normal
from torch import Tensor

from walkback.report import Figure, number
from walkback_diagnostics.correlation import p_of_mixed, r_hat
from walkback_diagnostics.mixing_report import figures_of_statistics


def judged(series: Tensor, every: int = 1) -> tuple[dict[str, Figure], list[str]]:
    """Figures by name and warnings of one statistic `(N, C)`."""
    figures, _, warnings = figures_of_statistics(series[..., None], ("axis_1",), every)
    return {figure.name: figure for figure in figures}, warnings


def unmixed(warnings: list[str]) -> bool:
    return any("have not mixed" in warning for warning in warnings)


def test_mixed_chains_are_not_called_unmixed_though_r_hat_is_above_its_limit() -> None:
    """AR(0.9), 20 chains of 1,000 steps: R-hat is 1.018 on the average; p < 1e-3 in 2 of 30 has chance 5e-4."""
    hats, verdicts = [], []
    for seed in range(30):
        figures, warnings = judged(autoregressive(0.9, 1000, 20, seed))
        hats.append(figures["r_hat"].value)
        verdicts.append(unmixed(warnings))
    assert sum(hats) / 30 > 1.01
    assert sum(verdicts) < 2


@pytest.mark.parametrize(("steps", "chains"), [(300, 4), (300, 20), (60, 20)])
def test_p_values_of_mixed_chains_are_not_small_too_often(steps: int, chains: int) -> None:
    """AR(0.5), so 100 and 20 autocorrelation times: below 0.1 in at most what 15 % would have but for 1e-5."""
    p = [p_of_mixed(autoregressive(0.5, steps, chains, seed)) for seed in range(200)]
    assert sum(value < 0.1 for value in p) <= binom.ppf(1 - 1e-5, 200, 0.15)
    assert min(p) > 1e-6


@pytest.mark.parametrize("chains", [4, 20])
def test_stuck_chains_have_a_bound_and_no_error(chains: int) -> None:
    """Each around a place of its own, R-hat above 4: the time that they were run for is all that they tell."""
    series = autoregressive(0.5, 200, chains) / 8 + normal(chains, seed=3)
    assert r_hat(series) > 2
    figures, warnings = judged(series)
    time, size = figures["autocorrelation_time"], figures["effective_sample_size"]
    assert (time.side, time.error, time.interval) == ("below", None, None)
    assert number(time).startswith("≥ ")
    assert (size.side, size.error) == ("above", None)
    assert unmixed(warnings)
    assert figures["mixed_p"].value < 1e-3


def test_one_stuck_chain_among_many_is_seen() -> None:
    series = autoregressive(0.5, 400, 20)
    series[:, 0] = 0.25
    figures, warnings = judged(series + 1e-9 * normal(400, 20, seed=9))
    assert figures["r_hat"].value > 1.0
    series[:, 0] = 2.5
    figures, warnings = judged(series)
    assert unmixed(warnings)


def test_chains_that_differ_in_spread_only_have_not_mixed() -> None:
    series = autoregressive(0.5, 400, 20)
    series[:, :4] *= 0.2
    assert unmixed(judged(series)[1])


def test_chains_that_drift_together_have_not_mixed() -> None:
    series = autoregressive(0.5, 400, 20) + torch.linspace(0, 1, 400, dtype=torch.float64)[:, None]
    figures, warnings = judged(series)
    assert unmixed(warnings)
    # What they share is not taken for memory: the bound is below the time of their fluctuations, to chance.
    assert figures["autocorrelation_time"].value < 1.3 * 3.0


@pytest.mark.parametrize("a", [-0.9, -0.99])
def test_antithetic_chains_have_an_upper_bound(a: float) -> None:
    """τ = (1 + a) / (1 - a) is below the least that is estimated, 1 / log10 of the number of values."""
    figures, _ = judged(autoregressive(a, 1000, 10))
    time, size = figures["autocorrelation_time"], figures["effective_sample_size"]
    assert (time.side, time.error) == ("above", None)
    assert (1 + a) / (1 - a) < time.value
    assert size.side == "below"
    assert size.value < 10_000 * (1 - a) / (1 + a)


@pytest.mark.parametrize(
    ("a", "steps", "chains"), [(0.9, 400, 20), (0.9, 1000, 4), (0.5, 100, 4), (0.0, 100, 10)]
)
def test_intervals_of_autocorrelation_times_hold_the_truth(a: float, steps: int, chains: int) -> None:
    """Of 50 sets of chains 20 to 100 times as long, as many as of 95 % intervals but for 1e-5; bounds count as all."""
    truth, held, given = (1 + a) / (1 - a), 0, 0
    for seed in range(50):
        time = judged(autoregressive(a, steps, chains, seed))[0]["autocorrelation_time"]
        given += time.interval is not None
        low, high = time.interval or (0.0, math.inf)
        held += low <= truth <= high
    assert held >= binom.ppf(1e-5, 50, 0.95)
    assert given > 25


def test_chains_shorter_than_ten_times_have_a_lower_bound() -> None:
    """AR(0.99), τ = 199, 400 steps: bounds of 97.5 % are above it at most as often, but for 1e-5, and not useless."""
    values = []
    for seed in range(40):
        time = judged(autoregressive(0.99, 400, 20, seed))[0]["autocorrelation_time"]
        assert (time.side, time.error) == ("below", None)
        values.append(time.value)
    assert sum(value > 199 for value in values) <= binom.ppf(1 - 1e-5, 40, 0.025)
    assert min(values) > 10


def test_a_rate_that_was_never_seen_is_an_interval() -> None:
    from walkback_diagnostics.mixing_report import figures_of_classes

    figure = figures_of_classes(torch.zeros(101, 5, dtype=torch.long), 2, 3)[0][0]
    assert (figure.value, figure.error) == (0.0, None)
    low, high = figure.interval or (1.0, 1.0)
    # 1,500 steps without a switch are as rare as 2.5 % at that rate.
    assert low == 0
    assert math.exp(-1500 * high) == pytest.approx(0.025)
    assert " to " in number(figure)
