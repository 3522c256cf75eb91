"""Importance sampling and the bracket, on walks whose likelihood is known; coverage of the intervals.

Random checks: |z| below `LIMIT` (6.8e-6 each for a correct program); the coverage of 200 intervals is binomial, and
95 % intervals leave [0.90, 0.98] of them with probability 1e-2 by chance (the seed is fixed).
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from tests.toy.exact import LinearGaussian
from tests.toy.statistics import LIMIT, normal, rng, z_score
from torch import Tensor

from walkback.data import DataInfo
from walkback.measuring.likelihood import (
    by_paths,
    capped_nll,
    is_variance,
    pareto_k,
    path_variance,
)
from walkback.measuring.likelihood_report import (
    bracket_figures,
    likelihood_figures,
    tail_figures,
    warnings_of,
)
from walkback.measuring.path_works import HeatedExamples
from walkback.measuring.work import (
    cooling_work,
    effective_sample_size,
    exponential_average,
    heating_work,
    reheating_work,
)

WALK = LinearGaussian(a=[0.9, 0.6, 0.3], q=[0.3, 0.6, 1.0], b=[0.8, 0.7, 0.2], r=[0.4, 0.5, 1.1], w=1.2)
LEVELS = WALK.model.levels()
LOOSE = LinearGaussian(a=WALK.a, q=WALK.q, b=WALK.b, r=[0.9, 1.2, 2.2], w=1.2)
"""Cools with more noise than the heating asks for: the bound loses 0.35 nats."""
INFO = DataInfo("points", (1,))


def works(data: Tensor, paths: int, seed: int = 0, walk: LinearGaussian = WALK) -> Tensor:
    """`(N, P)`."""
    repeated = data.repeat_interleave(paths, 0)
    return heating_work(walk.model, repeated, LEVELS, rng(seed)).work.reshape(len(data), paths)


def test_equal_works_leave_nothing_to_estimate() -> None:
    work = torch.full((3, 8), 2.5, dtype=torch.float64)
    assert torch.allclose(exponential_average(work), torch.full((3,), 2.5, dtype=torch.float64))
    assert torch.allclose(effective_sample_size(work), torch.full((3,), 8.0, dtype=torch.float64))
    assert float(is_variance(work).max()) == pytest.approx(0, abs=1e-15)
    assert float(path_variance(work).max()) == 0


def test_one_weight_that_dominates_counts_as_one_path() -> None:
    work = torch.tensor([[0.0, 50.0, 50.0, 50.0]], dtype=torch.float64)
    assert float(effective_sample_size(work)) == pytest.approx(1)
    assert float(exponential_average(work)) == pytest.approx(math.log(4))
    assert any("more than 50%" in warning for warning in warnings_of(work, None))


def test_more_paths_come_closer_to_the_likelihood_from_above() -> None:
    data = 0.8 * normal(400, 1)
    truth = torch.tensor([-WALK.log_likelihood(float(x)) for x in data], dtype=torch.float64)
    work = works(data, 256)
    curve = by_paths(work)
    assert list(curve) == [2**i for i in range(9)]
    excess = [float((nll - truth).mean()) for nll in curve.values()]
    assert all(later < earlier for earlier, later in pairwise(excess))
    bound = torch.tensor([-WALK.expected_bound(float(x)) for x in data], dtype=torch.float64)
    assert abs(z_score(work.mean(1) - bound, 0.0)) < LIMIT
    assert torch.allclose(curve[1], work.mean(1))
    assert abs(excess[-1]) < excess[0] / 10


def test_two_sides_close_in_on_the_entropy_of_the_model() -> None:
    state, cooled = cooling_work(WALK.model, 3000, LEVELS, rng(1))
    assert isinstance(state, Tensor)
    truth = torch.tensor([-WALK.log_likelihood(float(x)) for x in state[:, 0]], dtype=torch.float64)
    widths = []
    for paths in (2, 8, 64):
        work = torch.stack(
            [reheating_work(WALK.model, state, LEVELS, rng(10 + i)).work for i in range(paths)], 1
        )
        above, below = exponential_average(work) - truth, capped_nll(work, cooled.work) - truth
        assert z_score(above, 0.0) > -LIMIT
        assert z_score(below, 0.0) < LIMIT
        widths.append(float((above - below).mean()))
    assert widths[0] > widths[1] > widths[2] > 0
    assert widths[2] < 0.03


def test_the_variance_over_paths_is_that_of_repetitions() -> None:
    data = torch.full((2000, 1), 0.7, dtype=torch.float64)
    work = works(data, 64)
    assert float(is_variance(work).mean()) == pytest.approx(float(exponential_average(work).var()), rel=0.25)
    assert float(path_variance(work).mean()) == pytest.approx(float(work.mean(1).var()), rel=0.15)


def test_intervals_of_the_nll_hold_the_truth_as_often_as_they_say() -> None:
    repetitions, examples, paths = 200, 60, 64
    variance = LOOSE.variance_of_cooled()
    entropy = 0.5 * math.log(2 * math.pi * math.e * variance)
    work = works(math.sqrt(variance) * normal(repetitions * examples, 1, seed=5), paths, seed=6, walk=LOOSE)
    held, naive = 0, 0
    for part in work.reshape(repetitions, examples, paths):
        figures = {f.name: f for f in likelihood_figures(HeatedExamples(part, part[:, :3]), INFO)}
        low, high = figures["is_nll"].interval or (0.0, 0.0)
        held += low <= entropy <= high
        low, high = figures["bound"].interval or (0.0, 0.0)
        naive += low <= entropy <= high
    assert 0.90 <= held / repetitions <= 0.98
    assert naive / repetitions < 0.90  # the bound is not the likelihood, and the check sees it


def test_bits_are_the_nats_on_another_scale() -> None:
    info = DataInfo("images", (1,), bins=256)
    work = works(normal(20, 1), 4)
    figures = {f.name: f for f in likelihood_figures(HeatedExamples(work, work[:, :3]), info)}
    for name in ("bound", "is_nll"):
        nats, scaled = figures[name], figures[f"{name}_bits"]
        assert scaled.value == pytest.approx(info.bits_per_dimension(nats.value))
        assert scaled.error == pytest.approx((nats.error or 0) / math.log(2))
        assert (nats.unit, scaled.unit) == ("nats", "bits/dim")
    # One path says nothing of the scatter of paths.
    assert [f.name for f in likelihood_figures(HeatedExamples(work[:, :1], work[:, :3]), INFO)] == ["bound"]


def test_tails_of_the_weights_are_told_apart() -> None:
    light, heavy = 0.05 * normal(30, 400), 3.0 * normal(30, 400, seed=1)
    assert float(pareto_k(light).median()) < 0.4
    assert float(pareto_k(heavy).median()) > 0.7
    figures, k = tail_figures(torch.cat([light, heavy]))
    assert {f.name for f in figures} == {"pareto_k", "heavy_tails"}
    assert k is not None
    assert any("Pareto" in text for text in warnings_of(heavy, pareto_k(heavy)))
    assert tail_figures(light[:, :10]) == ([], None)
    assert any("too few" in text for text in warnings_of(light[:, :10], None))
    assert bool(pareto_k(torch.zeros(2, 50, dtype=torch.float64)).isnan().all())


def test_the_bracket_is_reported_with_its_width() -> None:
    state, cooled = cooling_work(WALK.model, 50, LEVELS, rng(1))
    work = torch.stack([reheating_work(WALK.model, state, LEVELS, rng(i)).work for i in range(8)], 1)
    figures = {f.name: f.value for f in bracket_figures(HeatedExamples(work, work[:, :3], cooled.work), INFO)}
    assert figures["simulated_work_of_cooling"] < figures["simulated_below"] < figures["simulated_above"]
    assert figures["simulated_above"] < figures["simulated_bound"]
    assert figures["bracket"] == pytest.approx(figures["simulated_above"] - figures["simulated_below"])
    assert bracket_figures(HeatedExamples(work, work[:, :3]), INFO) == []
