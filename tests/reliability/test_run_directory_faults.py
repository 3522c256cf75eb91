"""What happens to a run directory from outside: links, removed locks, torn and huge metrics, abandoned files."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
import torch
from tests.program import records, run, tree, walkback

from walkback.errors import ConfigurationError, WalkbackError
from walkback.storage.rundir import RunDirectory
from walkback.storage.work_cache import WorkCache
from walkback.training.metrics_file import FILE_NAME, MetricsFile, last_step, read_records
from walkback.training.trainer import Trainer


@pytest.mark.parametrize("name", [FILE_NAME, ".lock"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    directory, outside = tmp_path / "a", tmp_path / "mine.txt"
    assert run(directory, steps=2).code == 0
    outside.write_text("years of work\n")
    (directory / name).unlink()
    (directory / name).symlink_to(outside)
    done = walkback("run", "--resume", directory, "--steps", "4")
    assert done.code == 2
    assert "symbolic link" in done.err
    assert outside.read_text() == "years of work\n"


def test_a_pipe_for_metrics_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE_NAME)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        MetricsFile(tmp_path, resume_step=1)


def test_huge_metrics_take_little_memory(tmp_path: Path) -> None:
    """10 MB of lines, one of which is 8 MB long, and a torn one: read and cut short in 6 MB."""
    path = tmp_path / FILE_NAME
    with path.open("w") as file:
        for step in range(1, 30_001):
            file.write(json.dumps({"step": step, "loss": 0.123456789, "gradient_norm": 1.5}) + "\n")
            if step == 15_000:
                file.write('{"step": 1, "x": "' + "y" * 8_000_000 + '"}\n')
        file.write('{"step": 30001, "lo')
    assert path.stat().st_size > 9_000_000
    tracemalloc.start()
    try:
        assert last_step(path) == 30_000
        metrics = MetricsFile(tmp_path, resume_step=29_990)
        metrics.close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000
    assert metrics.damaged == 1
    assert sum(1 for _ in read_records(path)) == 29_990


def test_damaged_lines_in_the_middle_are_told_and_a_torn_last_one_is_not(tmp_path: Path) -> None:
    directory = tmp_path / "a"
    assert run(directory, "--set", "training.log_every=1", steps=4).code == 0
    lines = (directory / FILE_NAME).read_text().splitlines(keepends=True)
    (directory / FILE_NAME).write_text("".join([lines[0], "\x00\x00\x00\n", *lines[1:], '{"step": 4, "x']))
    done = walkback("run", "--resume", directory, "--steps", "6")
    assert done.code == 0, done.err
    assert "Left out 1 damaged lines of metrics.jsonl" in done.err
    assert [line["step"] for line in records(directory) if "loss" in line] == [1, 2, 3, 4, 5, 6]


def test_a_trainer_whose_lock_was_deleted_ends_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its fourth walk a second trainer has started in its directory, and finished."""
    directory, walk = tmp_path / "a", Trainer.walk
    second: list[int] = []

    def meanwhile(trainer: Trainer) -> torch.Tensor:
        if trainer.progress.walks == 3 and not second:
            second.append(0)
            (directory / ".lock").unlink()
            second[0] = walkback("run", "--resume", directory, "--steps", "6").code
        return walk(trainer)

    monkeypatch.setattr(Trainer, "walk", meanwhile)
    done = run(directory, "--set", "training.checkpoint_every=2", steps=8)
    assert second == [0]
    assert done.code == 1
    assert ".lock was removed while this process was training there" in done.err
    assert "Traceback" not in done.err
    newest = RunDirectory.open(directory).checkpoints.latest()[0]
    assert newest is not None
    assert newest.step == 6


def test_a_directory_knows_whether_it_is_still_held(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "a") as first:
        first.require_held()
        (tmp_path / "a" / ".lock").unlink()
        with pytest.raises(WalkbackError, match="was removed"):
            first.require_held()
        (tmp_path / "a" / "config.toml").write_text("")
        with RunDirectory.open(tmp_path / "a") as second:
            second.require_held()
            with pytest.raises(WalkbackError, match="was removed"):
                first.require_held()


def test_a_cache_that_was_killed_at_its_first_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".walkback-0123456789abcdef.tmp").write_text("{")
    WorkCache(tmp_path, {"paths": 3})
    assert sorted(tree(tmp_path)) == ["protocol.json"]
