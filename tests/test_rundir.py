"""Run directories: one trainer at a time, and after any accident a checkpoint to go on from."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from walkback.errors import ConfigurationError
from walkback.storage.checkpoint import Checkpoint, TrainingState, load_checkpoint, load_training_state
from walkback.storage.description import describe
from walkback.storage.rundir import RunDirectory, default_stem, newest, require_free
from walkback.storage.store import CheckpointStore

HOLD = """
import sys
from pathlib import Path
from walkback.storage.rundir import RunDirectory

with RunDirectory.open(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_rundir import model, state
from walkback.storage.rundir import RunDirectory

renames, real = int(sys.argv[3]), os.replace

def replace(*arguments):
    global renames
    renames -= 1
    os.kill(os.getpid(), signal.SIGKILL) if renames < 0 else real(*arguments)

run = RunDirectory.open(Path(sys.argv[1]))
os.replace = replace
run.checkpoints.save(20, model(20), state(20))
"""


def model(walks: int) -> Checkpoint:
    data = {"name": "", "shape": [1], "support": "real", "bins": None, "preprocessing": [], "splits": {}}
    description = describe(
        config={},
        components={},
        data=data | {"fingerprint": ""},
        progress={"walks": walks},
        weights="raw",
    )
    return Checkpoint(description, {"operator.walks": torch.tensor(float(walks))})


def state(walks: int) -> TrainingState:
    return TrainingState({}, {"walks": walks})


def damage(path: Path) -> None:
    """Flip one bit of the last byte."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    """A new run."""
    with RunDirectory.create(tmp_path / "runs" / "a") as directory:
        directory.config.write_text("")
        yield directory


@pytest.fixture
def store(run: RunDirectory) -> CheckpointStore:
    """Its checkpoints of steps 5, 10 and 100."""
    for step in (5, 10, 100):
        run.checkpoints.save(step, model(step), state(step))
    return run.checkpoints


def test_the_layout_is_that_of_the_contract(run: RunDirectory) -> None:
    run.checkpoints.save(7, model(7), state(7))
    names = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    step = {f"checkpoints/step-7{end}" for end in (".safetensors", ".state.safetensors", ".json")}
    assert names == step | {"config.toml", ".lock"}
    assert run.final == run.path / "final.safetensors"
    assert run.sample("step-7") == run.path / "samples" / "step-7.png"
    assert run.sample("x").parent.is_dir()


def test_a_directory_with_anything_in_it_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    words = re.escape(f"not empty; go on with it by --resume {tmp_path}, or choose another --out")
    for refuse in (require_free, RunDirectory.create):
        with pytest.raises(ConfigurationError, match=words):
            refuse(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_looking_whether_a_directory_is_free_makes_nothing(tmp_path: Path) -> None:
    require_free(tmp_path / "runs" / "a")
    assert list(tmp_path.iterdir()) == []


def test_the_run_started_last_is_found(tmp_path: Path) -> None:
    stem = tmp_path / "a"
    assert newest(stem) is None
    for age, name in enumerate(("a-2", "a", "a-10", "a-mnist", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text("")
        os.utime(tmp_path / name / "config.toml", (age, age))
    (tmp_path / "a-11").mkdir()
    assert newest(stem) == tmp_path / "a-10"


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path).close()
    assert (tmp_path / "checkpoints").is_dir()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="which is a file"):
        RunDirectory.create(tmp_path / "file")
    with pytest.raises(ConfigurationError, match="file is a file"):
        RunDirectory.create(tmp_path / "file" / "below")


def test_unnamed_runs_are_numbered(tmp_path: Path) -> None:
    stem = default_stem("gaussian-mlp", "some/hub id", tmp_path / "runs")
    names = []
    for _ in range(3):
        with RunDirectory.create_next(stem) as directory:
            names.append(directory.path.name)
    assert names == [f"gaussian-mlp-some-hub-id{end}" for end in ("", "-2", "-3")]


@pytest.mark.parametrize(
    ("operator", "data"), [("a", "../../etc"), ("a", "/"), ("..", ".."), ("a", "x" * 300)]
)
def test_the_default_name_is_one_usable_name(operator: str, data: str) -> None:
    stem = default_stem(operator, data)
    assert stem.parent == Path("runs")
    assert stem.name not in ("", ".", "..")
    assert len(stem.name) < 100


def test_what_is_no_run_directory_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"expected a run directory with a config\.toml"):
        RunDirectory.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_second_trainer_is_refused_by_the_number_of_the_first(run: RunDirectory) -> None:
    with pytest.raises(ConfigurationError, match=f"in which process {os.getpid()} is working"):
        RunDirectory.open(run.path)
    run.close()
    RunDirectory.open(run.path).close()


def test_the_lock_of_a_killed_process_is_gone(run: RunDirectory) -> None:
    run.close()
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigurationError, match=f"in which process {holder.pid} is working"):
            RunDirectory.open(run.path)
        holder.kill()
        holder.wait()
    RunDirectory.open(run.path).close()


def test_the_newest_whole_checkpoint_is_found_by_number(store: CheckpointStore) -> None:
    saved, warnings = store.latest()
    assert saved is not None
    assert (saved.step, warnings) == (100, [])
    assert load_checkpoint(saved.checkpoint).part("operator.")["walks"] == 100
    assert load_training_state(saved.state).document == {"walks": 100}


@pytest.mark.parametrize("end", [".safetensors", ".state.safetensors", ".json"])
def test_a_damaged_file_is_passed_over_with_a_warning(store: CheckpointStore, end: str) -> None:
    damage(store.directory / f"step-100{end}")
    saved, warnings = store.latest()
    assert saved is not None
    assert saved.step == 10
    assert len(warnings) == 1
    assert warnings[0].startswith("Passed over the checkpoint of step 100 in ")


@pytest.mark.parametrize("end", [".safetensors", ".state.safetensors", ".json"])
def test_a_missing_file_is_named(store: CheckpointStore, end: str) -> None:
    (store.directory / f"step-100{end}").unlink()
    saved, warnings = store.latest()
    assert saved is not None
    assert saved.step == 10
    assert f"step-100{end} is missing" in warnings[0]


def test_a_checkpoint_of_another_step_does_not_pass_for_this(store: CheckpointStore) -> None:
    for end in (".safetensors", ".state.safetensors", ".json"):
        (store.directory / f"step-200{end}").write_bytes((store.directory / f"step-100{end}").read_bytes())
    saved, _ = store.latest()
    assert saved is not None
    assert saved.step == 100


def test_without_checkpoints_there_is_none(run: RunDirectory) -> None:
    assert run.checkpoints.latest() == (None, [])


def test_pruning_keeps_the_newest(store: CheckpointStore) -> None:
    store.prune(2)
    assert store.steps() == [100, 10]
    assert len(list(store.directory.iterdir())) == 6


def test_pruning_never_deletes_the_last_whole_checkpoint(store: CheckpointStore) -> None:
    for step in (10, 100):
        damage(store.directory / f"step-{step}.safetensors")
    store.prune(1)
    assert store.steps() == [5]
    saved, _ = store.latest()
    assert saved is not None
    assert saved.step == 5


def test_later_steps_can_be_discarded(store: CheckpointStore) -> None:
    store.discard_after(10)
    assert store.steps() == [10, 5]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_while_saving_leaves_the_checkpoint_before(run: RunDirectory, renames: int) -> None:
    run.checkpoints.save(10, model(10), state(10))
    run.close()
    command = [sys.executable, "-c", KILLED, str(run.path), str(Path(__file__).parent), str(renames)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert list(run.path.rglob(".walkback-*"))
    with RunDirectory.open(run.path) as again:
        assert not list(run.path.rglob(".walkback-*"))
        saved, warnings = again.checkpoints.latest()
        assert saved is not None
        assert saved.step == 10
        assert len(warnings) == (renames > 0)
        again.checkpoints.save(20, model(20), state(20))
        assert again.checkpoints.latest()[1] == []
