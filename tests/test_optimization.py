"""Learning rate, clipping, the average of the weights, and the order of the examples in training."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from tests.toy.learned import blind_gaussian
from tests.toy.statistics import normal
from tests.toy.trainers import (
    MODES,
    ROWS,
    Spy,
    Updates,
    batchnorm_conv,
    trainer,
    weights,
)
from torch import Tensor

from walkback.configuration.settings import TrainingSettings
from walkback.training.optimization import WeightAverage, build_optimizer, clip_gradients, learning_rate


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("shape", ["constant", "cosine"])
def test_the_learning_rate_is_its_formula(shape: Literal["constant", "cosine"], warmup: int) -> None:
    settings = TrainingSettings(steps=100, lr=0.3, lr_schedule=shape, warmup=warmup)
    for number in range(120):
        rise = min(1.0, (number + 1) / warmup) if warmup else 1.0
        fall = 1.0 if shape == "constant" else 0.5 * (1 + np.cos(np.pi * min(number, 100) / 100))
        assert learning_rate(settings, number) == pytest.approx(0.3 * rise * fall, abs=1e-15)


def test_the_trainer_uses_the_learning_rate_of_the_walk() -> None:
    """Adam's first step has length lr in every coordinate whose gradient is not tiny: a tenth under warm-up."""
    worker = trainer(warmup=10, updates="batch")
    before = weights(worker)
    worker.walk()
    moved = max(float((value - before[name]).abs().max()) for name, value in weights(worker).items())
    assert moved == pytest.approx(0.01 / 10, rel=1e-3)


def test_weight_decay_is_decoupled() -> None:
    """θ ← (1 - lr λ) θ before Adam's step, whatever the gradient."""
    plain, decayed = trainer(weight_decay=0.0), trainer(weight_decay=0.5)
    before = [p.detach().clone() for p in plain.model.operator.parameters()]
    plain.walk()
    decayed.walk()
    pairs = zip(plain.model.operator.parameters(), decayed.model.operator.parameters(), strict=True)
    for old, (a, b) in zip(before, pairs, strict=True):
        torch.testing.assert_close(a - b, 0.01 * 0.5 * old, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("largest", "factor"), [(1.0, 1 / 10), (100.0, 1.0), (0.0, 1.0)])
def test_gradients_are_scaled_down_to_a_norm(largest: float, factor: float) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([6.0, 0.0]), torch.tensor([-8.0])
    assert clip_gradients(parameters, largest).item() == pytest.approx(10)
    assert parameters[0].grad.tolist() == pytest.approx([6 * factor, 0])
    assert parameters[1].grad.tolist() == pytest.approx([-8 * factor])


@pytest.mark.parametrize("updates", MODES)
def test_the_trainer_clips(updates: Updates) -> None:
    """Adam's first moment after one update is (1 - β₁) of the gradient: its norm shows the clipping."""

    def norm(clip: float) -> float:
        worker = trainer(updates=updates, n1=0, clip=clip, betas=(0.0, 0.999))
        worker.walk()
        moments = [value for name, value in worker.state()[0].items() if name.endswith("exp_avg")]
        return math.sqrt(sum(float(moment.square().sum()) for moment in moments))

    free = norm(0.0)
    assert free > 0.05
    assert norm(0.01) == pytest.approx(0.01, rel=1e-3)
    assert norm(1e9) == pytest.approx(free)


@pytest.mark.parametrize("updates", MODES)
def test_the_average_is_its_formula(updates: Updates) -> None:
    """θ̄ starts as the weights after the first update; then θ̄ ← d θ̄ + (1-d) θ, d = min(0.8, (1+u)/(10+u))."""
    worker = trainer(updates=updates, n1=0, ema=0.8)
    history: list[list[Tensor]] = []
    record = WeightAverage.update

    def recording(average: WeightAverage) -> None:
        history.append([p.detach().clone() for p in worker.model.operator.parameters()])
        record(average)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WeightAverage, "update", recording)
        for _ in range(30):
            worker.walk()
    expected = history[0]
    for u, current in enumerate(history[1:], start=2):
        d = min(0.8, (1 + u) / (10 + u))
        expected = [d * mean + (1 - d) * weight for mean, weight in zip(expected, current, strict=True)]
    assert len(history) == worker.progress.updates
    for ours, theirs in zip(worker.averaged_model.operator.parameters(), expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-12, atol=1e-13)
        assert not ours.requires_grad


def test_buffers_of_the_average_follow_the_operator() -> None:
    """Statistics of batch norm are not averaged twice."""
    worker = trainer(batchnorm_conv(), rows=normal(30, 1, 4, 4), ema=0.9)
    for _ in range(3):
        worker.walk()
    averaged = dict(worker.averaged_model.operator.named_buffers())
    assert all(value.equal(averaged[name]) for name, value in worker.model.operator.named_buffers())
    assert "network.convolutions.0.norm.norm.running_mean" in averaged


def test_without_an_average_the_weights_themselves_are_sampled() -> None:
    worker = trainer(ema=0.0)
    assert worker.averaged_model.operator is worker.model.operator


def test_the_optimizer_is_the_settings() -> None:
    settings = TrainingSettings(lr=0.02, betas=(0.5, 0.6), weight_decay=0.3)
    (group,) = build_optimizer(blind_gaussian().parameters(), settings).param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.02, (0.5, 0.6), 0.3)


def test_each_epoch_starts_a_walk_from_every_example_once() -> None:
    spy = Spy()
    worker = trainer(objective=spy, updates="batch", batch_size=10)
    for _ in range(10):
        worker.walk()
    seen = torch.cat(spy.origins)
    for epoch in seen.split(50):
        assert sorted(epoch[:, 0].tolist()) == sorted(ROWS[:, 0].tolist())
    assert not seen[:50].equal(seen[50:])
