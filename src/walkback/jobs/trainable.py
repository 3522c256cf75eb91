"""What training refuses: settings that contradict each other, and parts that do not fit."""

from __future__ import annotations

from copy import deepcopy

import torch

from walkback.building.assembly import build_objective
from walkback.building.preparation import Instances, Prepared
from walkback.configuration.config import RunConfig
from walkback.data import batch_of
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.measuring.estimates import require_error_of_mean
from walkback.objectives import PathObjective, Restricted
from walkback.operators import initial_state
from walkback.sampling.readout import require_readout
from walkback.support.seeding import generator
from walkback.support.sizes import require_room
from walkback.support.text import one_line
from walkback.training.paths import require_reparametrized
from walkback.training.persistent_chains import chain_rows
from walkback.training.updates import require_fitting
from walkback.walk import Start


def require_consistent(config: RunConfig, registry: Registry, instances: Instances) -> None:
    """Refuse settings before any data are prepared.

    Raises:
        ConfigurationError: There are more persistent chains than there can be, updates that the objective has not got,
            or an operator without weights to learn.
        PluginError: The objective cannot be built.
    """
    chain_rows(config.training)
    objective = instances.objective
    require_fitting(
        config.training, build_objective(config.objective, registry) if objective is None else objective
    )
    operator = instances.operator
    if operator is not None and not any(weight.requires_grad for weight in operator.parameters()):
        raise ConfigurationError(
            "No weight of the operator requires a gradient, so there is nothing to learn: call requires_grad_(True)."
        )


def require_trainable(prepared: Prepared) -> None:
    """Refuse parts that a run could not do with, before it begins.

    Raises:
        ConfigurationError: There is nothing to learn, the data are too few, states do not fit into memory, the schedule
            cannot reach T_max, states cannot be shown as they are to be, the objective cannot learn from the operator's
            kernels, or the operator cannot learn from single rows.
    """
    _require_weights(prepared)
    _require_enough(prepared)
    _require_sizes(prepared)
    prepared.model.levels()
    require_readout(prepared.model, prepared.config.samples.readout)
    _require_step(prepared)
    _require_single_rows(prepared)


def _require_weights(prepared: Prepared) -> None:
    if not any(weight.requires_grad for weight in prepared.model.operator.parameters()):
        raise ConfigurationError(
            f"Got the operator '{prepared.operator_name}', which has no weights to learn, expected some that require "
            "gradients: make a checkpoint of it with `walkback chain new`, or wb.chain, and sample or diagnose that."
        )


def _require_sizes(prepared: Prepared) -> None:
    """States of one batch must fit into memory; whether a network's do is seen when they are computed."""
    config, dataset = prepared.config, prepared.dataset
    num = len(dataset.examples(config.evaluation.split))
    sizes = {
        "training.batch_size": (config.training.batch_size, None),
        "evaluation.batch_size": (config.evaluation.batch_size, min(config.evaluation.limit, num)),
        "samples.num": (config.samples.num, None),
        "training.chains.pool": (config.training.chains.pool if config.training.chains.share else 0, None),
    }
    for option, (size, most) in sizes.items():
        rows = size if most is None else min(size, most)
        require_room(f"{option} = {size}", rows * dataset.info.space.size)


@torch.no_grad()
def _require_single_rows(prepared: Prepared) -> None:
    """Batches of one example, in training mode: batch norms have no variance of one row."""
    if prepared.config.training.batch_size > 1:
        return
    noise = generator(prepared.device, prepared.config.run.seed, "look")
    operator = deepcopy(prepared.model.operator).train()
    data = batch_of(prepared.dataset, "train", slice(1), noise)
    state, _ = initial_state(operator, data.states, noise)
    try:
        operator(state, prepared.model.levels()[0], data.context)
    except ValueError as error:
        raise ConfigurationError(
            f"Got training.batch_size = 1, which the operator '{prepared.operator_name}' cannot be trained with "
            f"({one_line(error)}): raise it, or choose layers without batch statistics."
        ) from error


@torch.no_grad()
def _require_step(prepared: Prepared) -> None:
    """Let the objective look at one step, and say now what it cannot learn from.

    One of whole walks needs heating kernels that can be differentiated through. The bound that a run ends with needs
    a walk step by step, whatever the objective.
    """
    model, objective = prepared.model, prepared.objective
    noise = generator(prepared.device, prepared.config.run.seed, "look")
    data = batch_of(prepared.dataset, "train", slice(2), noise)
    state, _ = initial_state(model.operator, data.states, noise)
    with model.evaluating():
        step = next(model.walk(Start(state, context=data.context), model.levels()[:1], noise))
        if isinstance(objective, PathObjective):
            require_reparametrized(step.forward)
        elif isinstance(objective, Restricted):
            objective.require_fitting(step)


def _require_enough(prepared: Prepared) -> None:
    """The bounds of validations and of the final evaluation need an error."""
    dataset, training, settings = prepared.dataset, prepared.config.training, prepared.config.evaluation
    require_error_of_mean(
        dataset, "validation", training.validation_examples, "training.validation_examples", None
    )
    require_error_of_mean(dataset, settings.split, settings.limit, "evaluation.limit", "evaluation.split =")
