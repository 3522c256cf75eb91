"""Checks before training: contradictory settings, and parts that do not fit together."""

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
from walkback.processes import Bridged, Reconstructing, without_bound
from walkback.sampling.readout import require_readout
from walkback.schedules import Learned
from walkback.support.seeding import generator
from walkback.support.sizes import require_room
from walkback.support.text import one_line
from walkback.training.engines import require_shardable, require_synchronizable
from walkback.training.learned_levels import require_learnable_levels
from walkback.training.paths import require_reparametrized
from walkback.training.persistent_chains import chain_rows
from walkback.training.updates import require_fitting, trained_besides
from walkback.walk import Start


def require_consistent(config: RunConfig, registry: Registry, instances: Instances) -> None:
    """Check settings before any data are prepared.

    Raises:
        ConfigurationError: There are too many persistent chains, the objective does not support the chosen updates, or
            the operator has no trainable weights.
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
    """Check the prepared parts before a run begins.

    Raises:
        ConfigurationError: There are no trainable weights, there are too few examples, states do not fit into memory,
            the schedule cannot reach T_max, the readout does not apply to the operator, the objective does not support
            the operator's kernels, or the operator does not support batches of one example.
    """
    _require_weights(prepared)
    _require_bound(prepared)
    _require_enough(prepared)
    _require_sizes(prepared)
    prepared.model.levels()
    require_readout(prepared.model, prepared.config.samples.readout)
    _require_step(prepared)
    _require_single_rows(prepared)
    if prepared.config.run.shard:
        if prepared.metrics:
            raise ConfigurationError(
                "Got run.shard = true and metrics, which measure a model that one process has: leave out either."
            )
        others = trained_besides(prepared.model, prepared.objective)
        schedule = prepared.model.schedule
        if isinstance(schedule, Learned):
            others = [*others, prepared.model.modules["schedule"]]
        require_shardable(prepared.model.operator, others)
    if prepared.config.run.sync_batch_norm:
        require_synchronizable(prepared.model.operator, prepared.device)


def _require_bound(prepared: Prepared) -> None:
    """Refuse settings that need a bound, or chains of single steps, with a process that reconstructs."""
    training = prepared.config.training
    needs = {"patience": training.patience, "chains.share": training.chains.share}
    for name, value in needs.items():
        if value and without_bound(prepared.model.process):
            raise ConfigurationError(
                f"Got training.{name} = {value} with process.name = '{prepared.config.process.name}', expected 0: "
                "operators learn to reconstruct, so there is no bound to validate and no chain of single steps."
            )


def _require_weights(prepared: Prepared) -> None:
    if not any(weight.requires_grad for weight in prepared.model.operator.parameters()):
        raise ConfigurationError(
            f"Got the operator '{prepared.operator_name}' without trainable weights, expected some that require "
            "gradients: make a checkpoint of it with `walkback chain new`, or use wb.chain, and sample or diagnose it."
        )


def _require_sizes(prepared: Prepared) -> None:
    """Check that the states of one batch fit into memory; activations of networks are not considered."""
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
    """Check that the operator supports batches of one example in training mode, unlike batch norms."""
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


def _require_step(prepared: Prepared) -> None:
    """Check that process and objective support the operator's kernels, by one step of a walk, and one of a path.

    An objective of whole walks requires reparametrized heating kernels. The bound at the end of a run requires paths
    with a density, unless the process reconstructs.
    """
    model, objective = prepared.model, prepared.objective
    noise = generator(prepared.device, prepared.config.run.seed, "look")
    data = batch_of(prepared.dataset, "train", slice(2), noise)
    state, _ = initial_state(model.operator, data.states, noise)
    with model.evaluating():
        start, levels = Start(state, context=data.context, prior=model.prior), model.levels()
        whole = isinstance(objective, PathObjective) or not isinstance(
            model.process, Reconstructing | Bridged
        )
        step = next((model.walk if whole else model.path)(start, levels[:1], noise))
        if isinstance(objective, PathObjective):
            require_reparametrized(step.forward)
        elif isinstance(objective, Restricted):
            objective.require_fitting(next(model.path(start, levels, noise)))
        if isinstance(model.schedule, Learned):
            require_learnable_levels(model, prepared.config.training, start, noise)


def _require_enough(prepared: Prepared) -> None:
    """Check that there are enough examples for the errors of the bounds of validation and final evaluation."""
    dataset, training, settings = prepared.dataset, prepared.config.training, prepared.config.evaluation
    require_error_of_mean(
        dataset, "validation", training.validation_examples, "training.validation_examples", None
    )
    require_error_of_mean(dataset, settings.split, settings.limit, "evaluation.limit", "evaluation.split =")
