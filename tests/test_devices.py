"""Training and walks on a device that is not the CPU: every part in place, nothing waited for, the CPU's numbers.

The device is the stand-in of `tests/toy/standin.py`. Every built-in component of a kind is taken from the registry.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.toy.placed import (
    VERBS,
    Parts,
    Verb,
    names,
    require_no_wait_per_step,
    require_the_same,
    space_of,
    waits_of_training,
)
from tests.toy.standin import CPU, DEVICE, standin

from walkback.configuration.settings import TrainingSettings
from walkback.errors import ConfigurationError
from walkback.state import leaves
from walkback.support.world import World
from walkback.training.persistent_chains import PersistentChains
from walkback.walk import Start

UPDATES = ("online", "batch", "stacked")
WITHOUT_WEIGHTS = ("markov",)


# --- training


@pytest.mark.parametrize("updates", UPDATES)
@pytest.mark.parametrize("operator", [name for name in names("operator") if name not in WITHOUT_WEIGHTS])
def test_every_operator_trains(operator: str, updates: str) -> None:
    require_the_same(Parts(operator), updates=updates)


@pytest.mark.parametrize(
    "options",
    [
        {"variance": "tied"},
        {"variance": "softplus", "mean": "mix", "learn_alpha": True},
        {"variance": "fixed", "temperature_law": "std", "sigma_share": 0.1},
        {"network": {"level_norms": 4, "conditioning": "embedding"}},
        {"network": {"dropout": 0.3}, "smoothed": True},
        {"mean": "v", "variance": "range", "diffusion": "exploding"},
        {"mean": "epsilon", "variance": "fixed", "last": "discretized"},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_form_of_the_gaussian_trains(options: dict[str, Any]) -> None:
    for updates in ("batch", "stacked"):
        require_the_same(Parts(options={"operator": options}), updates=updates)


@pytest.mark.parametrize("norm", ["table", "batch", "layer", "group", "none"])
@pytest.mark.parametrize("operator", ["gaussian-conv", "bernoulli-conv"])
def test_every_norm_trains(operator: str, norm: str) -> None:
    require_the_same(Parts(operator, options={"operator": {"network": {"norm": norm}}}))
    if norm != "none":
        for updates in ("batch", "stacked"):
            options = {"network": {"norm": norm, "level_norms": 3}}
            require_the_same(Parts(operator, options={"operator": options}), updates=updates)


@pytest.mark.parametrize("prior", names("prior"))
def test_every_prior_follows(prior: str) -> None:
    operators = {"real": "gaussian-mlp", "binary": "bernoulli-mlp", "one-hot": "categorical"}
    require_the_same(Parts(operators[space_of(prior).support], prior))


@pytest.mark.parametrize("process", names("process"))
def test_every_process_heats(process: str) -> None:
    linear = {"operator": {"mean": "linear", "basis": "auto"}}
    require_the_same(Parts(process=process, options=linear if process == "linear" else {}))


@pytest.mark.parametrize("schedule", names("schedule"))
def test_every_schedule_is_walked(schedule: str) -> None:
    if schedule == "betas":
        operator = {"sigma_share": 0.05**0.5}  # T_max = 100, as its small options have it
        require_the_same(Parts("ddpm-mlp", schedule=schedule, options={"operator": operator}))
        return
    process = "diffusion" if schedule == "learned" else "tied"
    options = {"schedule": {"num_steps": 3} if schedule == "sqrt2" else {}}
    require_the_same(Parts(process=process, schedule=schedule, options=options))


OPTIONS_OF_OBJECTIVES: dict[str, list[dict[str, Any]]] = {
    "elbo": [{"checkpointing": "always"}, {"checkpointing": "never"}],
    "conditional": [{"kept": 0.5}, {"weighting": "snr"}],
    "denoising": [{}, {"weight": "snr", "bound": 1.0}],
}
PROCESSES = dict.fromkeys(("kl", "denoising"), "diffusion")
"""Processes of objectives that the tied one does not support."""


@pytest.mark.parametrize("objective", names("objective"))
def test_every_objective_teaches(objective: str) -> None:
    for options in OPTIONS_OF_OBJECTIVES.get(objective, [{}]):
        for updates in UPDATES:
            process = PROCESSES.get(objective, "tied")
            parts = Parts(process=process, objective=objective, options={"objective": options})
            try:
                parts.trainer(CPU, updates=updates)
            except ConfigurationError:
                assert objective == "elbo"
                assert updates != "batch"
                continue
            require_the_same(parts, updates=updates)


@pytest.mark.parametrize("direction", ["cooling", "heating"])
@pytest.mark.parametrize("operator", ["gaussian-mlp", "gaussian-conv", "bernoulli-mlp"])
def test_chains_live_on_the_device(operator: str, direction: str) -> None:
    """They are drawn from data when they begin, for which the rows are copied to the CPU, once."""
    require_the_same(Parts(operator), chains={"share": 0.5, "pool": 8, "steps": 2, "direction": direction})


def test_bf16_reaches_the_network() -> None:
    with standin() as machine:
        worker = Parts("gaussian-conv").trainer(DEVICE, precision="bf16")
        assert waits_of_training(machine, worker) == []
        assert torch.bfloat16 in machine.dtypes
        assert {value.dtype for value in worker.model.operator.parameters()} == {torch.float32}


def test_layers_draw_from_the_generator_of_the_device_which_is_put_back() -> None:
    with standin() as machine:
        torch.cuda.manual_seed(77)
        worker = Parts(options={"operator": {"network": {"dropout": 0.3}}}).trainer(DEVICE)
        worker.walk()
        assert machine.most_drawn > 0
        assert machine.draws == (77, 0)


# --- what is not training: no wait for each step


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("operator", names("operator"))
def test_steps_are_not_waited_for(operator: str, verb: Verb) -> None:
    require_no_wait_per_step(operator, verb)


def test_the_pool_of_chains_is_read_and_restored_where_it_is() -> None:
    with standin() as machine:
        parts = Parts()
        model, rows = parts.model()
        settings = TrainingSettings(batch_size=6, chains={"share": 0.5, "pool": 8})
        chains = PersistentChains(model.to(DEVICE), settings, 0, World())
        origin = Start(rows[:6].to(DEVICE))
        chains.start(origin, 0, lambda num, noise: Start(rows[:num].to(DEVICE)))
        again = PersistentChains(model, settings, 0, World())
        again.restore(chains.state())
        machine.waits.clear()
        first, second = chains.start(origin, 1, _never), again.start(origin, 1, _never)
        assert machine.waits == []
        assert torch.equal(leaves(first.state)[0], leaves(second.state)[0])


def _never(num: int, noise: torch.Generator) -> Start:
    raise AssertionError("the pool is there")
