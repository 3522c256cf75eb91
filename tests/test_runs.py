"""`walkback runs` and `wb.runs`: what run directories say, damaged ones included."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.program import TINY, Done, run, running, tree, wait_until, walkback

import walkback as wb
from walkback.errors import ConfigurationError
from walkback.reporting.record import RunRecord
from walkback.reporting.table import RunTable
from walkback.storage.outcome import Outcome, read_outcome
from walkback.storage.rundir import RunDirectory, is_locked

CONFIG = 'kind = "configuration"\nformat = 3\n'


def fake(place: Path, *, seed: int = 0, sigma: float = 0.03, steps: int = 100) -> Path:
    """A run directory with a configuration and nothing else."""
    place.mkdir(parents=True)
    text = f'{CONFIG}[operator]\nname = "toy"\nsigma = {sigma}\n[training]\nsteps = {steps}\n[run]\nseed = {seed}\n'
    (place / "config.toml").write_text(text)
    return place


def log(place: Path, *records: dict[str, Any]) -> None:
    """Write a metrics file."""
    (place / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def validated(step: int, nats: float) -> dict[str, Any]:
    """A record of a validation."""
    return {"step": step, "validation_nats": nats, "validation_nats_error": 0.1}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Four runs: a good one, a diverged one, one that was killed, one that is damaged."""
    root = tmp_path / "runs"
    good = fake(root / "good", sigma=0.05)
    log(good, validated(50, 2.5), validated(75, 2.25), validated(100, 2.75), {"step": 100, "seconds": 4.0})
    Outcome.model_validate(
        {"state": "finished", "walks": 100, "seconds": 4.0, "bound": {"nats": 2.4, "nats_error": 0.02}}
    ).write(good)
    bad = fake(root / "sweep" / "bad")
    log(bad, {"step": 10, "loss": 1.0, "seconds": 2.0})
    Outcome(state="diverged", walks=12, reason="The loss is not finite").write(bad)
    killed = fake(root / "sweep" / "killed", seed=1)
    log(killed, validated(20, 3.0), {"step": 20, "seconds": 10.0})
    Outcome(state="finished", walks=10).write(killed)  # of the ten walks that it was first asked for
    torn = fake(root / "torn")
    (torn / "config.toml").write_text("[training\n")
    (root / "empty").mkdir()
    return root


def names(done: Done) -> list[str]:
    """The runs in a JSON document, without their folders."""
    return [Path(record["run"]).name for record in done.document()["runs"]]


def test_facts_of_every_run(place: Path) -> None:
    before = tree(place)
    done = walkback("runs", "list", place, "--json")
    assert done.code == 0
    found = {Path(record["run"]).name: record for record in done.document()["runs"]}
    assert {name: record["state"] for name, record in found.items()} == {
        "good": "finished",
        "bad": "diverged",
        "killed": "interrupted",
        "torn": "damaged",
    }
    good = found["good"]
    assert (good["best"]["nats"], good["best"]["walks"], good["final"]["nats"]) == (2.25, 75, 2.4)
    assert (good["walks_per_second"], good["walks"], good["steps"]) == (25.0, 100, 100)
    assert found["killed"]["walks_per_second"] == 2.0
    assert found["killed"]["final"] is None
    assert found["bad"]["walks"] == 12
    assert "not finite" in found["bad"]["problem"]
    assert "TOML" in found["torn"]["problem"]
    assert done.document()["differing"] == ["operator.sigma", "run.seed"]
    assert tree(place) == before


def test_sorted_and_filtered(place: Path) -> None:
    assert names(walkback("runs", "list", place, "--json", "--sort", "bound"))[:2] == ["good", "killed"]
    assert names(walkback("runs", "list", place, "--json", "--sort", "speed"))[:3] == [
        "good",
        "bad",
        "killed",
    ]
    assert names(walkback("runs", "list", place, "--json", "--sort", "sigma"))[-2:] == ["good", "torn"]
    assert names(walkback("runs", "list", place, "--json", "--filter", "sigma=5e-2")) == ["good"]
    assert names(walkback("runs", "list", place, "--json", "--filter", "state=damaged")) == ["torn"]
    options = ("--filter", "run.seed!=1", "--filter", "state!=damaged")
    assert names(walkback("runs", "list", place, "--json", *options)) == ["good", "bad"]


def test_csv_has_a_row_a_run(place: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(walkback("runs", "list", place, "--csv").out)))
    assert [Path(row["run"]).name for row in rows] == ["good", "bad", "killed", "torn"]
    assert (rows[0]["best_nats"], rows[0]["operator.sigma"], rows[2]["run.seed"]) == ("2.25", "0.05", "1")


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize("command", ["list", "compare"])
def test_every_width(place: Path, monkeypatch: pytest.MonkeyPatch, columns: int, command: str) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(place.parent)
    done = walkback("runs", command)  # `runs` is where runs are
    assert done.code == 0
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= columns
    if columns == 200:
        row = next(line for line in lines if "2.25 ± 0.10 nats" in line)
        assert command == "compare" or ("finished" in row and "operator.sigma=0.05" in row)
    text = "".join(line.strip() for line in lines).replace(" ", "")
    assert "2.25±0.10nats" in text


