"""Files of a run that are cut short or have a flipped bit: gone on from exactly, or refused; never used as they are."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.program import digest, figures, run, walkback
from tests.reliability.watched import a_sentence

from walkback.storage.store import CheckpointStore

SAVED = ("--set", "training.checkpoint_every=3", "--set", "training.keep_checkpoints=4")
SEED = 5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of 9 walks, and one with the same settings that was stopped after 6."""
    place = tmp_path_factory.mktemp("runs")
    assert run(place / "whole", *SAVED, "--set", "training.log_every=1", steps=9).code == 0
    shutil.copytree(place / "whole", place / "half")
    for path in (*(place / "half" / "checkpoints").glob("step-9.*"), place / "half" / "final.safetensors"):
        path.unlink()
    return place


def damaged(content: bytes, kind: str, rng: random.Random) -> bytes:
    """Content that is cut short, or has one bit flipped, or a block of zeros as a crash of the machine leaves."""
    place = rng.randrange(len(content))
    if kind == "cut":
        return content[:place]
    if kind == "zeros":
        return content[:place] + bytes(min(512, len(content) - place)) + content[place + 512 :]
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


FILES = (
    *("checkpoints/step-6.safetensors", "checkpoints/step-6.state.safetensors", "checkpoints/step-6.json"),
    *("metrics.jsonl", ".lock"),
)


@pytest.mark.parametrize("kind", ["cut", "flip", "zeros"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_a_run_changes_nothing_or_is_refused(
    runs: Path, tmp_path: Path, name: str, kind: str
) -> None:
    rng = random.Random(f"{SEED} {name} {kind}")
    directory = tmp_path / "half"
    shutil.copytree(runs / "half", directory)
    (directory / name).write_bytes(damaged((directory / name).read_bytes(), kind, rng))
    done = walkback("run", "--resume", directory, "--steps", "9")
    assert done.code in (0, 2), done.err
    assert "Traceback" not in done.err
    if done.code == 2:
        a_sentence(done.err.splitlines()[-1])
        return
    assert digest(directory / "final.safetensors") == digest(runs / "whole" / "final.safetensors")
    assert figures(directory) == figures(runs / "whole") or name == "metrics.jsonl"
    if name.startswith("checkpoints/"):
        assert "Passed over the checkpoint of step 6" in done.err


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no room on the disk


ABSURD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "nested": (lambda path: path.write_text("[" * 5000), "cannot be read"),
    "huge": (_huge, "larger than 1,048,576 bytes"),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("step-6.json", kind) for kind in ABSURD]
    + [("step-6.safetensors", "pipe"), ("step-6.state.safetensors", "device")],
)
def test_what_is_no_file_of_a_checkpoint_is_passed_over(
    runs: Path, tmp_path: Path, name: str, kind: str
) -> None:
    shutil.copytree(runs / "half", tmp_path / "half")
    place = tmp_path / "half" / "checkpoints" / name
    place.unlink()
    make, said = ABSURD[kind]
    make(place)
    saved, (warning,) = CheckpointStore(place.parent).latest()
    assert saved is not None
    assert saved.step == 3
    assert said in warning
    assert name in warning


@pytest.mark.parametrize(
    "left",
    [
        ("step-3.safetensors",),
        ("step-3.safetensors", "step-3.state.safetensors"),
        ("best-3.safetensors",),
        ("best-3.safetensors", "step-3.safetensors"),
    ],
)
def test_a_run_killed_while_it_saved_its_first_checkpoint_starts_again(
    runs: Path, tmp_path: Path, left: tuple[str, ...]
) -> None:
    """No checkpoint was ever complete, so that none is lost; with two of them, or a manifest, one would be."""
    directory = tmp_path / "a"
    shutil.copytree(runs / "whole", directory)
    content = (directory / "checkpoints" / "step-3.safetensors").read_bytes()
    state = (directory / "checkpoints" / "step-3.state.safetensors").read_bytes()
    for path in [*(directory / "checkpoints").iterdir(), directory / "final.safetensors"]:
        path.unlink()
    lines = (directory / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (directory / "metrics.jsonl").write_bytes(b"".join(lines[:3]))
    for name in left:
        (directory / "checkpoints" / name).write_bytes(state if ".state." in name else content)
    done = walkback("run", "--resume", directory)
    assert done.code == 0, done.err
    assert "has no checkpoint yet: training starts from the beginning" in done.err
    assert digest(directory / "final.safetensors") == digest(runs / "whole" / "final.safetensors")
    assert figures(directory) == figures(runs / "whole")
