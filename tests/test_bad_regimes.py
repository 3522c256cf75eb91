"""Figures whose plain error would not hold the truth: few values, equal weights, one path, ties, one dimension.

Coverage is counted: a right program fails a count with the probability stated (fixed seeds).
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binom
from tests.toy.data import InMemory
from tests.toy.irreversible import Parted, drifting, real_prior, subject, turning_line
from tests.toy.statistics import LIMIT, normal, rng

from walkback.data import DataInfo
from walkback.errors import ConfigurationError, WalkbackError
from walkback.measuring.bound import BoundEstimate
from walkback.measuring.estimates import (
    bracket_figure,
    ratio_figure,
    require_error_of_mean,
    share_figure,
)
from walkback.measuring.likelihood import is_variance, pareto_k
from walkback.measuring.likelihood_report import bracket_figures, likelihood_figures, tail_figures
from walkback.measuring.path_works import HeatedExamples
from walkback.measuring.quality.coverage import Distances
from walkback.measuring.quality.report import Rules, quality_figures
from walkback.measuring.verdict import outdone, remarks_on_bound, simple_nats, uniform_nats, verdict
from walkback.measuring.work import exponential_average
from walkback.report import Figure, number
from walkback_diagnostics.stationarity import Stationarity
from walkback_diagnostics.stationarity_report import entropy_figure
from walkback_diagnostics.symmetry import Symmetry

POINTS, GREY, BITS = (
    DataInfo("points", (2,)),
    DataInfo("grey", (2,), bins=256),
    DataInfo("bits", (2,), "binary"),
)


# --- estimates


@pytest.mark.parametrize(("share", "num"), [(0.02, 20), (0.5, 5), (0.98, 40), (0.2, 1000)])
def test_intervals_of_shares_hold_the_truth_also_where_all_agree(share: float, num: int) -> None:
    """400 intervals hold it at least as often as 95 % ones but for 1e-5; errors are never 0."""
    hits = torch.rand(400, num, generator=rng()) < share
    figures = [share_figure("a", row) for row in hits]
    held = sum(low <= 100 * share <= high for low, high in (figure.interval or (1, 0) for figure in figures))
    assert held >= binom.ppf(1e-5, 400, 0.95)
    assert min(figure.error or 0 for figure in figures) > 0


@pytest.mark.parametrize("mean", [1.0, 0.3, 0.1])
def test_ratios_over_a_mean_near_zero_are_held_or_refused(mean: float) -> None:
    """Fieller's interval of 300 ratios of means of ten pairs, the lower one near 0; refused where it may be 0."""
    held = refused = 0
    for seed in range(300):
        above, below = 2 + normal(10, seed=2 * seed), mean + 0.3 * normal(10, seed=2 * seed + 1)
        try:
            low, high = ratio_figure("a", above, below, "1").interval or (1.0, 0.0)
        except WalkbackError:
            refused += 1
        else:
            held += low <= 2 / mean <= high
    # Refusals count as intervals without ends: both together are Fieller's set, whose coverage is exact.
    assert held + refused >= binom.ppf(1e-5, 300, 0.95)
    assert held + refused <= binom.ppf(1 - 1e-5, 300, 0.95) or refused
    assert (refused > 100) == (mean < 0.2)


def test_a_bracket_is_in_the_error() -> None:
    low, high = normal(50), 4 + normal(50, seed=1)
    figure = bracket_figure("a", low, high, "nats")
    assert figure.value == pytest.approx(float((low + high).mean() / 2))
    assert (figure.error or 0) > float((high - low).mean()) / 2
    assert (figure.interval or (0, 0))[0] < float(low.mean())
    assert (figure.interval or (0, 0))[1] > float(high.mean())


def test_bounds_are_printed_as_bounds() -> None:
    assert number(Figure("a", 2.5, "nats", 0.125, side="above")) == "≤ 2.50 ± 0.12"
    assert number(Figure("a", 2.5, "nats", side="below")) == "≥ 2.5"
    assert number(Figure("a", 0.0, "1", interval=(0.0, 0.25))) == "0 to 0.25"


def test_too_few_examples_are_refused_with_what_can_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    data = InMemory(normal(3, 2))
    with pytest.raises(ConfigurationError, match=r"Got --limit = 3.*raise --limit"):
        require_error_of_mean(InMemory(normal(9, 2)), "test", 3, "--limit", "--split")
    with pytest.raises(ConfigurationError, match=r"Got 3 examples in the test split .* give more data"):
        require_error_of_mean(data, "test", 1000, "--limit", "--split")
    uneven = Parted(normal(20, 2))
    monkeypatch.setattr(uneven, "examples", lambda split: normal(9 if split == "train" else 3, 2))
    with pytest.raises(ConfigurationError, match=r"\(--split train\) or give more data"):
        require_error_of_mean(uneven, "test", 1000, "--limit", "--split")
    require_error_of_mean(InMemory(normal(4, 2)), "test", 1000, "--limit", "--split")


