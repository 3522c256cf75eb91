"""Training by time: where it ends, what the learning rate does, going on. The clock is a made one, a second a walk."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from tests.program import TINY, Done, digest, elsewhere, records, run, walkback
from tests.toy.trainers import trainer, weights

import walkback.training.trainer as engine
from walkback.configuration.settings import TrainingSettings
from walkback.storage.checkpoint import load_checkpoint
from walkback.training.optimization import learning_rate, share_done

MANY = 10**6


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at it a second goes by, so that each walk takes one."""
    monkeypatch.setattr(engine, "perf_counter", itertools.count(5.0).__next__)


def for_seconds(seconds: float) -> tuple[str, str]:
    return "--set", f"training.minutes={seconds / 60!r}"


def weights_of(directory: Path) -> Mapping[str, torch.Tensor]:
    return load_checkpoint(directory / "final.safetensors").tensors


# --- the rule


def test_the_share_follows_the_limit_that_is_nearer() -> None:
    both = TrainingSettings(steps=100, minutes=2.0)
    assert share_done(both, 10, 0.0) == 0.1
    assert share_done(both, 10, 60.0) == 0.5
    assert share_done(both, 80, 60.0) == 0.8
    assert share_done(TrainingSettings(steps=100), 10, 1e9) == 0.1


def test_the_learning_rate_runs_over_time() -> None:
    settings = TrainingSettings(steps=MANY, minutes=0.5, lr=0.2, lr_schedule="cosine", warmup=4)
    for walk, seconds in ((0, 0.0), (1, 3.0), (50, 15.0), (50, 30.0), (50, 31.0)):
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, max(walk / MANY, seconds / 30))))
        assert learning_rate(settings, walk, seconds) == pytest.approx(
            0.2 * min(1, (walk + 1) / 4) * fall, abs=1e-15
        )


@pytest.mark.usefixtures("clock")
def test_a_trainer_uses_the_rate_of_its_seconds() -> None:
    """Adam's first step has length lr: one that begins after 5 of 10 seconds has half the rate."""

    def moved(seconds: float) -> float:
        worker = trainer(steps=MANY, minutes=1 / 6, lr_schedule="cosine", ema=0.0)
        worker.progress = type(worker.progress)(seconds=seconds)
        before = weights(worker)
        worker.walk()
        return max(float((value - before[name]).abs().max()) for name, value in weights(worker).items())

    assert moved(0.0) == pytest.approx(0.01, rel=1e-3)
    assert moved(5.0) == pytest.approx(0.005, rel=1e-3)


@pytest.mark.usefixtures("clock")
def test_a_trainer_is_finished_by_either_limit() -> None:
    for steps, minutes, walks in ((MANY, 3.5 / 60, 4), (3, 10.0, 3), (3, None, 3), (0, 1.0, 0)):
        worker = trainer(steps=steps, minutes=minutes)
        while not worker.finished:
            worker.walk()
        assert worker.progress.walks == walks


# --- a run


@pytest.mark.usefixtures("clock")
def test_a_run_ends_with_its_minutes_as_it_would_with_its_walks(tmp_path: Path) -> None:
    done = run(tmp_path / "a", *for_seconds(6), "--json", steps=MANY)
    assert (done.document()["walks"], done.document()["seconds"]) == (6, 6.0)
    assert [(line["step"], line.get("seconds")) for line in records(tmp_path / "a")] == [
        (1, 1.0),
        (6, 6.0),
        (6, None),  # validated, too
    ]
    progress = load_checkpoint(tmp_path / "a" / "checkpoints" / "step-6.safetensors").description.progress
    assert progress.keys() == {"walks", "updates", "calls", "gradient_calls"}
    assert (progress["walks"], progress["updates"]) == (6, 6)
    assert (tmp_path / "a" / "samples" / "annealed.png").exists()


