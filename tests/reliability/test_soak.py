"""The soak counts what its processes say, and fails when one of them fails, crashes, or takes too much."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.reliability.watched import OverTime, within

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"


@pytest.fixture(scope="module")
def soak() -> dict[str, Any]:
    return runpy.run_path(str(SOAK))


RECORD = {"outcomes": {"bytes refused": 3}, "failures": [], "slowest_seconds": 0.5, "peak_mib": 100}


def test_records_are_added_up(soak: dict[str, Any]) -> None:
    total = soak["Sum"]("checkpoints")
    total.add(RECORD, most_mib=200)
    total.add(RECORD | {"slowest_seconds": 2.0}, most_mib=200)
    assert (total.outcomes.total(), total.failures, total.slowest) == (6, [], 2.0)
    total.add(RECORD, most_mib=50)
    total.add(RECORD | {"failures": ["7 gaussian: NaN"]}, most_mib=200)
    assert len(total.failures) == 2
    assert "    FAILED 7 gaussian: NaN" in list(total.lines())


def test_a_process_that_crashes_is_a_failure(
    soak: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    part = soak["Part"]("data", "no_such_module", 4, 2, 100)
    total = soak["run_part"](part, seed=0, scale=1.0)
    assert len(total.failures) == 2
    assert "exit code 1" in total.failures[0]


def test_the_cases_asked_for_are_there(soak: dict[str, Any]) -> None:
    parts = {part.name: part for part in soak["PARTS"]}
    (kills,) = parts["kills"].commands(seed=0, scale=1.0)
    assert int(kills[kills.index("--kills") + 1]) >= 100
    assert int(kills[kills.index("--terms") + 1]) >= 50
    for name, fewest in (("checkpoints", 10_000), ("data", 2000), ("configurations", 2000)):
        commands = list(parts[name].commands(seed=0, scale=1.0))
        starts = [int(command[command.index("--start") + 1]) for command in commands]
        counts = [int(command[command.index("--count") + 1]) for command in commands]
        assert starts == [sum(counts[:index]) for index in range(len(counts))]
        assert sum(counts) >= fewest


def test_a_failure_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    script = SOAK.read_text("utf-8").replace('"data_mutations"', '"no_such_module"')
    monkeypatch.setattr(sys, "argv", ["soak.py", "--part", "data", "--scale", "0.001"])
    with pytest.raises(SystemExit) as left:
        exec(compile(script, str(SOAK), "exec"), {"__name__": "__main__", "__file__": str(SOAK)})
    assert left.value.code == 1


def test_a_case_that_swallows_the_alarm_is_over_time() -> None:
    def swallow() -> None:
        try:
            while True:
                pass
        except BaseException:
            return

    with pytest.raises(OverTime), within(0.1):
        swallow()