# --- likelihood


def test_equal_weights_have_no_tail_index() -> None:
    """k of weights that are equal to 1e-13 would be that of rounding; bits, where many are equal, have none either."""
    work = 3.0 + 1e-13 * normal(20, 64)
    assert bool(pareto_k(work).isnan().all())
    assert tail_figures(work) == ([], None)
    single = (1000 + 1e-5 * normal(20, 64)).float().double()
    assert bool(pareto_k(single).isnan().all())
    largest = normal(20, 64)
    largest[:, :32] = -5.0 + 1e-12 * normal(20, 32, seed=1)
    assert bool(pareto_k(largest).isnan().all())
    # Half of the examples with a tail: the figure is theirs, and says so; the share is that of all.
    some = torch.cat([work, 3 * normal(20, 64)])
    figures, k = tail_figures(some)
    assert k is not None
    assert "the 20 of 40 examples whose weights differ" in figures[0].meaning
    assert figures[1].value == pytest.approx(100 * float((k > 0.7).sum()) / 40)


@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
def test_the_error_of_paths_holds_their_scatter_where_one_path_has_all_the_weight(scale: float) -> None:
    """Works N(0, scale²): the sample variance of 2,000 estimates is at most the mean jackknife one, by 4.5 errors."""
    work = scale * normal(2000, 32)
    scatter = exponential_average(work).var()
    assert float(is_variance(work).mean()) > float(scatter) * (1 - LIMIT * math.sqrt(2 / 2000))
    assert float(is_variance(work).mean()) < 4 * float(scatter)


def test_figures_say_on_which_side_of_the_likelihood_they_are() -> None:
    work = normal(20, 8)
    heated = HeatedExamples(work, work[:, :3], cooling=work[:, 0] - 2)
    sides = {figure.name: figure.side for figure in likelihood_figures(heated, POINTS)}
    sides |= {figure.name: figure.side for figure in bracket_figures(heated, POINTS)}
    assert sides["bound"] == sides["is_nll"] == sides["simulated_above"] == "above"
    assert sides["gap"] == sides["simulated_below"] == "below"


# --- what simple models have


def test_a_model_that_is_worse_than_none_is_told_so() -> None:
    assert uniform_nats(GREY) == 0.0
    assert uniform_nats(BITS) == pytest.approx(2 * math.log(2))
    assert uniform_nats(POINTS) is None
    (line,) = verdict("bound", 0.6, GREY, {})
    assert "above the 8.000 bits/dim of uniform gray levels" in line
    assert "worse than no model" in line
    assert verdict("bound", -0.1, GREY, {}) == ()
    (line,) = verdict("bound", -0.1, GREY, {"gaussian": -0.5, "diagonal_gaussian": -0.2})
    assert "of a Gaussian fitted" in line
    (line,) = verdict("bound", 1.5, BITS, {"bernoulli": 1.0})
    assert "fair coins" in line


def test_simple_models_are_judged_on_the_same_examples() -> None:
    """H of a normal law with correlation 0.8, from 5,000 states on 5,000 others, and without it."""
    mixing = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    train, test = (normal(5000, 2, seed=seed) @ mixing.T for seed in (0, 1))
    found = simple_nats(train, test, POINTS, 0)
    diagonal = math.log(2 * math.pi * math.e)
    assert found["diagonal_gaussian"] == pytest.approx(diagonal, abs=0.05)
    assert found["gaussian"] == pytest.approx(diagonal + math.log(0.6), abs=0.05)
    assert simple_nats(torch.zeros(9, 2), test, POINTS, 0) == {}
    bound = BoundEstimate((Figure("bound", diagonal, "nats", 0.1),), 5000, 1, 3)
    (line,) = remarks_on_bound(bound, InMemory(test), "test", 5000, 0)
    assert "a Gaussian fitted" in line


def test_an_evaluation_is_judged_by_its_closest_figure() -> None:
    figures = [
        Figure("bound", 2.0, "nats"),
        Figure("is_nll", 0.9, "nats"),
        Figure("baseline_gaussian", 1.0, "nats"),
    ]
    assert outdone(figures, POINTS) == ()
    assert len(outdone(figures[:1] + figures[2:], POINTS)) == 1


# --- sample quality


