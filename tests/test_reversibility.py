"""Entropy production and the rank test on chains whose irreversibility is known in closed form.

Random checks compare with |z| < 4.5 at fixed seeds: chance alone fails one with probability 6.8e-6.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from tests.toy.data import InMemory
from tests.toy.exact import Pair, Toy, cycle, filled, flips, stationary_flips
from tests.toy.irreversible import (
    Companion,
    Impatient,
    PlacePrior,
    bit_prior,
    gaussian_rate,
    interrupted_then_resumed,
    one_way,
    pair_prior,
    production_of_turning,
    real_prior,
    subject,
    turning,
    turning_line,
)
from tests.toy.statistics import LIMIT, normal, normal_log_density

from walkback.diagnostics import Subject
from walkback.errors import ConfigurationError, WalkbackError
from walkback.kernels import NormalKernel
from walkback.measuring import traces
from walkback.report import Figure, Report
from walkback.storage.work_cache import WorkCache
from walkback.support.watch import Watch
from walkback_diagnostics.rank_test import paths
from walkback_diagnostics.reversibility import Reversibility

R, V = 0.8, 0.5


def z_of(figure: Figure, expected: float) -> float:
    assert figure.error is not None
    return (figure.value - expected) / figure.error


def plane(angle: float, *, seed: int = 0, spread: float = 1.0, tempered: bool = False) -> Subject:
    """The turning chain, begun in its stationary law (times `spread` in variance)."""
    operator = turning(R, angle, V, tempered=tempered)
    return subject(operator, real_prior(2, spread * V / (1 - R**2)), seed=seed)


# --- entropy production and entropy rate


@pytest.mark.parametrize("angle", [0.0, 0.1, 0.5, math.pi / 2, 2.5])
def test_the_closed_form_is_that_of_the_quadratic_forms(angle: float) -> None:
    """E[|s - A s'|² - |s' - A s|²] / 2v from the covariances of a Lyapunov equation, without simulation."""
    c, s = math.cos(angle), math.sin(angle)
    a, eye = R * np.array([[c, -s], [s, c]]), np.eye(2)
    covariance = linalg.solve_discrete_lyapunov(a, V * eye)
    joint = np.block([[covariance, covariance @ a.T], [a @ covariance, covariance]])
    there, back = np.hstack([-a, eye]), np.hstack([eye, -a])
    squares = [np.trace(form @ joint @ form.T) for form in (there, back)]
    assert (squares[1] - squares[0]) / (2 * V) == pytest.approx(production_of_turning(R, angle), abs=1e-12)


@pytest.mark.parametrize("angle", [0.0, 0.1, 0.5, math.pi / 2, 2.5])
def test_a_turning_chain_produces_the_entropy_of_its_turning(angle: float) -> None:
    report = Reversibility(steps=200, rank_chains=0).measure(plane(angle))
    production, rate = production_of_turning(R, angle), gaussian_rate(V, 2)
    assert abs(z_of(report["entropy_production"], production)) < LIMIT
    assert abs(z_of(report["entropy_rate"], rate)) < LIMIT
    assert abs(z_of(report["irreversibility"], 100 * production / rate)) < LIMIT
    assert abs(z_of(report["entropy_production_per_dimension"], production / 2)) < LIMIT
    assert abs(z_of(report["entropy_rate_per_dimension"], rate / 2)) < LIMIT
    # The telescoping sum leaves a reversible chain an error of order 1/K, not 1/√K.
    assert (report["entropy_production"].error or 1) < (0.002 if angle == 0 else 0.2)
    # At half the noise of the kernel nothing of this holds.
    assert abs(z_of(report["entropy_rate"], gaussian_rate(V / 2, 2))) > 10


def test_an_autoregressive_chain_produces_none() -> None:
    report = Reversibility(steps=100).measure(subject(turning_line(0.9), real_prior(3)))
    assert abs(z_of(report["entropy_production"], 0.0)) < LIMIT
    assert abs(z_of(report["entropy_rate"], gaussian_rate(1 - 0.81, 3))) < LIMIT
    assert report["rank_test_p"].value > 1e-3


@pytest.mark.parametrize("forward", [0.5, 0.6, 0.9])
def test_a_ring_of_three_places_produces_its_affinity(forward: float) -> None:
    report = Reversibility(steps=200, rank_chains=0).measure(subject(cycle(forward), PlacePrior()))
    p, q = forward, 1 - forward
    production, rate = (p - q) * math.log(p / q), -p * math.log(p) - q * math.log(q)
    if forward == 0.5:
        assert report["entropy_production"].value == 0.0
        assert report["entropy_rate"].value == pytest.approx(rate, abs=1e-7)  # float32 in the kernel
        return
    assert abs(z_of(report["entropy_production"], production)) < LIMIT
    assert abs(z_of(report["entropy_rate"], rate)) < LIMIT
    # It is neither that of the walk the other way nor the affinity without its current.
    assert abs(z_of(report["entropy_production"], -production)) > 10
    assert abs(z_of(report["entropy_production"], math.log(p / q))) > 10


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_bit_is_always_reversible(temperature: float) -> None:
    up, down = 0.2, 0.4
    system = subject(flips(up, down), bit_prior())
    report = Reversibility(steps=200, temperature=temperature, rank_chains=400).measure(system)
    one = stationary_flips(up, down, temperature)
    hot = [1 / (1 + (1 / p - 1) ** (1 / temperature)) for p in (up, down)]
    entropy = [stats.bernoulli(p).entropy() for p in hot]
    assert abs(z_of(report["entropy_production"], 0.0)) < LIMIT
    assert abs(z_of(report["entropy_rate"], (1 - one) * entropy[0] + one * entropy[1])) < LIMIT
    assert report["rank_test_p"].value > 1e-3
    assert report.warnings == ()  # bits have an entropy, not a differential one


def test_a_temperature_adds_its_logarithm_to_the_rate_and_nothing_to_the_production() -> None:
    report = Reversibility(steps=200, temperature=4.0, rank_chains=0).measure(plane(0.5, tempered=True))
    assert abs(z_of(report["entropy_production"], production_of_turning(R, 0.5))) < LIMIT
    assert abs(z_of(report["entropy_rate"], gaussian_rate(V, 2) + math.log(4.0))) < LIMIT


@pytest.mark.parametrize("start", ["annealed", "data"])
def test_both_leaves_of_a_state_count(start: str) -> None:
    data = InMemory(normal(400, 2))
    report = Reversibility(steps=200, start=start).measure(  # type: ignore[arg-type]
        subject(Companion(R, 0.5), pair_prior(), data)
    )
    assert abs(z_of(report["entropy_production"], production_of_turning(R, 0.5))) < LIMIT
    assert abs(z_of(report["entropy_rate"], gaussian_rate(1 - R**2, 3))) < LIMIT
    assert abs(z_of(report["entropy_rate"], gaussian_rate(1 - R**2, 2))) > 10
    assert abs(z_of(report["entropy_rate_per_dimension"], gaussian_rate(1 - R**2, 3) / 3)) < LIMIT
    assert report["rank_test_p"].value < 1e-6


@pytest.mark.parametrize("angle", [0.0, 0.3])
def test_intervals_hold_the_truth_as_often_as_they_say(angle: float) -> None:
    """Of 200 intervals at 95 %, 180 to 196 hold it: chance alone fails this about once in 50 (fixed seeds)."""
    truth = {
        "entropy_production": production_of_turning(R, angle),
        "irreversibility": 100 * production_of_turning(R, angle) / gaussian_rate(V, 2),
    }
    measure = Reversibility(chains=10, burn_in=5, steps=30, rank_chains=0).measure
    reports = [measure(plane(angle, seed=seed)) for seed in range(200)]
    for name, expected in truth.items():
        intervals = [report[name].interval or (0.0, 0.0) for report in reports]
        assert 180 <= sum(low <= expected <= high for low, high in intervals) <= 196, name
        # Half as long, as from an error too small by √4, they would not.
        halves = [((3 * low + high) / 4, (low + 3 * high) / 4) for low, high in intervals]
        assert sum(low <= expected <= high for low, high in halves) < 170


# --- chains that are not stationary


def test_a_chain_that_is_still_relaxing_is_told_from_an_irreversible_one() -> None:
    """Of a reversible chain the production is E[log π(s_K) - log π(s_0)] / K, and all of it is in the first half."""
    spread, steps = 25.0, 40
    report = Reversibility(chains=400, burn_in=0, steps=steps).measure(plane(0.0, spread=spread))
    # The annealed start has taken one step already.
    excess = (spread - 1) * R**2
    expected = excess * (1 - R ** (2 * steps)) / steps
    assert report["entropy_production"].value == pytest.approx(expected, rel=0.1)
    assert abs(z_of(report["entropy_production_first_half"], 0.0)) > 10
    assert any("not stationary" in warning for warning in report.warnings)
    # The truth is 0, and within the error: half of the chain says how far off the other half may be.
    low, high = report["entropy_production"].interval or (1.0, 1.0)
    assert low < 0 < high
    assert abs(z_of(report["entropy_production"], 0.0)) < 1
    assert report["rank_test_p"].value < 1e-6
    calm = Reversibility(chains=400, burn_in=60, steps=steps).measure(plane(0.0, spread=spread))
    assert abs(z_of(calm["entropy_production"], 0.0)) < LIMIT
    assert not any("not stationary" in warning for warning in calm.warnings)


def test_false_alarms_are_as_rare_as_they_say() -> None:
    """At three standard errors of 20 chains 0.7 % of stationary chains are flagged: 5 of 60 has chance 7e-5."""
    measure = Reversibility(chains=20, burn_in=5, steps=20, rank_chains=0).measure
    alarms = [
        any("not stationary" in warning for warning in measure(plane(0.3, seed=seed)).warnings)
        for seed in range(60)
    ]
    assert sum(alarms) < 5


def test_the_ratio_is_not_recommended_where_the_rate_is_no_measure() -> None:
    def wide(log_variance: float) -> Report:
        operator = turning(R, 0.5, math.exp(log_variance))
        prior = real_prior(2, math.exp(log_variance) / (1 - R**2))
        return Reversibility(steps=50, rank_chains=0).measure(subject(operator, prior))

    # ½ log 2πe = 1.419 a dimension: the rate is 0 at log v = -2.838, and negative below.
    for log_variance in (-2.838, -6.0):
        report = wide(log_variance)
        assert "is meaningless" in report.warnings[0]
        assert "irreversibility" not in {figure.name for figure in report.figures}
        headline = report[report.headline]
        assert (headline.name, headline.unit) == ("entropy_production", "nats/step")
        assert abs(z_of(headline, production_of_turning(R, 0.5))) < LIMIT
    assert "differential" in wide(0.0).warnings[0]


def test_the_rate_of_grey_levels_is_that_of_rounded_states() -> None:
    """The entropy of a normal number rounded to 1/bins, term by term, is h + log bins."""
    system = plane(0.5)
    info = replace(system.info, bins=32)
    report = Reversibility(steps=200, rank_chains=0).measure(replace(system, info=info))
    cells = stats.norm(0.1, math.sqrt(V)).cdf((np.arange(-200, 201) - 0.5) / 32)
    entropy = 2 * stats.entropy(np.diff(cells))
    assert (
        abs(z_of(report["irreversibility_of_grey_levels"], 100 * production_of_turning(R, 0.5) / entropy))
        < LIMIT
    )
    assert report["irreversibility_of_grey_levels"].error is not None
    assert entropy == pytest.approx(gaussian_rate(V, 2) + 2 * math.log(32), rel=1e-3)


# --- rank test


def test_a_turning_chain_fails_the_rank_test_by_its_direction() -> None:
    report = Reversibility(steps=10).measure(plane(0.3))
    assert report["rank_test_p"].value < 1e-6
    ranks = next(series for series in report.series if series.name == "ranks")
    assert ranks.x_label == "rank of direction (1)"
    assert sum(ranks.y) == 400
    assert ranks.y[-1] == max(ranks.y)


def test_p_values_of_reversible_chains_are_not_small_too_often() -> None:
    """60 reversible chains: p < 0.1 (corrected for 6 functions) in 15 or more has chance below 1e-3."""
    measure = Reversibility(chains=4, burn_in=1, steps=1, rank_chains=200, rank_steps=9).measure
    p = [
        measure(subject(turning_line(0.7), real_prior(2), seed=seed))["rank_test_p"].value
        for seed in range(60)
    ]
    assert sum(value < 0.1 for value in p) < 15
    assert min(p) > 1e-4


def test_ties_of_bits_are_broken_at_random() -> None:
    """With ties always won or always lost the ranks would pile up at one end."""
    measure = Reversibility(chains=4, burn_in=1, steps=1, rank_chains=2000, rank_steps=4).measure
    # Five equal probabilities would mean independent bits; here they are correlated and unfair.
    report = measure(subject(flips(0.1, 0.3), bit_prior(), seed=1))
    assert report["rank_test_p"].value > 1e-3


def test_paths_are_joined_in_their_order() -> None:
    """Against a loop over chains, positions and steps."""
    length, chains = 5, 5
    onward, backward = normal(length - 1, chains, 2), normal(length - 1, chains, 2, seed=1)
    middle, place = normal(chains, 1, seed=2), torch.arange(5)
    found = paths(middle, onward, backward, place)
    for c in range(chains):
        m = int(place[c])
        before, after = backward[:m, c].flip(0), onward[: length - 1 - m, c]
        states = torch.cat([before[:, 0], middle[c], after[:, 0]])
        # d_t, t = 1 … L - 1: a step that was made against the order of the path counts the other way.
        d = torch.cat([-before[:, 1], after[:, 1]])
        direction = torch.stack([d[i:].sum() - d[:i].sum() for i in range(length)])
        torch.testing.assert_close(found[:, c, 0], states)
        torch.testing.assert_close(found[:, c, 1], direction)


def test_too_few_chains_for_a_rank_test_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 80, or 0"):
        Reversibility(rank_chains=79)
    assert Reversibility(rank_chains=0).measure(plane(0.1)).figures[-1].name != "rank_test_p"


# --- refusals


def test_three_chains_are_refused_before_work() -> None:
    with pytest.raises(ConfigurationError, match=r"Got 3 chains, expected at least 4 .* chains=…"):
        Reversibility(chains=3)


@pytest.mark.parametrize(
    ("mean", "variance"), [(0.5, 0.0), (math.nan, 1.0), (math.inf, 1.0)], ids=["dirac", "nan", "infinite"]
)
def test_kernels_without_density_are_refused(mean: float, variance: float) -> None:
    operator = Toy(lambda state: Pair(lambda _: NormalKernel(mean * state, filled(variance, state))))
    with pytest.raises(WalkbackError, match="log-density is not finite"):
        Reversibility(rank_chains=0).measure(subject(operator, real_prior(2)))


def test_an_impossible_way_back_is_refused() -> None:
    with pytest.raises(WalkbackError, match="step back is impossible"):
        Reversibility(rank_chains=0).measure(subject(one_way(), PlacePrior()))


def test_a_kernel_that_clips_is_refused() -> None:
    class Clipped(NormalKernel):  # type: ignore[misc]
        def sample(self, generator: torch.Generator) -> torch.Tensor:
            return super().sample(generator).clamp(-1, 1)

    operator = Toy(lambda state: Pair(lambda _: Clipped(0.9 * state, filled(1.0, state))))
    with pytest.raises(WalkbackError, match="clips"):
        Reversibility(rank_chains=0).measure(subject(operator, real_prior(2)))


# --- going on


@pytest.mark.parametrize(
    ("stage", "units"), [("Burn in", 20), ("Entropy production", 37), ("Rank test back", 6)]
)
def test_an_interrupted_measurement_goes_on_to_the_same_report(
    stage: str, units: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "_SAVE_SECONDS", -1.0)
    operator, prior = Companion(R, 0.5), pair_prior()
    calls = 0

    def make(cache: WorkCache, watch: Watch) -> Report:
        return Reversibility(steps=60, rank_chains=100, rank_steps=10).measure(
            subject(operator, prior, cache=cache, watch=watch)
        )

    whole = Reversibility(steps=60, rank_chains=100, rank_steps=10).measure(subject(operator, prior))
    forward = operator.forward

    def counted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        return forward(*arguments)  # type: ignore[arg-type]

    assert interrupted_then_resumed(tmp_path / "pieces", make, Impatient(stage, units)) == whole
    monkeypatch.setattr(operator, "forward", counted)
    assert make(WorkCache(tmp_path / "pieces", {"of": "a test"}), Impatient("never", 0)) == whole
    # The two annealed starts of one step, and a look at each one's kernel; no step of a chain is taken again.
    assert calls == 4


def test_the_closed_form_of_the_rate_is_scipys() -> None:
    assert gaussian_rate(V, 2) == pytest.approx(2 * float(stats.norm(0, math.sqrt(V)).entropy()))
    assert normal_log_density(0.0, 0.0, V) == pytest.approx(-gaussian_rate(V, 1) + 0.5)
