"""Two real processes in one run directory: the second is refused by the number of the first, and a kill frees it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from filelock import FileLock
from tests.program import PATIENCE, TINY, TINY_BATCH, TINY_SETTINGS
from tests.reliability.forks import Call, Forks

from walkback.configuration.overrides import assignments
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.configuration import Choices
from walkback.jobs.train import TrainJob
from walkback.storage import rundir
from walkback.support.watch import Silent


def wait_for_checkpoint(directory: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not list(directory.glob("checkpoints/*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def errors(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("command", ["resume", "new"])
def test_a_second_trainer_is_refused_and_a_kill_frees_the_directory(
    server: Forks, tmp_path: Path, command: str
) -> None:
    directory = tmp_path / "a"
    endless = [
        "run",
        *TINY,
        "--steps",
        "1000000",
        "--set",
        "training.checkpoint_every=3",
        "--out",
        str(directory),
    ]
    (first,) = server.start(Call(endless, str(tmp_path / "first.log")))
    try:
        wait_for_checkpoint(directory)
        words = ["--resume", str(directory)] if command == "resume" else ["--out", str(directory)]
        second = Call(["run", *TINY, *words, "--steps", "1"], str(tmp_path / "second.log"))
        assert server.ended(server.start(second)) == [2]
        (message,) = errors(tmp_path / "second.log")
        assert str(directory) in message
        assert command == "new" or f"process {first}" in message
        assert (directory / ".lock").read_text().strip() == str(first)
    finally:
        os.kill(first, signal.SIGKILL)
        assert server.ended([first]) == [-signal.SIGKILL]
    walks = max(int(path.stem.removeprefix("step-")) for path in directory.glob("checkpoints/*.json"))
    third = Call(["run", "--resume", str(directory), "--steps", str(walks + 1)], str(tmp_path / "third.log"))
    assert server.ended(server.start(third)) == [0], (tmp_path / "third.log").read_text()
    assert (directory / "final.safetensors").exists()


def test_of_many_that_start_at_once_one_trains(server: Forks, tmp_path: Path) -> None:
    """Without --out each gets a directory of its own, whatever the order."""
    directory = tmp_path / "a"
    words = ["run", *TINY, "--steps", "2", "--out", str(directory)]
    processes = server.start(*(Call(words, str(tmp_path / f"{number}.log")) for number in range(4)))
    codes = server.ended(processes)
    assert codes.count(0) == 1, codes
    assert codes.count(2) == 3, [(tmp_path / f"{number}.log").read_text()[-300:] for number in range(4)]
    assert (directory / "final.safetensors").exists()


def job(steps: int, out: Path | None = None, resume: Path | None = None) -> TrainJob:
    settings = tuple(
        assignments({**TINY_SETTINGS, "training.batch_size": TINY_BATCH, "training.steps": steps})
    )
    return TrainJob(
        Choices(settings=settings if out is not None else (f"training.steps={steps}",)),
        out=out,
        resume=None if resume is None else str(resume),
    )


def test_a_run_that_came_and_went_before_the_lock_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run while another waits for the lock; `test_of_many_that_start_at_once_one_trains` met it by chance."""
    registry, directory = Registry.discover(), tmp_path / "a"
    slow, fast = (job(2, out=directory).check(registry, Silent()) for _ in range(2))
    acquire = rundir._acquire

    def late(path: Path) -> FileLock:
        monkeypatch.setattr(rundir, "_acquire", acquire)
        fast.run(Silent())
        return acquire(path)

    monkeypatch.setattr(rundir, "_acquire", late)
    with pytest.raises(ConfigurationError, match="not empty"):
        slow.run(Silent())
    assert (directory / "final.safetensors").exists()
    assert not rundir.is_locked(directory)


def test_a_run_that_went_on_after_the_check_is_not_taken_back(tmp_path: Path) -> None:
    registry, directory = Registry.discover(), tmp_path / "a"
    job(2, out=directory).check(registry, Silent()).run(Silent())
    slow, fast = (job(steps, resume=directory).check(registry, Silent()) for steps in (5, 4))
    fast.run(Silent())
    with pytest.raises(ConfigurationError, match="Another process has trained in"):
        slow.run(Silent())
    assert not rundir.is_locked(directory)
    job(5, resume=directory).check(registry, Silent()).run(Silent())
