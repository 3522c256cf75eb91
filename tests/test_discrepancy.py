"""Maximum mean discrepancy against a double loop, and against its closed form for Gaussians."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.toy.statistics import LIMIT, normal, rng, z_score
from torch import Tensor

from walkback.errors import ConfigurationError, WalkbackError
from walkback.measuring.quality import mmd as discrepancy
from walkback.measuring.quality.mmd import mmd_squared


def by_double_loop(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """The V-statistic, term by term."""

    def mean_kernel(a: np.ndarray, b: np.ndarray) -> float:
        terms = [math.exp(-((p - q) ** 2).sum() / (2 * bandwidth**2)) for p in a for q in b]
        return math.fsum(terms) / len(terms)

    return mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)


@pytest.mark.parametrize("bandwidth", [0.3, 1.0, 10.0])
@pytest.mark.parametrize("shape", [(), (2,), (1, 3, 4)])
def test_it_is_the_double_loop(shape: tuple[int, ...], bandwidth: float) -> None:
    x, y = normal(7, *shape), 0.5 + 2 * normal(12, *shape, seed=1)
    expected = by_double_loop(x.reshape(7, -1).numpy(), y.reshape(12, -1).numpy(), bandwidth)
    assert mmd_squared(x, y, bandwidth) == pytest.approx(expected, abs=1e-14)
    assert mmd_squared(y, x, bandwidth) == pytest.approx(expected, abs=1e-14)


def test_blocks_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(23, 3), 1 + normal(17, 3, seed=1)
    whole = mmd_squared(x, y, 1.0)
    for block in (1, 40, 100):
        monkeypatch.setattr(discrepancy, "_BLOCK", block)
        assert mmd_squared(x, y, 1.0) == pytest.approx(whole, abs=1e-14)


def test_it_does_not_depend_on_where_the_samples_are() -> None:
    """A shift of both sets changes nothing; without centring, 1e6 would cost all digits in float32."""
    x, y = normal(20, 2), 0.3 + normal(30, 2, seed=1)
    assert mmd_squared(x + 1e6, y + 1e6, 0.5) == pytest.approx(mmd_squared(x, y, 0.5), abs=1e-8)
    assert mmd_squared(3 * x, 3 * y, 1.5) == pytest.approx(mmd_squared(x, y, 0.5), abs=1e-14)


def test_equal_sets_are_at_distance_zero_and_far_ones_at_their_own() -> None:
    x = normal(50, 2)
    assert mmd_squared(x, x[torch.randperm(50, generator=rng())], 0.7) == pytest.approx(0.0, abs=1e-15)
    # Single points: k = 1 within, 0 between.
    assert mmd_squared(torch.zeros(1, 2), torch.full((1, 2), 1e3), 1.0) == 2.0


def closed_form(
    means: tuple[Tensor, Tensor], variances: tuple[Tensor, Tensor], h: float, n: int, m: int
) -> float:
    """E[MMD²] of n and m samples of two diagonal Gaussians.

    E k(x, y) = Π_d h / √(h² + v + w) · exp(-Δ² / (2 (h² + v + w))); of the n² pairs (i, j) n are i = j, with k = 1.
    """

    def kernel(i: int, j: int) -> float:
        width = h**2 + variances[i] + variances[j]
        gap = (means[i] - means[j]).square()
        return float((h / width.sqrt() * (-gap / (2 * width)).exp()).prod())

    within = [1 / k + (1 - 1 / k) * kernel(i, i) for i, k in ((0, n), (1, m))]
    return sum(within) - 2 * kernel(0, 1)


@pytest.mark.parametrize("h", [0.4, 2.0])
def test_its_mean_on_gaussians_is_the_closed_form(h: float) -> None:
    """400 independent pairs of small sets: |z| < 4.5."""
    means = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([0.5, 0.7], dtype=torch.float64)
    variances = torch.tensor([1.0, 0.3], dtype=torch.float64), torch.tensor([0.5, 2.0], dtype=torch.float64)
    generator, n, m = rng(3), 12, 20

    def draw(which: int, num: int) -> Tensor:
        noise = torch.randn(num, 2, generator=generator, dtype=torch.float64)
        return means[which] + variances[which].sqrt() * noise

    values = torch.tensor([mmd_squared(draw(0, n), draw(1, m), h) for _ in range(400)])
    assert abs(z_score(values, closed_form(means, variances, h, n, m))) < LIMIT


def test_float32_samples_are_judged_in_float64() -> None:
    x, y = normal(30, 5).float(), normal(40, 5, seed=1).float()
    assert mmd_squared(x, y, 1.0) == mmd_squared(x.double(), y.double(), 1.0)


def test_ten_thousand_samples_need_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No block is larger than the limit: the largest tensor that exp sees is counted."""
    largest = 0
    original = Tensor.exp

    def counting(values: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, values.numel())
        return original(values)

    monkeypatch.setattr(Tensor, "exp", counting)
    mmd_squared(normal(5000, 1), normal(3000, 1, seed=1), 1.0)
    assert 0 < largest <= 2**21


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan, math.inf])
def test_impossible_bandwidths_are_refused(bandwidth: float) -> None:
    with pytest.raises(ConfigurationError, match=r"Got bandwidth .*, expected a positive finite number"):
        mmd_squared(normal(3, 2), normal(3, 2), bandwidth)


@pytest.mark.parametrize("shapes", [((3, 2), (3, 3)), ((0, 2), (3, 2)), ((3, 2), (0, 2)), ((), (3,))])
def test_sets_that_cannot_be_compared_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(WalkbackError, match="compare sets of one event shape"):
        mmd_squared(torch.zeros(shapes[0]), torch.zeros(shapes[1]), 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_samples_that_are_not_finite_are_refused(bad: float) -> None:
    x = normal(3, 2)
    x[1, 1] = bad
    with pytest.raises(WalkbackError, match="NaN or infinity"):
        mmd_squared(normal(4, 2), x, 1.0)
