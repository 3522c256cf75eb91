"""`walkback run --seeds` and `--sweep`: one directory per run, skipped and resumed by the same command."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.program import (
    TINY,
    TINY_BATCH,
    TINY_SETTINGS,
    Done,
    digest,
    records,
    run,
    running,
    tree,
    wait_until,
    walkback,
)

import walkback as wb
from walkback.errors import ConfigurationError
from walkback.jobs.sweep import parse_sweep


def sweep(place: Path, *options: str, steps: int = 4) -> Done:
    """A tiny sweep into `place`."""
    return walkback("run", *TINY, "--no-pictures", "--steps", str(steps), "--out", place, *options)


def test_runs_are_those_of_single_commands(tmp_path: Path) -> None:
    place = tmp_path / "sweep"
    done = sweep(place, "--seeds", "2", "--sweep", "operator.sigma=0.03,0.05", "--json")
    assert done.code == 0
    names = ["sigma=0.03,seed=0", "sigma=0.03,seed=1", "sigma=0.05,seed=0", "sigma=0.05,seed=1"]
    assert [Path(record["run"]).name for record in done.document()["runs"]] == names
    assert {record["state"] for record in done.document()["runs"]} == {"finished"}
    assert done.document()["differing"] == ["operator.sigma", "run.seed"]
    alone = tmp_path / "alone"
    assert run(alone, "--no-pictures", "--set", "operator.sigma=0.05", "--seed", "1", steps=4).code == 0
    assert digest(place / names[3] / "final.safetensors") == digest(alone / "final.safetensors")
    # The same command again finds nothing to do, and changes nothing.
    before = tree(place)
    again = sweep(place, "--seeds", "2", "--sweep", "operator.sigma=0.03,0.05")
    assert again.code == 0
    assert again.err.count("has ended before") == 4
    assert "finished" in again.out
    assert tree(place) == before
    # A sweep of other runs does not go on with these.
    other = sweep(place, "--seeds", "2", "--sweep", "operator.sigma=0.03,0.05", steps=6)
    assert (other.code, other.out) == (2, "")
    assert "training.steps = 4" in other.err
    assert tree(place) == before


def test_a_signal_ends_the_sweep_and_the_same_command_resumes_it(tmp_path: Path) -> None:
    place = tmp_path / "sweep"
    options = [*TINY, "--no-pictures", "--out", place, "--sweep", "training.steps=4,200"]
    options += ["--set", "training.log_every=1"]
    first, second = place / "steps=4", place / "steps=200"
    with running("run", *options) as process:
        wait_until(
            lambda: (second / "metrics.jsonl").exists() and (second / "metrics.jsonl").stat().st_size, process
        )
        process.send_signal(signal.SIGTERM)
        _, messages = process.communicate(timeout=60)
        assert process.returncode == 143
    assert "the same command resumes the sweep" in messages
    assert [record.state for record in wb.runs(first, second).runs] == ["finished", "interrupted"]
    kept, walks = tree(first), wb.runs(second).runs[0].walks
    done = walkback("run", *options)
    assert done.code == 0
    assert [record.state for record in wb.runs(place).runs] == ["finished", "finished"]
    assert tree(first) == kept
    assert 0 < walks < 200
    assert [line["step"] for line in records(second) if "loss" in line] == list(range(1, 201))


def test_a_run_that_diverges_does_not_end_the_others(tmp_path: Path) -> None:
    place = tmp_path / "sweep"
    done = sweep(place, "--sweep", "training.lr=1e18,1e-3", steps=40)
    assert done.code == 1
    assert [record.state for record in wb.runs(place, sort="training.lr").runs] == ["finished", "diverged"]
    again = sweep(place, "--sweep", "training.lr=1e18,1e-3", steps=40)
    assert (again.code, again.err.count("has ended before")) == (1, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--seeds", "0"), "at least 1"),
        (("--sweep", "sigma"), "SECTION.OPTION=VALUE"),
        (("--sweep", "operator.sigma=0.03,-1"), "operator.sigma"),
        (("--sweep", "operator.sigma=0.03,0.03"), "repeated values"),
        (("--seeds", "2", "--sweep", "run.seed=1,2"), "run.seed"),
        (("--seeds", "2", "--resume", "auto"), "--resume"),
        (("--seeds", "2", "--nproc", "2"), "--nproc"),
        (("--seeds", "2000"), "1,000"),
    ],
)
def test_wrong_sweeps_are_refused_before_any_work(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    done = sweep(tmp_path / "sweep", *options)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert not (tmp_path / "sweep").exists()


def test_a_dry_run_lists_directories(tmp_path: Path) -> None:
    done = sweep(tmp_path / "sweep", "--seeds", "3", "--dry-run")
    assert done.code == 0
    assert [line.rpartition("/")[2] for line in done.out.split()] == ["seed=0", "seed=1", "seed=2"]
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_from_python_resumes_that_of_the_command(tmp_path: Path) -> None:
    place, values = tmp_path / "sweep", {"operator.sigma": [0.03, 0.05]}
    assert sweep(place, "--sweep", "operator.sigma=0.03,0.05").code == 0
    before = tree(place)
    settings = {**TINY_SETTINGS, "training.batch_size": TINY_BATCH, "samples.pictures": False}
    found = wb.sweep(values, out=place, steps=4, settings=settings, progress=False)
    assert [run.options["operator.sigma"] for run in found.runs] == [0.03, 0.05]
    assert tree(place) == before
    axes = found.plot().axes
    assert len(axes) == 1
    assert "bound" in axes[0].get_ylabel()


def test_values_read_as_those_of_set() -> None:
    assert parse_sweep("a.b = 1, 2.5,true,'x,y'") == ("a.b", (1, 2.5, True, "x,y"))
    assert parse_sweep("a.b=elu,relu") == ("a.b", ("elu", "relu"))
    assert parse_sweep("a.b=[1, 2],[3]") == ("a.b", ([1, 2], [3]))
    assert parse_sweep("a.b=0.5") == ("a.b", (0.5,))
    for wrong in ("a.b", "a.b=", "=1", "a=1", "a.b=x,,y"):
        with pytest.raises(ConfigurationError):
            parse_sweep(wrong)
