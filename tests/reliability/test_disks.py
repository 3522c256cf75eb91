"""A full disk, a file that may not grow, a file system that is read-only: one sentence, whole files, no debris."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.program import Done, digest, run, tree, walkback
from tests.reliability.disks import largest_file, remount, small_disk

from walkback.storage.store import CheckpointStore

SAVED = (
    "--set",
    "training.checkpoint_every=1",
    "--set",
    "training.keep_checkpoints=50",
    "--set",
    "training.lr_schedule=constant",
)
STEPS = 8


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that never lacked anything."""
    directory = tmp_path_factory.mktemp("whole") / "a"
    assert run(directory, *SAVED, steps=STEPS).code == 0
    return directory


def assert_one_sentence(done: Done, code: int, words: str) -> None:
    assert done.code == code, done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.err
    assert re.search(words, errors[0]), errors
    assert "Traceback" not in done.err
    assert done.out == ""


def assert_whole(directory: Path) -> None:
    """Every checkpoint that has a manifest is what it says, and nothing half written is left."""
    store = CheckpointStore(directory / "checkpoints")
    saved, _ = store.latest()
    assert saved is not None
    assert saved.step == max(int(path.stem.removeprefix("step-")) for path in store.directory.glob("*.json"))
    assert list(directory.rglob(".walkback-*")) == []


def test_training_on_a_disk_that_fills_up(tmp_path: Path, whole: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        done = run(disk / "a", *SAVED, steps=STEPS)
        assert_one_sentence(
            done, 1, "Could not write .*: the disk is full; free some space or write elsewhere"
        )
        assert_whole(disk / "a")
        assert not (disk / "a" / "final.safetensors").exists()
        assert_one_sentence(walkback("run", "--resume", disk / "a"), 1, "the disk is full")
        assert_whole(disk / "a")
        remount(disk, "size=16m")
        assert walkback("run", "--resume", disk / "a").code == 0
        assert digest(disk / "a" / "final.safetensors") == digest(whole / "final.safetensors")


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "png"])
def test_sampling_onto_a_full_disk(tmp_path: Path, whole: Path, suffix: str) -> None:
    checkpoint = whole / "final.safetensors"
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / "old.txt").write_text("old")
        (disk / "ballast").write_bytes(bytes(56 * 1024))
        before = tree(disk)
        for out in (disk / f"a.{suffix}", disk / f"b.{suffix}"):
            done = walkback("sample", checkpoint, "--num", "200", "--out", out)
            assert_one_sentence(done, 1, "the disk is full")
            assert tree(disk) == before


def test_a_file_that_may_not_grow(tmp_path: Path, whole: Path) -> None:
    """A state is larger than its model: the model of the step is written, and the step does not count."""
    directory = tmp_path / "a"
    assert run(directory, *SAVED, steps=STEPS // 2).code == 0
    size = (whole / "checkpoints" / f"step-{STEPS}.safetensors").stat().st_size
    with largest_file(size + 4096):
        done = walkback("run", "--resume", directory, "--steps", str(STEPS))
    assert_one_sentence(done, 1, r"step-5\.state\.safetensors: the file would be larger than the limit")
    assert_whole(directory)
    assert walkback("run", "--resume", directory, "--steps", str(STEPS)).code == 0
    assert digest(directory / "final.safetensors") == digest(whole / "final.safetensors")


def test_a_file_system_that_cannot_be_written_to(tmp_path: Path) -> None:
    """It can be read from, and whatever would be written is refused by name."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        assert run(disk / "a", steps=2).code == 0
        remount(disk, "ro")
        before = tree(disk)
        checkpoint = disk / "a" / "final.safetensors"
        assert walkback("info", checkpoint).code == 0
        assert walkback("sample", checkpoint, "--num", "2", "--out", tmp_path / "a.png").code == 0
        for arguments in (
            ("sample", checkpoint, "--num", "2", "--out", disk / "a.png"),
            ("inpaint", checkpoint, "--keep", "top", "--out", disk / "a.png"),
            ("run", "--resume", disk / "a", "--steps", "4"),
            ("run", "--steps", "1", "--out", disk / "b"),
            ("evaluate", checkpoint, "--limit", "10", "--cache", disk / "cache"),
        ):
            done = walkback(*arguments)
            assert done.code in (1, 2), (arguments, done.err)
            assert_one_sentence(done, done.code, f"{disk}.*(read-only|no permission)")
            assert tree(disk) == before
