"""Every component that the registry offers learns on the device."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.cuda.parts import (
    TEMPERATURES,
    WALKS,
    accepted_space,
    all_on,
    learners,
    losses,
    offers,
    operator_of,
    process_for,
    small,
    train,
)

import walkback as wb
from walkback.processes import without_bound

pytestmark = pytest.mark.cuda

UPDATES = ("online", "batch", "stacked")
ON_THE_DEVICE = {"operator", "network", "temperature_law", "schedule", "prior", "process", "objective"}
"""Kinds of components that are tested here, each component of them; "diagnostic" is in `test_commands`."""

ELSEWHERE = {"diagnostic", "dataset", "logger", "recipe", "command"}
"""Kinds that never see a device, or are made of the others."""


def assert_learned(trained: wb.Trained, device: torch.device, updates: int = WALKS) -> None:
    """It trained on the device to the end: finite losses, so many updates, a finite bound if there is one."""
    model = trained.model
    assert trained.device.type == device.type
    assert all_on(device, model.operator, model.prior)
    assert len(losses(trained)) == WALKS
    assert all(map(math.isfinite, losses(trained)))
    progress = trained.checkpoint.description.progress
    assert (progress["walks"], progress["updates"]) == (WALKS, updates)
    assert (trained.bound is None) == without_bound(model.process)
    assert trained.bound is None or math.isfinite(trained.bound.nats)


def test_no_kind_of_component_is_forgotten() -> None:
    assert {kind for kind, names in offers().items() if names} <= ON_THE_DEVICE | ELSEWHERE


@pytest.mark.parametrize("updates", UPDATES)
@pytest.mark.parametrize("name", learners())
def test_operators_learn_by_every_kind_of_update(device: torch.device, name: str, updates: str) -> None:
    trained = train(device, name, settings={"training.updates": updates})
    assert_learned(trained, device, WALKS * (len(TEMPERATURES) if updates == "online" else 1))


@pytest.mark.parametrize("name", offers()["schedule"])
def test_schedules(device: torch.device, name: str) -> None:
    if name == "betas":  # three steps, and the σ that belongs to the first
        settings = {"schedule.betas": [0.2, 0.5, 0.9], "operator.sigma_share": math.sqrt(-math.log(0.8))}
        settings |= {"operator.mean": "epsilon", "process.noise": "preserving"}
        trained = train(device, "gaussian-mlp", schedule=name, process="diffusion", settings=settings)
        assert_learned(trained, device)
        return
    process = "diffusion" if name == "learned" else "tied"
    assert_learned(train(device, "gaussian-mlp", schedule=name, process=process), device)


@pytest.mark.parametrize("name", offers()["prior"])
def test_priors(device: torch.device, name: str) -> None:
    support = accepted_space("prior", name).support
    settings = {f"prior.{option}": value for option, value in small("prior", name).items()}
    assert_learned(train(device, operator_of(support), prior=name, settings=settings), device)


@pytest.mark.parametrize("support", ["real", "binary"])
@pytest.mark.parametrize("name", offers()["process"])
def test_processes(device: torch.device, name: str, support: str) -> None:
    if (name, support) == ("linear", "binary"):
        pytest.skip("the process 'linear' heats by the linear part of a Gaussian operator")
    operator = {"real": "gaussian-mlp", "binary": "bernoulli-mlp"}[support]
    settings: dict[str, Any] = {"training.updates": "batch"}
    if (name, support) == ("diffusion", "binary"):
        settings["process.noise"] = "flips"
    assert_learned(train(device, operator, process=name, settings=settings), device)


@pytest.mark.parametrize("name", offers()["objective"])
def test_objectives(device: torch.device, name: str) -> None:
    """Those of whole walks bring a kind of update of their own."""
    settings: dict[str, Any] = {"training.updates": "batch"}
    if name == "denoising":
        settings["objective.bound"] = 0.1  # the operator's variance is learned
    assert_learned(
        train(
            device,
            "gaussian-mlp",
            objective=name,
            process=process_for(name),
            settings=settings,
        ),
        device,
    )


@pytest.mark.parametrize("checkpointing", ["always", "never"])
def test_walks_that_are_differentiated_and_computed_again(device: torch.device, checkpointing: str) -> None:
    settings = {"training.updates": "batch", "objective.checkpointing": checkpointing}
    assert_learned(train(device, "gaussian-mlp", objective="elbo", settings=settings), device)


@pytest.mark.parametrize("direction", ["cooling", "heating"])
def test_starts_from_own_chains(device: torch.device, direction: str) -> None:
    settings = {
        "training.chains.share": 0.5,
        "training.chains.pool": 8,
        "training.chains.direction": direction,
    }
    assert_learned(train(device, "gaussian-mlp", settings=settings), device)
