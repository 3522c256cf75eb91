"""Long chains that stay on their data, that drift, and that leave: does `stationarity` tell them apart?

Random checks compare with |z| < 4.5 at fixed seeds: chance alone fails one with probability 6.8e-6.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tests.toy.irreversible import (
    Companion,
    Impatient,
    InTwoClasses,
    Parted,
    drifting,
    interrupted_then_resumed,
    pair_prior,
    real_prior,
    subject,
    turning_line,
    wells,
)
from tests.toy.statistics import LIMIT, normal

from walkback.errors import ConfigurationError, WalkbackError
from walkback.measuring import traces
from walkback.measuring.quality.mmd import mmd_squared
from walkback.report import Report
from walkback.storage.work_cache import WorkCache
from walkback.support.watch import Watch
from walkback_diagnostics.neighbours import Neighbours, entropy, neighbours
from walkback_diagnostics.stationarity import Stationarity, departures, drifts, statistics

DATA = Parted(normal(1200, 2))
SMALL = Stationarity(chains=20, steps=100, frames=10, reference=50)


def calm(seed: int = 0) -> Report:
    """Of a chain that is stationary on its data, N(0, I)."""
    return SMALL.measure(subject(turning_line(0.8), real_prior(2), DATA, seed=seed))


# --- single statistics


def test_statistics_are_those_of_a_loop() -> None:
    train, states = normal(40, 2, 3), normal(7, 2, 3, seed=1)
    labels = torch.arange(40) % 3
    rows = train.flatten(1)
    found = statistics(states, Neighbours(rows - rows.mean(0), rows.mean(0), labels, 4))
    for state, row in zip(states, found, strict=True):
        distances = torch.stack([(state - other).square().sum().sqrt() for other in train])
        kind = int(labels[distances.argmin()])
        plain = [float(state.mean()), float((state - state.mean()).square().mean()), float(distances.min())]
        expected = [*plain, *(float(k == kind) for k in range(4))]
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64))


def test_neighbours_keep_examples_and_labels_together() -> None:
    known = neighbours(subject(turning_line(0.5), real_prior(2), InTwoClasses(normal(300, 2))))
    assert known.labels is not None
    assert known.num_classes == 2
    assert torch.equal((known.states + known.mean)[:, 0] > 0, known.labels == 1)


def test_drift_is_a_paired_difference_over_chains() -> None:
    early, late = normal(3, 50, 2), normal(4, 50, 2, seed=1) + torch.tensor([0.0, 0.3])
    change = late.mean(0) - early.mean(0)
    expected = change.mean(0) / (change.var(0) / 50).sqrt()
    torch.testing.assert_close(drifts(early, late), expected)
    # What all chains share, and does not change, is no drift; a chain's own level is none either.
    level = 100 * normal(1, 50, 2, seed=2)
    torch.testing.assert_close(drifts(early + level, late + level), expected, rtol=1e-9, atol=1e-9)
    assert drifts(early, early).tolist() == [0.0, 0.0]


def test_departure_is_the_first_frame_of_the_last_stay_outside() -> None:
    data = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).repeat(5000, 1)
    means = torch.tensor([0.0, 5.0, 0.0, 0.1, 5.0, 5.0, 5.0], dtype=torch.float64)
    chains = means[:, None, None] + data[:100]
    # The margin is 4.5 √(1/100 + 1/10000) + tolerance = 0.452 + tolerance.
    assert departures(chains, data, 0.0).tolist() == [4]
    assert departures(chains, data, 4.5).tolist() == [4]
    assert departures(chains, data, 4.6).tolist() == [7]
    assert departures(0 * chains + data[:100] + 0.44, data, 0.0).tolist() == [7]
    assert departures(0 * chains + data[:100] + 0.47, data, 0.0).tolist() == [0]
    # No chain in a class that a fiftieth of data are in: an error of the chains alone would be 0.
    rare = (torch.arange(1000) % 50 == 0).double()[:, None]
    assert departures(torch.zeros(5, 20, 1, dtype=torch.float64), rare, 0.0).tolist() == [5]


def test_entropy_of_shares() -> None:
    assert entropy(torch.tensor([0.25, 0.25, 0.5, 0.0])) == pytest.approx(1.5 * math.log(2))
    assert math.copysign(1, entropy(torch.tensor([1.0, 0.0]))) == 1


# --- chains


def test_stationary_chains_are_not_flagged_too_often() -> None:
    """50 seeds: p < 0.1 (corrected) in 13 or more has chance below 1e-3; a warning at all, 50 · 1e-3."""
    reports = [calm(seed) for seed in range(50)]
    assert sum(report["drift_p"].value < 0.1 for report in reports) < 13
    assert [report.warnings for report in reports if report.warnings] == []
    assert all(report["steps_on_data"].value == 100 for report in reports)
    # z of the mean is Student's: over seeds its variance is 19/17.
    z = torch.tensor([report["drift_of_mean"].value for report in reports])
    assert abs(float(z.mean())) < LIMIT * math.sqrt(19 / 17 / 50)
    assert 0.5 < float(z.var()) < 2.2


def test_a_drift_is_flagged() -> None:
    """Means grow by 0.01 a step: 0.6 steps' worth in 60 steps against a noise of 0.02 √60 / √20 a chain."""
    report = SMALL.measure(subject(drifting(0.01, 4e-4), real_prior(2), DATA))
    assert report["drift"].value > 6
    assert report["drift_p"].value < 1e-3
    assert any("drifts: mean" in warning for warning in report.warnings)
    # A rise of which nothing is left after the first fifth is no drift: the chain relaxes from another start.
    relaxed = SMALL.measure(subject(turning_line(0.5), real_prior(2, 9.0), DATA))
    assert relaxed["drift_p"].value > 1e-3


