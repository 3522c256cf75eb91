"""Free energy and dissipation where a plain error would not hold the truth: infinite variance of weights, no overlap.

Coverage is counted: intervals at 95 % are drawn so often that a right program fails with the probability stated.
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binom
from tests.toy.data import InMemory
from tests.toy.exact import LinearGaussian, autoregressive, gaussian, model
from tests.toy.statistics import LIMIT, normal, rng

from walkback.diagnostics import Subject
from walkback.measuring.work import cooling_work, reheating_work
from walkback.model import Model
from walkback.report import Figure, Report, number
from walkback.schedules import levels_from
from walkback_diagnostics.thermodynamic_report import Measured, overlap_figure, thermodynamic_report
from walkback_diagnostics.thermodynamics import Thermodynamics

TEMPERATURES = [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0]


def trap(slope: float = 0.5, prior: float = 16.0) -> LinearGaussian:
    """A harmonic trap U = s²/2 at T = 1 … 8: every kernel is reversible with respect to N(0, T)."""
    noise = [(1 - slope**2) * t for t in TEMPERATURES]
    slopes = [slope] * len(TEMPERATURES)
    return LinearGaussian(slopes, noise, slopes, noise, prior)


def exact(system: LinearGaussian) -> dict[str, float]:
    """F and the dissipated work of heating, from moments."""
    variance = system.variance_of_cooled()
    free = 0.5 * math.log(2 * math.pi * math.e * variance)
    return {"free_energy": free, "dissipated_heating": -system.expected_bound(math.sqrt(variance)) - free}


def measured(candidate: Model, seed: int = 0, **options: object) -> Report:
    chosen = {"stationary_steps": 0, "data": False, "bennett": False, **options}
    data = InMemory(normal(10, 1))
    return Thermodynamics(**chosen).measure(  # type: ignore[arg-type]
        Subject(candidate, data.info, lambda: data, seed=seed)
    )


def held(figure: Figure, truth: float) -> bool:
    low, high = figure.interval or (math.nan, math.nan)
    return low <= truth <= high


@pytest.mark.parametrize("paths", [16, 128])
def test_a_trap_whose_weights_have_no_variance_is_known_from_both_sides(paths: int) -> None:
    """exp(-W) has an infinite second moment: Var s_8 = 8 under heating is less than half of the prior's 16."""
    system = trap()
    truth = exact(system)
    assert truth == pytest.approx({"free_energy": 1.41985, "dissipated_heating": 0.48835}, abs=1e-4)
    report = measured(system.model, examples=8000, paths=paths, batch=8000)
    for name, value in truth.items():
        figure = report[name]
        assert abs(figure.value - value) < LIMIT * (figure.error or 0)
        assert held(figure, value)
        low, high = figure.interval or (0.0, 0.0)
        # The bias of the middle is within half the bracket, and that is within the error.
        half = (report["free_energy_above"].value - report["free_energy_below"].value) / 2
        assert half <= (figure.error or 0) < 2 * half
        assert high - low > 2 * half
    above, below = report["free_energy_above"], report["free_energy_below"]
    assert (above.side, below.side) == ("above", "below")
    assert number(above).startswith("≤ ")
    assert below.value < truth["free_energy"] < above.value


def test_bennetts_ratio_of_one_cooling_path_has_an_error_that_reaches_the_bracket() -> None:
    system = trap()
    truth = exact(system)["free_energy"]
    figure = measured(system.model, examples=300, batch=300, bennett=True)["free_energy_bennett"]
    assert held(figure, truth)
    assert abs(figure.value - truth) < LIMIT * (figure.error or 0)
    assert (figure.error or 0) > 0.2


@pytest.mark.parametrize(("examples", "paths"), [(4, 16), (40, 16), (20, 128)])
def test_intervals_hold_the_truth_as_often_as_they_say(examples: int, paths: int) -> None:
    """Of 300 intervals at least as many hold it as of 95 % ones would in all but one of 100,000 repetitions."""
    repetitions, system = 300, trap()
    truth, levels, noise = exact(system), system.model.levels(), rng(1)
    state, path = cooling_work(system.model, repetitions * examples, levels, noise)
    cooling = path.work.reshape(repetitions, examples)
    heated = [reheating_work(system.model, state, levels, noise).work for _ in range(paths)]
    heating = torch.stack(heated, 1).reshape(repetitions, examples, paths)
    hits = dict.fromkeys(truth, 0)
    nothing = torch.zeros(examples, len(TEMPERATURES)).double()
    for heats, cools in zip(heating, cooling, strict=True):
        works = Measured(heats, cools, nothing, nothing, None, None, None, None, 1, 1)
        report = thermodynamic_report(works)
        for name, value in truth.items():
            hits[name] += held(report[name], value)
    fewest = binom.ppf(1e-5, repetitions, 0.95)
    assert min(hits.values()) >= fewest, hits


def test_without_overlap_there_are_two_ends_and_no_small_error() -> None:
    """A prior of 10,000 in place of 8: heated paths end where hardly any cooled one begins."""
    system = trap(0.2, 1e4)
    truth = exact(system)["free_energy"]
    report = measured(system.model, examples=400, paths=16)
    assert report["overlap"].value < 0.2
    assert held(report["free_energy"], truth)
    assert (report["free_energy"].error or 0) > 0.5
    assert any("only bounded from both sides" in warning for warning in report.warnings)


def test_overlap_is_an_upper_bound_where_none_is_seen() -> None:
    """Of N examples without overlap a share s would have been missed with 2.5 %: s = 1 - 0.025^(1/N)."""
    figure = overlap_figure(torch.full((100, 4), 80.0).double())
    assert (figure.side, figure.error) == ("above", None)
    assert (1 - figure.value / 2) ** 100 == pytest.approx(0.025)


def test_overlap_is_that_of_the_law() -> None:
    """D ~ N(m, 2 m) obeys Crooks' theorem; 2 E[1 / (1 + exp(D))] by quadrature."""
    for mean in (0.0, 0.5, 4.0):
        values = mean + math.sqrt(2 * mean) * normal(4000, 4)
        nodes = torch.linspace(-12, 12, 4001, dtype=torch.float64)
        weights = (-nodes.square() / 2).exp()
        expected = 2 * float(
            (weights * (-mean - math.sqrt(2 * mean) * nodes).sigmoid()).sum() / weights.sum()
        )
        figure = overlap_figure(values)
        assert abs(figure.value - expected) <= LIMIT * (figure.error or 0) + 1e-12
    assert overlap_figure(torch.zeros(5, 3).double()).value == 1.0


def test_a_reversible_walk_overlaps_fully() -> None:
    line = torch.ones(1, dtype=torch.float64)
    candidate = model(autoregressive(0.7, 0 * line, line), gaussian(0 * line, line), levels_from([1.0] * 4))
    report = measured(candidate, examples=50)
    assert report["overlap"].value == pytest.approx(1.0)
    # Nothing is unknown but what other examples would say.
    assert report["free_energy"].error == pytest.approx(report["free_energy_above"].error)
