"""What is not finite: refused at once on the CPU, and on a device without waiting, before any weights leave it."""

from __future__ import annotations

import math
from typing import Any, final

import pytest
import torch
from tests.program import run
from tests.toy.placed import Parts, everything
from tests.toy.standin import CPU, DEVICE, standin
from torch import Tensor

import walkback.training.trainer as engine
from walkback.errors import WalkbackError
from walkback.objectives import Objective
from walkback.schedules import Level
from walkback.training.finite import FiniteCheck, Moment, Trail
from walkback.training.trainer import Trainer
from walkback.training.updates import updates_for
from walkback.walk import Transition
from walkback_paper.objectives import WalkbackLoss

BAD = 2


@final
class Diverging(Objective):
    """-log p, and infinity in the walks numbered `BAD` and `BAD + 1`."""

    def __init__(self) -> None:
        self.walk = -1

    def __call__(self, transition: Transition) -> Tensor:
        if transition.level.step == 1:
            self.walk += 1
        return -transition.log_p + (math.inf if BAD <= self.walk <= BAD + 1 else 0.0)


def diverging(device: torch.device, **settings: Any) -> Trainer:
    """A trainer whose loss is infinite in two walks."""
    worker = Parts().trainer(device, **settings)
    worker._learn = updates_for(worker._settings, Diverging(), worker.model, 64)
    return worker


def weights(worker: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in worker.model.operator.state_dict().items()}


@pytest.mark.parametrize("updates", ["batch", "online"])
def test_on_the_cpu_the_update_is_refused_at_once(updates: str) -> None:
    worker = diverging(CPU, updates=updates)
    for _ in range(BAD):
        worker.walk()
    before = weights(worker)
    with pytest.raises(
        WalkbackError, match=rf"loss of inf .* at walk {BAD}, .*step 1 of .*, expected finite"
    ):
        worker.walk()
    assert all(value.equal(before[name]) for name, value in weights(worker).items())


@pytest.mark.parametrize("updates", ["batch", "online"])
def test_on_a_device_weights_stay_those_of_before(updates: str) -> None:
    """Nothing is raised until somebody looks; then the message is the CPU's. Finite walks after it move nothing."""
    with standin() as machine:
        worker = diverging(DEVICE, updates=updates)
        for _ in range(BAD):
            worker.walk()
        before = weights(worker)
        worker.walk()
        machine.waits.clear()
        for _ in range(3):
            worker.walk()
        assert machine.waits == []
        after = weights(worker)
        for ask in (worker.settle, worker.state, lambda: worker.averaged_model):
            with pytest.raises(
                WalkbackError, match=rf"loss of inf .* at walk {BAD}, .*step 1 of .*, expected finite"
            ):
                ask()
    assert all(value.equal(before[name]) for name, value in after.items())


def test_a_device_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that calls `walk` alone hears of it, too."""
    monkeypatch.setattr(engine, "_LOOK_EVERY", 5)
    with standin():
        worker = diverging(DEVICE)
        for _ in range(4):
            worker.walk()
        with pytest.raises(WalkbackError, match=f"at walk {BAD}"):
            worker.walk()
        assert worker.progress.walks == 5


def test_a_skipped_update_leaves_the_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """`found_inf` of fused AdamW: neither weights nor moments nor its count of steps move."""
    with standin():
        worker = diverging(DEVICE, ema=0.0)
        for _ in range(BAD):
            worker.walk()
        before = {
            name: value.clone() for name, value in everything(worker).items() if name.startswith("optimizer")
        }
        worker.walk()
        slots = worker._optimizer.state.values()
        after = [value for slot in slots for value in slot.values()]
    assert len(after) == len(before)
    assert all(any(value.equal(old) for old in before.values()) for value in after)


def at(walk: int, loss: Tensor) -> Moment:
    """An update after one step with this loss."""
    trail = Trail(torch.ones_like(loss), 1)
    trail.add(Level(1, 2.0), torch.ones_like(loss).reshape(1, 1), loss)
    return Moment(walk, walk, trail)


def test_the_first_of_all_is_named() -> None:
    with standin():
        check = FiniteCheck(DEVICE)
        one, nan = torch.ones((), device=DEVICE), torch.full((), math.nan, device=DEVICE)
        flags = [
            check.look(at(walk, loss), norm)
            for walk, (loss, norm) in enumerate([(one, one), (one, nan), (nan, one)])
        ]
        assert [float(flag) for flag in flags if flag is not None] == [0.0, 1.0, 1.0]
        with pytest.raises(WalkbackError, match="loss of 1 and a gradient norm of nan at walk 1"):
            check.require()
    check = FiniteCheck(CPU)
    assert check.look(at(0, torch.ones(())), torch.ones(())) is None
    check.require()


def test_nothing_that_is_not_finite_is_saved_or_drawn(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on a device whose third walk diverges, which draws, validates and saves at each later one."""
    objective = Diverging()
    monkeypatch.setattr(WalkbackLoss, "__call__", lambda self, transition: objective(transition))
    every = [
        f"training.{name}=3" for name in ("validate_every", "checkpoint_every", "sample_every", "log_every")
    ]
    with standin():
        options = [part for assignment in every for part in ("--set", assignment)]
        done = run(tmp_path / "a", "--device", "cuda", *options, steps=6)
    assert done.code == 1
    assert "at walk 2, step 1 of" in done.err
    assert "lower the learning rate (training.lr)" in done.err
    assert list((tmp_path / "a" / "checkpoints").iterdir()) == []
    assert list((tmp_path / "a" / "samples").iterdir()) == []


def test_seconds_have_what_the_device_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Walks are told in a second each; the device needs ten more for what it was told."""
    now = [0.0]
    monkeypatch.setattr(engine, "perf_counter", lambda: now[0])
    with standin():
        worker = Parts().trainer(DEVICE)
        learn = worker._learn

        def told(*arguments: Any) -> Any:
            now[0] += 1
            return learn(*arguments)

        monkeypatch.setattr(worker, "_learn", told)
        monkeypatch.setattr(engine, "wait_for", lambda device: now.__setitem__(0, now[0] + 10))
        worker.walk()
        worker.walk()
        assert worker.progress.seconds == 2.0
        worker.settle()
        assert worker.progress.seconds == 12.0