def test_density_of_one_law_is_one_where_states_are_equal() -> None:
    """Bits of four kinds, 60 of each set: a ball has a quarter of the data in it, not k; over k, density would be 3.

    Of about 15 equal states 14 are others: 15/14 is what is left of it.
    """
    values = []
    for seed in range(30):
        data, samples = ((normal(60, 2, seed=2 * seed + i) > 0).double() for i in (0, 1))
        values.append(Distances.of(data, samples).scores(5).density)
    assert sum(values) / 30 == pytest.approx(15 / 14, abs=0.05)


def test_errors_of_quality_hold_repetitions_of_few_samples_of_one_law() -> None:
    """40 samples of the data's own law, where distances are near 0 and shares near 1: 20 intervals of each figure hold
    its mean but for as many as 95 % ones leave with chance 1e-5, and no error is 0."""
    found: dict[str, list[Figure]] = {}
    for seed in range(20):
        sets = [normal(40, 2, seed=3 * seed + i) for i in range(3)]
        for figure in quality_figures(*sets, POINTS, seed=seed, rules=Rules(projections=16)):  # type: ignore[misc]
            found.setdefault(figure.name, []).append(figure)
    for name, figures in found.items():
        mean = sum(figure.value for figure in figures) / len(figures)
        intervals = [figure.interval or (1.0, 0.0) for figure in figures]
        assert sum(low <= mean <= high for low, high in intervals) >= binom.ppf(1e-5, 20, 0.95), name
        assert min(figure.error or 0 for figure in figures) > 0, name
    sides = {name: figures[0].side for name, figures in found.items()}
    assert sides["sliced_wasserstein"] == sides["entropic_wasserstein"] == sides["mmd_squared"] == "above"


# --- chains in one dimension


LINE = Parted(normal(400, 1))
SHORT = Stationarity(chains=20, steps=100, frames=10, reference=50)


def test_a_number_has_no_variance_of_its_entries_but_a_spread_that_can_drift() -> None:
    names = {figure.name for figure in SHORT.measure(subject(turning_line(0.5), real_prior(1), LINE)).figures}
    assert "drift_of_squared_deviation" in names
    assert "drift_of_variance" not in names
    # A random walk around 0: its mean stays, its variance grows by 0.04 a step.
    report = SHORT.measure(subject(drifting(0.0, 0.04), real_prior(1), LINE))
    assert report["drift_of_squared_deviation"].value != 0
    many = Stationarity(chains=400, steps=100, frames=10, reference=50)
    assert (
        many.measure(subject(drifting(0.0, 0.04), real_prior(1), LINE))["drift_of_squared_deviation"].value
        > 4
    )


def test_chains_that_stand_still_are_refused_and_a_still_statistic_has_no_drift() -> None:
    with pytest.raises(WalkbackError, match="no statistic ever changes"):
        SHORT.measure(subject(drifting(0.0, 0.0), real_prior(1), LINE))


def test_few_chains_have_the_drift_of_a_normal_law() -> None:
    """Four stationary chains: Student's t of 3 degrees exceeds 4 in 2.8 %, z in 6e-5; in 2 of 60 has chance 7e-6."""
    measure = Stationarity(chains=4, steps=20, frames=10, reference=50).measure
    z = [
        measure(subject(turning_line(0.5), real_prior(1), LINE, seed=seed))["drift_of_mean"].value
        for seed in range(60)
    ]
    assert sum(abs(value) > 4 for value in z) < 2


def test_steps_on_the_data_are_a_lower_bound_where_the_chain_never_left() -> None:
    figure = SHORT.measure(subject(turning_line(0.5), real_prior(1), LINE))["steps_on_data"]
    assert (figure.side, number(figure)) == ("below", "≥ 100")


def test_the_entropy_of_few_classes_has_its_bias_in_its_error() -> None:
    """20 draws of ten equal classes: the plain value is 0.25 nats too low, and three of its errors hold the truth."""
    truth, values = math.log(10), []
    for seed in range(50):
        kinds = torch.randint(10, (20,), generator=rng(seed))
        figure = entropy_figure("a", torch.nn.functional.one_hot(kinds, 10).double())
        assert abs(figure.value - truth) < 3 * (figure.error or 0)
        values.append(figure.value)
    assert sum(values) / 50 < truth - 0.15
    alone = entropy_figure("a", torch.eye(3).double()[:1].repeat(5, 1))
    assert (alone.value, alone.side, alone.error) == (0.0, "below", None)


def test_too_few_states_are_refused_where_an_option_says_so() -> None:
    for build in (lambda: Stationarity(chains=3), lambda: Symmetry(examples=3)):
        with pytest.raises(ConfigurationError, match=r"Got 3 (chains|examples), expected at least 4"):
            build()
    with pytest.raises(ConfigurationError, match="Got 2 examples in the test split"):
        SHORT.measure(subject(turning_line(math.nan), real_prior(1), Parted(normal(4, 1))))