@pytest.mark.parametrize("drift", [0.01, 0.02])
def test_the_time_of_leaving_is_where_the_drift_passes_the_margin(drift: float) -> None:
    """The mean of the two entries has standard deviation √½ over data: it leaves at c t = 4.5 errors + tolerance.

    It ends between frames; the starts of the chains scatter by √(½ / C), three of which are allowed on either side.
    """
    measure = Stationarity(chains=400, steps=100, frames=50, reference=600, start="data", tolerance=0.2)
    report = measure.measure(subject(drifting(drift, 1e-6), real_prior(2), DATA))
    spread = math.sqrt(0.5)
    margin = spread * (4.5 * math.sqrt(1 / 400 + 1 / 600) + 0.2)
    low, high = ((margin + sign * 3 * spread / math.sqrt(400)) / drift for sign in (-1, 1))
    assert low - 4 < report["steps_on_data"].value < high + 4
    assert any("not on the data" in warning for warning in report.warnings)
    assert "mean was more than" in report["steps_on_data"].meaning


def test_a_chain_that_never_was_on_the_data_left_at_once() -> None:
    report = SMALL.measure(subject(turning_line(0.5), real_prior(2), Parted(8 + normal(1200, 2))))
    assert report["steps_on_data"].value == 0
    assert report["mmd_squared"].value > 10 * report["mmd_squared_of_data"].value
    # A single step takes data half the way: what it leaves is no reference, and that is said.
    assert report["mmd_squared_after_one_step"].value > 10 * report["mmd_squared_of_data"].value
    assert any("no fair reference" in warning and "mean" in warning for warning in report.warnings)


def test_the_fair_reference_has_the_noise_of_a_step() -> None:
    """Data on a grid, a chain around it: states are off the data as they are, not off those after one step."""
    grid = Parted(normal(1200, 2).round())
    operator = turning_line(math.sqrt(1 - 1 / 4))
    report = Stationarity(chains=200, steps=40, frames=10, reference=600).measure(
        subject(operator, real_prior(2, 13 / 12), grid)
    )
    data, stepped, chain = (report[f"nearest{which}"].value for which in ("_of_data", "_after_one_step", ""))
    assert data < 0.02  # a point of the grid may be in one half of the data only
    assert stepped > 0.2
    assert chain == pytest.approx(stepped, rel=0.25)
    assert report["steps_on_data"].value == 40


def test_classes_are_followed() -> None:
    """Two wells that no step connects: chains keep the shares they began with."""
    rows = normal(1200, 2) / 2 + torch.where(torch.arange(1200) % 4 == 0, 6.0, -6.0)[:, None]
    report = Stationarity(chains=100, steps=50, frames=10, reference=200, start="data").measure(
        subject(wells(6.0, 0.5), real_prior(2), InTwoClasses(rows))
    )
    share = next(series for series in report.series if series.name == "share_of_class_1")
    assert set(share.y) == {share.y[0]}
    assert abs(share.y[0] - 0.25) < LIMIT * math.sqrt(3 / 16 / 100)
    p = share.y[0]
    assert report["class_entropy"].value == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    assert report["drift_p"].value > 1e-3


def test_the_discrepancy_is_that_of_the_states() -> None:
    """At one step, which the test can take itself."""
    system = subject(turning_line(0.8), real_prior(2), DATA)
    report = Stationarity(chains=20, steps=10, frames=10, reference=50).measure(system)
    level = system.model.levels()[0]
    state = traces.settle(system, system.start("annealed", 20), level, 10, name="long-chain").state
    held_out = system.held_out("test", 70).states[:50]
    expected = mmd_squared(state, held_out, float(torch.pdist(held_out).median()))  # type: ignore[arg-type]
    assert report["mmd_squared"].value == pytest.approx(expected, rel=1e-12)


def test_only_the_data_part_of_a_state_is_compared() -> None:
    report = SMALL.measure(subject(Companion(0.8, 0.0), pair_prior(), DATA))
    assert report["steps_on_data"].value == 100
    assert report["drift_p"].value > 1e-3


# --- refusals, and going on


def test_requests_that_make_no_sense_are_refused() -> None:
    with pytest.raises(WalkbackError, match="Got 3 chains"):
        Stationarity(chains=3).measure(subject(turning_line(0.5), real_prior(2), DATA))
    with pytest.raises(ConfigurationError, match="Got 20 steps and 50 frames"):
        Stationarity(steps=20)
    with pytest.raises(WalkbackError, match="most are equal"):
        SMALL.measure(subject(turning_line(0.5), real_prior(2), Parted(torch.zeros(100, 2).double())))
    with pytest.raises(WalkbackError, match="finite"):
        SMALL.measure(subject(turning_line(math.nan), real_prior(2), DATA))


def test_few_held_out_examples_are_all_taken() -> None:
    report = Stationarity(chains=20, steps=20, frames=10, reference=1000).measure(
        subject(turning_line(0.5), real_prior(2), Parted(normal(120, 2)))
    )
    assert report.protocol["reference"] == 60
    assert "mmd_squared_after_one_step" not in {figure.name for figure in report.figures}


def test_an_interrupted_chain_goes_on_to_the_same_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "_SAVE_SECONDS", -1.0)

    def make(cache: WorkCache, watch: Watch) -> Report:
        return SMALL.measure(subject(turning_line(0.8), real_prior(2), DATA, cache=cache, watch=watch))

    assert interrupted_then_resumed(tmp_path / "pieces", make, Impatient("Long chain", 40)) == calm()