def test_show_has_every_option(place: Path) -> None:
    done = walkback("runs", "show", place / "good")
    assert ("training.steps  100" in done.out, "2.40 ± 0.02" in done.out) == (True, False)
    assert "2.400 ± 0.020 nats" in done.out


def test_text_of_files_cannot_steer_a_terminal(tmp_path: Path) -> None:
    run_directory = fake(tmp_path / "runs" / "a")
    (run_directory / "config.toml").write_text(
        CONFIG + '[operator]\nname = "\\u001b[31m[bold]red"\nx = "=1+1"\n'
    )
    fake(tmp_path / "runs" / "b\x1b[2J")
    for command in (("list",), ("compare",), ("list", "--csv")):
        done = walkback("runs", *command, tmp_path / "runs")
        assert "\x1b" not in done.out + done.err
        if "--csv" not in command:
            assert "[bold]" in done.out.replace("\n", "").replace(" ", "")
    assert '"\'=1+1"' in done.out or ",'=1+1" in done.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sort", "bund"), "did you mean 'bound'"),
        (("--filter", "sigma"), "KEY=VALUE"),
        (("--filter", "sigmaa=1"), "No run has an option 'sigmaa'"),
    ],
)
def test_wrong_requests(place: Path, options: tuple[str, ...], words: str) -> None:
    done = walkback("runs", "list", place, *options)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_a_missing_place_is_refused(tmp_path: Path) -> None:
    done = walkback("runs", "list", tmp_path / "none")
    assert done.code == 2
    assert "does not exist" in done.err


def test_files_that_are_no_files(tmp_path: Path) -> None:
    # Opening a pipe would wait for a writer.
    place = fake(tmp_path / "a")
    for name in ("metrics.jsonl", "result.json", ".lock"):
        os.mkfifo(place / name)
    (record,) = wb.runs(place).runs
    assert (record.state, record.walks) == ("interrupted", 0)
    assert "not a regular file" in record.problem


def test_a_finished_run_and_its_checkpoint(tmp_path: Path) -> None:
    place = tmp_path / "run"
    assert run(place).code == 0
    outcome = read_outcome(place)
    assert outcome is not None
    assert (outcome.state, outcome.walks) == ("finished", 6)
    table = wb.runs(place, place / "final.safetensors")
    assert [record.state for record in table.runs] == ["finished", "checkpoint"]
    finished, checkpoint = table.runs
    assert finished.options == checkpoint.options
    assert table.differing == ()
    assert finished.final is not None
    assert finished.final.nats == outcome.bound.nats if outcome.bound else False
    assert [row["walks"] for row in table.rows()] == [6, 6]
    assert "finished" in str(table)


def test_a_run_that_goes_on_drops_its_old_result(tmp_path: Path) -> None:
    place = tmp_path / "run"
    run(place)
    assert walkback("run", "--resume", place, "--steps", "8").code == 0
    outcome = read_outcome(place)
    assert outcome is not None
    assert outcome.walks == 8
    assert walkback("run", "--resume", f"{place}@6", "--steps", "7").code == 0
    kept = read_outcome(place / "checkpoints" / "superseded")
    assert kept is not None
    assert kept.walks == 8
    assert wb.runs(place).runs[0].walks == 7


def test_a_lock_makes_a_run_running(tmp_path: Path) -> None:
    place = fake(tmp_path / "run")
    assert not is_locked(place)
    with RunDirectory.open(place):
        assert wb.runs(place).runs[0].state == "running"
    assert not is_locked(place)
    assert wb.runs(place).runs[0].state == "interrupted"


def test_a_signal_is_on_record(tmp_path: Path) -> None:
    place = tmp_path / "run"
    with running("run", *TINY, "--steps", "100000", "--out", place) as process:
        wait_until((place / "metrics.jsonl").is_file, process)
        assert walkback("runs", "list", place, "--json").document()["runs"][0]["state"] == "running"
        wait_until(lambda: (place / "metrics.jsonl").stat().st_size, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    outcome = read_outcome(place)
    assert outcome is not None
    assert outcome.state == "interrupted"


def test_divergence_is_on_record(tmp_path: Path) -> None:
    place = tmp_path / "run"
    assert run(place, "--lr", "1e18", steps=40).code == 1
    (record,) = wb.runs(place).runs
    assert record.state == "diverged"
    assert "finite" in record.problem


def test_twin_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        wb.runs(tmp_path / "none")


def test_runs_of_other_kinds_are_set_apart_by_their_kind() -> None:
    def record(name: str, **options: Any) -> RunRecord:
        return RunRecord(
            Path(name), "finished", options={path.replace("__", "."): v for path, v in options.items()}
        )

    many = {f"operator__o{number}": number for number in range(20)}
    found = RunTable(
        (
            record("a", operator__name="x", data__name="d", run__seed=0, operator__sigma=1.0),
            record("b", operator__name="x", data__name="d", run__seed=1, operator__sigma=1.0),
            record("c", operator__name="y", data__name="d", run__seed=0, **many),
            record("d", operator__name="y", data__name="d", run__seed=0, **dict.fromkeys(many, 99)),
        )
    )
    first, second, third, _ = found.differences()
    assert (first, second) == ("operator.name=x run.seed=0", "operator.name=x run.seed=1")
    assert third.startswith("operator.name=y operator.o0=0 ")
    assert third.endswith(" and 13 more")
    assert set(found.differing) > {"operator.sigma", "operator.o19"}