@pytest.mark.usefixtures("clock")
def test_the_number_of_walks_is_a_limit_still(tmp_path: Path) -> None:
    """And the rate has come down to where it is without minutes: the weights are the same."""
    cosine = ("--set", "training.lr_schedule=cosine")
    assert run(tmp_path / "a", *cosine, *for_seconds(600), "--json", steps=4).document()["walks"] == 4
    assert run(tmp_path / "b", *cosine, steps=4).code == 0
    ours, theirs = weights_of(tmp_path / "a"), weights_of(tmp_path / "b")
    assert all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.mark.usefixtures("clock")
def test_going_on_counts_the_seconds_that_are_spent(tmp_path: Path) -> None:
    """Stopped after 3 of 7 seconds, a run ends where one ends that was not stopped, with the same weights."""
    saved = ("training.lr_schedule=cosine", "training.checkpoint_every=3", "training.keep_checkpoints=9")
    options = [part for assignment in saved for part in ("--set", assignment)]
    assert run(tmp_path / "a", *options, *for_seconds(7), steps=MANY).code == 0
    whole = weights_of(tmp_path / "a")
    for path in (tmp_path / "a" / "checkpoints").iterdir():
        if "step-3" not in path.name:
            path.unlink()
    done = walkback("run", "--resume", tmp_path / "a", "--json")
    assert (done.document()["walks"], done.document()["seconds"]) == (7, 7.0)
    again = weights_of(tmp_path / "a")
    assert [name for name in whole if not again[name].equal(whole[name])] == []


@pytest.mark.usefixtures("clock")
def test_more_minutes_go_on_and_fewer_do_not(tmp_path: Path) -> None:
    assert run(tmp_path / "a", *for_seconds(3), steps=MANY).code == 0
    before = digest(tmp_path / "a" / "final.safetensors")
    fewer = walkback("run", "--resume", tmp_path / "a", *for_seconds(2), "--json")
    assert fewer.document()["walks"] == 3
    assert walkback("run", "--resume", tmp_path / "a", *for_seconds(3), "--json").document()["walks"] == 3
    assert digest(tmp_path / "a" / "final.safetensors") == before
    more = walkback("run", "--resume", tmp_path / "a", *for_seconds(5), "--json").document()
    assert (more["walks"], more["seconds"]) == (5, 5.0)


@pytest.mark.usefixtures("clock")
def test_the_bar_counts_seconds(tmp_path: Path) -> None:
    done = run(tmp_path / "a", *for_seconds(10), steps=MANY)
    lines = [line for line in done.err.splitlines() if line.startswith("Training")]
    assert [line.split()[3] for line in lines] == [f"{second}/10" for second in range(1, 11)]
    assert all(line.startswith("Training, in seconds") for line in lines)


def test_several_processes_end_together(tmp_path: Path) -> None:
    """By the clock of the first: else one would wait for another that has left."""
    done = elsewhere(
        *("run", *TINY, "--steps", str(MANY), "--nproc", "2", "--out", tmp_path / "a", "--json"),
        *for_seconds(0.5),
    )
    assert done.code == 0, done.err
    assert 1 <= done.document()["walks"] < MANY
    assert done.document()["seconds"] >= 0.5


# --- asking for it


def dry(*options: str) -> Done:
    return walkback("run", "--dry-run", *options)


def test_a_dry_run_shows_it() -> None:
    done = dry("--set", "training.minutes=8", "--steps", "7000")
    assert "minutes = 8.0" in done.out
    assert "7,000 walks or 8 minutes, whichever is first" in done.err
    assert "minutes" not in dry().out + dry().err
    assert dry("--set", "training.minutes=8", "--json").document()["config"]["training"]["minutes"] == 8.0


@pytest.mark.parametrize("value", ["0", "-1", "nan", "soon"])
def test_minutes_are_a_positive_number(value: str) -> None:
    done = dry("--set", f"training.minutes={value}")
    assert done.code == 2
    assert "training.minutes: got" in done.err
    assert "expected a" in done.err
