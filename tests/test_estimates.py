"""Medians of times: errors and intervals against repetition and against the binomial law."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binom
from tests.toy.statistics import rng

from walkback.measuring.estimates import median_figure


def test_the_median_and_its_scale() -> None:
    figure = median_figure("a", [3.0, 1.0, 100.0, 2.0, 2.5], "s", "what", scale=10.0)
    assert (figure.name, figure.value, figure.unit, figure.meaning) == ("a", 25.0, "s", "what")


def test_one_long_time_moves_neither_the_median_nor_its_error() -> None:
    times = [1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 0.98]
    calm, disturbed = median_figure("a", times, "s"), median_figure("a", [*times[:1], 50.0, *times[2:]], "s")
    assert disturbed.value == pytest.approx(calm.value, rel=0.03)
    assert disturbed.error == pytest.approx(calm.error, rel=1.0)


def test_the_error_is_that_of_repetitions() -> None:
    """4,000 medians of 25 standard normal values: their deviation is the mean error, to 10 %."""
    samples = torch.randn(4000, 25, generator=rng(), dtype=torch.float64)
    figures = [median_figure("a", row.tolist(), "s") for row in samples]
    medians = torch.tensor([figure.value for figure in figures])
    errors = torch.tensor([figure.error for figure in figures])
    assert errors.mean() == pytest.approx(medians.std().item(), rel=0.1)


@pytest.mark.parametrize("num", [6, 9, 10, 25, 60])
def test_the_interval_is_the_narrowest_that_holds_95_percent(num: int) -> None:
    """[x_(k), x_(n+1-k)] holds the median unless fewer than k values, or more than n - k, are below it."""
    figure = median_figure("a", [float(value) for value in range(1, num + 1)], "s")
    assert figure.interval is not None
    low, high = figure.interval
    assert low + high == num + 1
    assert 1 - 2 * binom.cdf(low - 1, num, 0.5) >= 0.95
    assert 1 - 2 * binom.cdf(low, num, 0.5) < 0.95


def test_few_values_have_no_error_and_no_interval() -> None:
    assert median_figure("a", [1.0, 2.0, 4.0], "s").error is None
    four = median_figure("a", [1.0, 2.0, 3.0, 4.0], "s")
    assert four.error == pytest.approx(math.sqrt(math.pi / 8) * 1.4826)
    assert four.interval is None
    assert median_figure("a", [1.0, 2.0, 3.0, 4.0, 5.0], "s").interval is None
