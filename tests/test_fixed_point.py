"""The example of exact fixed points: closed form for Gaussian data, and what smoothing beyond σ buys for others."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """What the script defines."""
    return runpy.run_path(str(ROOT / "examples" / "fixed_point.py"))


def test_gaussian_data_are_kept_by_the_closed_form(example: dict[str, Any]) -> None:
    """m(s) = √(1 - σ²/u) s, in equilibrium, with the variance of the noise; the grid ends at 8 standard deviations."""
    grid, q_0 = example["GRID"], example["normal"](0.0, 0.6)
    mean, variance = example["settle"](q_0, 0.3, 3)
    inside = grid.abs() < 3 * 0.6
    torch.testing.assert_close(mean[inside], 0.75**0.5 * grid[inside], atol=1e-5, rtol=0)
    torch.testing.assert_close(variance[inside], torch.full_like(grid[inside], 0.09), atol=1e-5, rtol=0)
    found = example["chain"](mean, 0.09, q_0, torch.zeros_like(grid))
    assert found.distance < 1e-5
    assert abs(found.production) < 1e-8
    assert found.relaxation == pytest.approx(-1 / torch.log(torch.tensor(0.75**0.5)).item(), rel=1e-3)


def test_a_mixture_is_not_kept_by_steps_as_large_as_its_smoothing_and_is_by_smaller_ones(
    example: dict[str, Any],
) -> None:
    weights, productions = [], []
    for sigma in (0.3, 0.15):
        q_0, narrow = example["smoothed"](0.3)
        mean, _ = example["settle"](q_0, sigma, 0)
        found = example["chain"](mean, sigma**2, q_0, narrow)
        weights.append(found.weight - 0.3)
        productions.append(found.production)
    assert weights[0] > 0.02
    assert 0 <= weights[1] < 0.1 * weights[0]
    assert productions[0] > 50 * productions[1] > 0


def test_longer_walks_are_less_biased_towards_the_narrow_mode(example: dict[str, Any]) -> None:
    q_0, narrow = example["smoothed"](0.3)
    found = [
        example["chain"](example["settle"](q_0, 0.3, n1)[0], 0.09, q_0, narrow).weight for n1 in (0, 8, 24)
    ]
    assert found[0] > found[1] > found[2] > 0.3


def test_the_narrow_mode_has_its_weight_in_the_data(example: dict[str, Any]) -> None:
    q_0, narrow = example["smoothed"](0.3)
    assert (q_0.sum() * example["STEP"]).item() == pytest.approx(1)
    assert ((q_0 * narrow).sum() * example["STEP"]).item() == pytest.approx(0.3, abs=1e-6)


def test_the_conditional_rule_makes_gaussian_data_as_narrow_as_its_equation_says(
    example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One Gaussian mode: m(s) = α s of walkback_paper/conditional.py."""
    deviation, nu, sigma, n1 = 0.6, 0.3, 0.1, 4
    for name, mode in (("NARROW", (0.0, 0.0, 1.0)), ("BROAD", (1.0, 0.0, deviation))):
        monkeypatch.setitem(example["settle"].__globals__, name, mode)
    grid, u, w = example["GRID"], deviation**2, sigma**2
    mean, _ = example["settle_conditional"](example["smoothed"](nu)[0], sigma, nu, n1)
    share, slope = math.sqrt(1 - w / nu**2), 0.99
    for _ in range(500):
        cross, square, crosses, squares = u, u + nu**2, 0.0, 0.0
        for t in range(n1 + 1):
            cross, square = slope * cross, slope**2 * square + w
            crosses, squares = crosses + (n1 + 1 - t) * cross, squares + (n1 + 1 - t) * square
        slope = share + (1 - share) * crosses / squares
    inside = grid.abs() < 3 * deviation
    torch.testing.assert_close(mean[inside], slope * grid[inside], atol=1e-5, rtol=0)


def test_the_conditional_rule_takes_from_the_narrow_mode_and_less_with_small_steps(
    example: dict[str, Any],
) -> None:
    q_0, narrow = example["smoothed"](0.3)
    weights = []
    for sigma in (0.15, 0.05):
        mean, _ = example["settle_conditional"](q_0, sigma, 0.3, 4)
        weights.append(example["chain"](mean, sigma**2, q_0, narrow).weight)
    assert weights[0] < 0.285
    assert 0.297 < weights[1] < 0.3
