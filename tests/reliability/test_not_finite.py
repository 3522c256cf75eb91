"""NaN and infinity in training stop before the update, keep the last good checkpoint, and are skipped if asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.program import Done, records, run, tree, walkback

import walkback as wb
from walkback.storage.store import CheckpointStore
from walkback.storage.tensorfile import read_tensors

Install = Callable[..., Path]

SAVED = (
    *("--set", "training.checkpoint_every=2", "--set", "training.log_every=1"),
    *("--set", "training.lr_schedule=constant"),
)
STEPS = 10
ONCE = """
    from walkback_paper.objectives import WalkbackLoss
    from walkback.objectives import Objective

    class Once(Objective):
        def __init__(self, *, value: str = "nan", call: int = 30):
            self.inner, self.value, self.call, self.calls = WalkbackLoss(), float(value), call, 0

        def __call__(self, transition):
            self.calls += 1
            loss = self.inner(transition)
            return loss * self.value if self.calls == self.call else loss

    @hookimpl
    def walkback_objectives():
        yield Component("once", "once_main:Once", "Is not finite once")
"""


def once(install: Install, directory: Path, *options: str, value: str = "nan") -> Done:
    """A run in which the loss of one step is not finite."""
    install("once", ONCE)
    chosen = ("--objective", "once", "--set", f"objective.value='{value}'")
    return run(directory, *SAVED, *chosen, *options, steps=STEPS)


def assert_finite(directory: Path) -> None:
    """Every file of tensors below a directory holds finite numbers."""
    files = list(directory.rglob("*.safetensors"))
    assert files
    for file in files:
        for name, tensor in read_tensors(file)[0].items():
            assert not tensor.is_floating_point() or bool(tensor.isfinite().all()), (file, name)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_loss_that_is_not_finite_stops_before_the_update(
    install: Install, tmp_path: Path, value: str
) -> None:
    done = once(install, tmp_path / "a", value=value)
    assert done.code in (1, 4), done.err
    (error,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    found = re.search(r"at walk (\d+), step \d+ of \d+ \(level \d+, temperature [\d.]+\)", error)
    assert found is not None, error
    saved, _ = CheckpointStore(tmp_path / "a" / "checkpoints").latest()
    assert saved is not None
    assert saved.step <= int(found[1]) < saved.step + 2
    assert_finite(tmp_path / "a")
    assert wb.load(saved.checkpoint) is not None


def test_a_batch_that_is_not_finite_is_skipped_and_counted(install: Install, tmp_path: Path) -> None:
    done = once(install, tmp_path / "a", "--set", "training.on_nonfinite=skip")
    assert done.code == 0, done.err
    assert [line for line in records(tmp_path / "a") if "loss" in line][-1]["skipped"] == 1
    assert_finite(tmp_path / "a")


def test_a_rate_that_ruins_weights_is_left_behind(tmp_path: Path) -> None:
    ruin = ("--lr", "1e3", "--set", "training.clip=0")
    done = run(tmp_path / "a", *SAVED, *ruin, steps=STEPS)
    assert done.code == 1
    assert_finite(tmp_path / "a")
    before = tree(tmp_path / "a" / "checkpoints")
    assert any(name.endswith(".json") for name in before)
    done = run(tmp_path / "b", *SAVED, *ruin, "--set", "training.on_nonfinite=rollback", steps=STEPS)
    assert done.code == 0, done.err
    assert records(tmp_path / "b")[-2]["rollbacks"] >= 1
    assert_finite(tmp_path / "b")
    steps = sorted(int(name.split("-")[1].split(".")[0]) for name in before if name.endswith(".json"))
    again = walkback("run", "--resume", f"{tmp_path / 'a'}@{steps[0]}", "--lr", "1e-3", "--steps", str(STEPS))
    assert again.code == 0, again.err
    assert_finite(tmp_path / "a")
