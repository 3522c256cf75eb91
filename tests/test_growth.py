"""`walkback bench --scaling`: exponents follow from points, which measure what they say; memory is what was added."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.program import TINY, walkback

from walkback.building.preparation import Prepared, prepare
from walkback.configuration.layering import resolve
from walkback.errors import WalkbackError
from walkback.extensions.registry import Registry
from walkback.speed import growth
from walkback.speed.growth import growth_report, measured
from walkback.speed.point import Point, Request, measure
from walkback.support.memory_growth import added_by
from walkback.support.watch import Silent

CPU = torch.device("cpu")
MIB = 2**20


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    registry = Registry.discover()
    words = [word for word in TINY if word not in ("--set", "--batch-size", "8")]
    return prepare(resolve(registry, overrides=[*words, "training.batch_size=8", "run.threads=1"]), registry)


def request(prepared: Prepared, axis: Any, value: int) -> Request:
    return Request(prepared.config.to_dict(), axis, value, levels=4, repeats=2)


def test_exponents_follow_from_the_points(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    def law(request: Request) -> Point:
        x = request.value
        if request.axis == "size":
            raise WalkbackError("no such size")
        memory = {"batch": 2 * x, "levels": 7, "chain": 0.01 * x}.get(request.axis, 1) * MIB
        seconds = {"batch": 3.0 * x, "levels": x**0.5, "chain": float(x)}.get(request.axis, 2.0)
        return Point((seconds / 2, seconds, 5 * seconds), int(memory), "processor time")

    monkeypatch.setattr(growth, "measured", law)
    monkeypatch.setattr(growth, "_processors", lambda: 2)
    report = growth_report(prepared, 3, {}, Silent())
    expected = {
        "batch_time_exponent": 1.0,
        "batch_memory_exponent": 1.0,
        "levels_time_exponent": 0.5,
        "levels_memory_exponent": 0.0,
        "chain_time_exponent": 1.0,
        "processes_time_exponent": 0.0,
        "batch_8": 24.0,  # a median
        "batch_8_memory": 16.0,
        "chain_320": 320.0,
    }
    assert {name: report[name].value for name in expected} == pytest.approx(expected, abs=1e-9)
    assert [figure.name for figure in report.figures if figure.name.startswith("size")] == []
    sizes = [int(warning.split("×")[1].split()[0]) for warning in report.warnings]
    assert sizes == [4, 8, 16]
    assert {series.x for series in report.series if series.name.startswith("batch")} == {
        (2.0, 4.0, 8.0, 16.0)
    }


@pytest.mark.parametrize(
    ("axis", "value"), [("batch", 3), ("levels", 2), ("levels", 9), ("size", 4), ("chain", 20)]
)
def test_a_point_is_what_it_says(
    axis: Any, value: int, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, ...]] = []

    def noting(prepared: Prepared, request: Request) -> Point:
        operator = prepared.model.operator
        operator.register_forward_pre_hook(lambda _, given: calls.append(tuple(given[0].shape)))
        return (work if request.axis != "chain" else chain)(prepared, request)

    from walkback.speed import point

    work, chain = point._walks, point._chain
    monkeypatch.setattr(point, "_walks", noting)
    monkeypatch.setattr(point, "_chain", noting)
    found = measure(request(prepared, axis, value))
    rows, levels, side = 8, 4, 8
    rows, levels, side = {
        "batch": (value, levels, side),
        "levels": (rows, value, side),
        "size": (rows, levels, value),
        "chain": (9, levels, side),
    }[axis]
    assert set(calls) == {(rows, 1, side, side)}
    assert len(calls) == (value if axis == "chain" else 3 * (levels + 1))
    assert len(found.seconds) == (1 if axis == "chain" else 2)


def test_processes_measure_together(prepared: Prepared) -> None:
    found = measured(request(prepared, "processes", 2))
    assert len(found.seconds) == 2
    assert found.clock == "elapsed time"
    assert MIB / 4 < found.memory < 100 * MIB


def test_the_reason_of_a_failure_is_its_last_line(prepared: Prepared) -> None:
    with pytest.raises(WalkbackError, match="ConfigurationError: Section"):
        measured(Request({"operator": {}}, "batch", 4, 4, 1))


def test_added_memory_is_the_peak_of_the_work() -> None:
    """64 MiB come and go, 16 MiB of them twice: the largest at once count."""
    torch.ones(256 * MIB // 4).sum()  # an earlier peak does not

    def work() -> None:
        torch.ones(64 * MIB // 4).sum()
        torch.ones(16 * MIB // 4).sum()

    assert 60 * MIB < added_by(work, CPU) < 80 * MIB


def test_scaling_refuses_a_plot_that_cannot_be_written() -> None:
    done = walkback("bench", "--scaling", "--plot", "scaling.pdf", *TINY)
    assert done.code == 2
    assert ".png" in done.err
