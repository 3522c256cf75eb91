"""Autocorrelation times, R-hat, burn-in and timescales of chains for which they are known in closed form.

Random checks compare with |z| < 4.5 at fixed seeds: chance alone fails one with probability 6.8e-6.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.toy.irreversible import (
    Companion,
    Impatient,
    InTwoClasses,
    Parted,
    interrupted_then_resumed,
    pair_prior,
    real_prior,
    subject,
    turning,
    turning_line,
    wells,
)
from tests.toy.statistics import LIMIT, normal, z_score
from torch import Tensor

from walkback.configuration.schema import validate
from walkback.errors import ConfigurationError, WalkbackError
from walkback.measuring import traces
from walkback.report import Figure, Report
from walkback.storage.work_cache import WorkCache
from walkback.support import extras as optional
from walkback.support.watch import Watch
from walkback_diagnostics.correlation import (
    autocorrelation_time,
    burn_in,
    effective_sample_size,
    implied_timescale,
    with_error,
)
from walkback_diagnostics.mixing import Mixing, principal_axes
from walkback_diagnostics.mixing_report import figures_of_classes

A = 0.8
LINE = Parted(normal(400, 1))
PLANE = Parted(normal(400, 2) * torch.tensor([2.0, 1.0]))


def z_of(figure: Figure, expected: float) -> float:
    assert figure.error is not None
    return (figure.value - expected) / figure.error


def autoregressive(a: float, steps: int, chains: int, seed: int = 0) -> Tensor:
    """Stationary chains of variance 1, `(N, C)`."""
    noise = normal(steps, chains, seed=seed)
    rows = [noise[0]]
    for row in noise[1:]:
        rows.append(a * rows[-1] + math.sqrt(1 - a**2) * row)
    return torch.stack(rows)


# --- estimates


@pytest.mark.parametrize("a", [0.0, 0.5, 0.9])
def test_the_error_of_a_mean_is_that_of_the_effective_samples(a: float) -> None:
    """Var(mean of N steps) = (1 - a²)⁻¹ …: the scatter of 400 means, which knows of no autocorrelation time."""
    series = autoregressive(a, 1000, 400)
    means = series.mean(0)
    exact = ((1 + a) / (1 - a) - 2 * a * (1 - a**1000) / (1000 * (1 - a) ** 2)) / 1000
    assert abs(z_score(means.square(), exact)) < LIMIT
    size = effective_sample_size(series)
    assert 1 / size == pytest.approx(exact / 400, rel=0.05)
    # As many samples as steps would be wrong where there is autocorrelation.
    assert (size < 0.5 * series.numel()) == (a >= 0.5)


@pytest.mark.parametrize("a", [0.3, 0.8])
def test_autocorrelation_times_are_right_within_their_errors(a: float) -> None:
    time, error = with_error(autocorrelation_time, autoregressive(a, 2000, 25))
    assert abs(time - (1 + a) / (1 - a)) < LIMIT * error
    assert error < 0.1 * time


def test_jackknife_errors_hold_the_truth() -> None:
    """Over 60 repetitions z has a variance of about 1: too small errors would show (fixed seeds)."""
    z = []
    for seed in range(60):
        time, error = with_error(autocorrelation_time, autoregressive(0.5, 300, 10, seed))
        z.append((time - 3.0) / error)
    assert 0.5 < float(torch.tensor(z).std()) < 1.5


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    rows = normal(5, 12)
    value, error = with_error(lambda chains: float(chains.mean()), rows)
    assert value == pytest.approx(float(rows.mean()))
    assert error == pytest.approx(float(rows.mean(0).std()) / math.sqrt(12))


@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("a", [0.5, 0.95])
def test_the_timescale_of_an_autoregression_is_its_logarithm(a: float, lag: int) -> None:
    time, error = with_error(
        lambda chains: implied_timescale(chains, lag), autoregressive(a, 2000, 25)[..., None]
    )
    assert abs(time + 1 / math.log(a)) < LIMIT * error
    assert error < 0.1 * time


def test_burn_in_is_found_where_it_ends() -> None:
    """A relaxation from 20 standard deviations with 0.95 a step is below one deviation of the mean after 90 steps."""
    calm = autoregressive(0.5, 1000, 20)
    started = calm + 20 * 0.95 ** torch.arange(1000.0)[:, None]
    assert burn_in(calm[..., None]) < 400
    assert 60 <= burn_in(started[..., None]) <= 300
    assert burn_in(torch.stack([torch.zeros(1000, 20), started], -1)) >= 60


def test_switches_are_counted_as_by_hand() -> None:
    kinds = torch.tensor([[0, 1], [0, 1], [1, 1], [0, 1], [0, 2], [0, 2]])
    paired = kinds.repeat(1, 2)  # four chains, so that there is an error
    figures, series = figures_of_classes(paired, 4, 2)
    values = {figure.name: figure.value for figure in figures}
    assert values == {"switches": pytest.approx((2 / 5 + 1 / 5) / 2 / 2), "classes_visited": 2.0}
    assert {line.name: line.y for line in series} == {
        "from_class_0": (0.75, 0.25, 0.0, 0.0),
        "from_class_1": (0.2, 0.6, 0.2, 0.0),
        "from_class_2": (0.0, 0.0, 1.0, 0.0),
    }


def test_axes_are_the_principal_ones() -> None:
    mean, axes = principal_axes(subject(turning_line(A), real_prior(2), PLANE), 5)
    train = PLANE.examples("train")
    torch.testing.assert_close(mean, train.mean(0))
    torch.testing.assert_close(axes.T @ axes, torch.eye(2, dtype=torch.float64))
    values = torch.linalg.eigvalsh(torch.cov(train.T)).flip(0)
    torch.testing.assert_close(((train - mean) @ axes).var(0), values)


# --- chains


def test_an_autoregressive_chain_has_its_closed_forms() -> None:
    report = Mixing(chains=20, steps=2000, timescales=True).measure(
        subject(turning_line(A), real_prior(1), LINE)
    )
    time = (1 + A) / (1 - A)
    assert abs(z_of(report["autocorrelation_time"], time)) < LIMIT
    assert abs(z_of(report["effective_sample_size"], 20 * 2000 / time)) < LIMIT
    assert abs(z_of(report["effective_sample_size_per_chain"], 2000 / time)) < LIMIT
    assert abs(z_of(report["autocorrelation_time_of_axis_1"], time)) < LIMIT
    # log p(s'|s) is that of fresh noise in every step.
    assert abs(z_of(report["autocorrelation_time_of_log_probability"], 1.0)) < LIMIT
    assert abs(z_of(report["implied_timescale"], -1 / math.log(A))) < LIMIT
    assert abs(z_of(report["spectral_gap"], 1 - A)) < LIMIT
    assert report["r_hat"].value < 1.01
    assert not any("R-hat" in warning for warning in report.warnings)
    # None of it is what another slope would give.
    assert abs(z_of(report["autocorrelation_time"], 1.6 / 0.4)) > LIMIT
    assert abs(z_of(report["spectral_gap"], 0.3)) > LIMIT


def test_the_autocorrelation_that_is_drawn_is_a_power() -> None:
    report = Mixing(chains=20, steps=1000, burn_in=10).measure(subject(turning_line(A), real_prior(1), LINE))
    line = next(series for series in report.series if series.name == "autocorrelation_of_axis_1")
    assert line.error is not None
    assert line.x[:3] == (0.0, 5.0, 10.0)
    for lag, value, error in zip(line.x[1:], line.y[1:], line.error[1:], strict=True):
        assert abs(value - A**lag) < LIMIT * max(error, 0.01)


def test_a_thinned_chain_has_the_same_time() -> None:
    a = 0.98
    report = Mixing(chains=20, steps=20_000, frames=1000, burn_in=0, start="data").measure(
        subject(turning_line(a), real_prior(1), LINE)
    )
    assert report.protocol["every"] == 20
    assert report.protocol["steps"] == 20_000
    # Of every 20th step: τ = 20 (1 + a²⁰) / (1 - a²⁰), which is τ = (1 + a) / (1 - a) to a hundredth.
    time = 20 * (1 + a**20) / (1 - a**20)
    assert time == pytest.approx((1 + a) / (1 - a), rel=0.02)
    assert abs(z_of(report["autocorrelation_time"], time)) < LIMIT
    fast = Mixing(chains=20, steps=1000, frames=100, burn_in=0).measure(
        subject(turning_line(0.1), real_prior(1), LINE)
    )
    assert any("upper bound" in warning for warning in fast.warnings)


def test_a_turning_chain_forgets_at_the_rate_of_its_radius() -> None:
    """Singular values do not see the angle: t = -1 / log r, where the autocorrelation of an axis oscillates.

    Data far from the chain move the origin of the projections, which must not matter.
    """
    report = Mixing(chains=20, steps=1000, timescales=True).measure(
        subject(turning(A, 1.0, 1 - A**2), real_prior(2), Parted(5 + normal(400, 2)))
    )
    # The larger of two equal singular values is biased upwards, by less than a twentieth here.
    assert report["implied_timescale"].value == pytest.approx(-1 / math.log(A), rel=0.05)


def test_two_wells_are_not_mixed() -> None:
    rows = normal(400, 1) / 2 + torch.where(torch.arange(400) % 2 == 0, 6.0, -6.0)[:, None]
    report = Mixing(steps=200, start="data", burn_in=10).measure(
        subject(wells(6.0, 0.5), real_prior(1), InTwoClasses(rows))
    )
    assert report["r_hat"].value > 1.5
    assert any("have not mixed" in warning for warning in report.warnings)
    assert report["switches"].value == 0.0
    assert (report["switches"].error, report["switches"].interval) == (
        None,
        (0.0, pytest.approx(-math.log(0.025) / (20 * 199))),
    )
    assert report["classes_visited"].value == 1.0


def test_switches_of_a_chain_between_two_classes() -> None:
    """Signs of neighbours in an autoregression differ with probability arccos(a) / π (Sheppard)."""
    report = Mixing(steps=500, start="data").measure(
        subject(turning_line(A), real_prior(1), InTwoClasses(normal(2000, 1)))
    )
    # The boundary is where the nearest training state changes sign: within a hundredth of 0 with 1,000 of them.
    assert abs(z_of(report["switches"], math.acos(A) / math.pi)) < LIMIT
    assert report["classes_visited"].value == 2.0


def test_relaxation_is_left_out() -> None:
    system = subject(turning_line(0.9), real_prior(1, 1.0), Parted(300 + normal(400, 1)))
    report = Mixing(steps=1000, start="data").measure(system)
    assert 20 <= report["burn_in"].value <= 400
    assert report.protocol["burn_in"] == report["burn_in"].value
    assert abs(z_of(report["autocorrelation_time"], 19.0)) < LIMIT
    kept = Mixing(steps=1000, start="data", burn_in=0).measure(system)
    assert any("have not mixed" in warning for warning in kept.warnings)
    assert (kept["autocorrelation_time"].side, kept["autocorrelation_time"].error) == ("below", None)
    assert (
        kept["autocorrelation_time"].value < 1.2 * 19.0
    )  # the relaxation that all chains share is not in it


def test_chains_too_short_to_relax_are_measured_with_a_warning() -> None:
    system = subject(turning_line(0.999), real_prior(1, 1.0), Parted(300 + normal(400, 1)))
    report = Mixing(steps=200, start="data").measure(system)
    assert report["burn_in"].value == 100
    assert any("half were left out" in warning for warning in report.warnings)
    assert any("fewer than 50" in warning for warning in report.warnings)


def test_temperature_and_latent_parts() -> None:
    report = Mixing(steps=500, temperature=2.0).measure(subject(Companion(A, 0.0), pair_prior(), PLANE))
    assert abs(z_of(report["autocorrelation_time_of_axis_1"], 9.0)) < LIMIT
    assert report.protocol["temperature"] == 2.0
    assert report.protocol["axes"] == 2


# --- requests


def test_options_are_read_as_a_recipe_gives_them() -> None:
    assert validate("diagnostic", Mixing, {"burn_in": 10})["burn_in"] == 10
    assert validate("diagnostic", Mixing, {"burn_in": "auto"})["burn_in"] == "auto"
    for wrong in ("none", -1, 1.5):
        with pytest.raises(ConfigurationError):
            validate("diagnostic", Mixing, {"burn_in": wrong})


def test_what_cannot_be_estimated_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Got 3 chains"):
        Mixing(chains=3)
    with pytest.raises(ConfigurationError, match="Got 5 steps"):
        Mixing(steps=5)
    with pytest.raises(WalkbackError, match="finite"):
        Mixing(steps=50).measure(subject(turning_line(math.nan), real_prior(1), LINE))
    with pytest.raises(WalkbackError, match="singular value"):
        implied_timescale(torch.tensor([0.0, 1.0]).repeat(10)[:, None, None].repeat(1, 4, 1), 2)


def test_a_missing_library_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(optional.importlib, "import_module", missing)
    with pytest.raises(ConfigurationError, match=r"arviz-stats.*walkback\[eval\]"):
        Mixing().measure(subject(turning_line(A), real_prior(1), LINE))


def test_an_interrupted_measurement_goes_on_to_the_same_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "_SAVE_SECONDS", -1.0)

    def make(cache: WorkCache, watch: Watch) -> Report:
        system = subject(turning_line(A), real_prior(1), LINE, cache=cache, watch=watch)
        return Mixing(steps=300, chains=5).measure(system)

    whole = make(WorkCache(), Impatient("never", 0))
    assert interrupted_then_resumed(tmp_path / "pieces", make, Impatient("Mixing", 140)) == whole
