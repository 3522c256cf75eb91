"""Resuming: bit by bit what an uninterrupted run would have done; states of other runs are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.toy.learned import shaken
from tests.toy.statistics import normal, rng
from tests.toy.trainers import (
    MODES,
    ROWS,
    Updates,
    batchnorm_conv,
    dropout_mlp,
    everything,
    resumed,
    trainer,
    weights,
)

from walkback.errors import ConfigurationError
from walkback.measuring.bound import path_bound
from walkback.operators import TransitionOperator


@pytest.mark.parametrize("ema", [0.9, 0.0])
@pytest.mark.parametrize("updates", MODES)
@pytest.mark.parametrize(("make", "shape"), [(dropout_mlp, (3,)), (batchnorm_conv, (1, 4, 4))])
def test_resuming_is_bit_identical(
    make: Callable[[], TransitionOperator], shape: tuple[int, ...], updates: Updates, ema: float
) -> None:
    """Six walks in one go against a stop after every second one, with learning rates that change, and decay."""
    rows = normal(30, *shape)
    settings: dict[str, Any] = {
        "updates": updates,
        "ema": ema,
        "lr_schedule": "cosine",
        "warmup": 3,
        "weight_decay": 0.1,
    }
    straight = trainer(make(), rows=rows, **settings)
    stopped = trainer(make(), rows=rows, **settings)
    for number in range(6):
        if number in (0, 2, 4):
            stopped = resumed(stopped, trainer(shaken(make(), seed=number), rows=rows, **settings))
        assert straight.walk().equal(stopped.walk())
    ours, theirs = everything(straight), everything(stopped)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []
    assert (straight.progress.walks, straight.progress.updates) == (
        stopped.progress.walks,
        stopped.progress.updates,
    )


def test_resuming_needs_the_moments_of_adam() -> None:
    """With moments set to zero training goes elsewhere: the comparison above would see it."""
    straight, stopped = trainer(), trainer()
    straight.walk()
    stopped.walk()
    tensors, document = stopped.state()
    forgetful = {k: torch.zeros_like(v) if k.endswith("exp_avg") else v.clone() for k, v in tensors.items()}
    again = trainer()
    again.restore(stopped.averaged_model.tensors(), forgetful, document)
    straight.walk()
    again.walk()
    assert any(
        not a.equal(b) for a, b in zip(weights(straight).values(), weights(again).values(), strict=True)
    )


def test_what_happens_between_walks_does_not_matter() -> None:
    """Evaluating, and anything drawn from the global generator, shifts no stream of a walk."""
    quiet, disturbed = trainer(dropout_mlp()), trainer(dropout_mlp())
    for _ in range(3):
        quiet.walk()
        disturbed.walk()
        torch.rand(7)
        with disturbed.averaged_model.evaluating():
            path_bound(disturbed.averaged_model, ROWS[:4], disturbed.model.levels(), rng())
    assert all(
        a.equal(b) for a, b in zip(everything(quiet).values(), everything(disturbed).values(), strict=True)
    )


def test_training_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    worker = trainer(dropout_mlp())
    during = torch.get_rng_state()
    worker.walk()
    assert torch.get_rng_state().equal(during)
    assert before.shape == during.shape


def test_seeds_train_differently() -> None:
    one, two = trainer(seed=0), trainer(seed=1)
    assert not one.walk().equal(two.walk())


@pytest.mark.parametrize(
    "damage",
    ["seed", "operator", "prior", "progress", "moments missing", "moments of another shape"],
)
def test_a_state_of_another_run_is_refused(damage: str) -> None:
    worker = trainer()
    worker.walk()
    tensors, document = worker.state()
    averaged = worker.averaged_model.tensors()
    if damage == "seed":
        document = {**document, "seed": 5}
    elif damage == "operator":
        tensors = {**tensors, "operator.network.input.weight": torch.zeros(2, 2)}
    elif damage == "prior":
        averaged = {name: value for name, value in averaged.items() if name != "prior.mean"}
    elif damage == "progress":
        document = {"seed": 0}
    elif damage == "moments missing":
        tensors = {name: value for name, value in tensors.items() if name.startswith("operator.")}
    else:
        tensors = {k: torch.zeros(1) if k.endswith("exp_avg") else v for k, v in tensors.items()}
    with pytest.raises(ConfigurationError, match="The training state"):
        trainer().restore(averaged, tensors, document)
