"""Before a run: from a configuration to checked, built parts. Nothing is written, nothing is trained.

configuration → device, objective, data set (prepared), model (fitted to the data's moments)
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch

from walkback.building.assembly import (
    build_dataset,
    build_loggers,
    build_metrics,
    build_model,
    build_objective,
    fit_to_data,
)
from walkback.building.devices import Precision, resolve_device, resolve_precision
from walkback.building.origins import origins
from walkback.configuration.config import RunConfig
from walkback.data import Dataset, batch_of
from walkback.extensions.registry import Registry
from walkback.loggers import Logger
from walkback.measuring.estimates import require_error_of_mean
from walkback.metrics import Metric
from walkback.model import Model
from walkback.objectives import AnyObjective, PathObjective, Restricted
from walkback.operators import TransitionOperator, initial_state
from walkback.paths import require_reparametrized
from walkback.priors import Prior
from walkback.processes import Process
from walkback.readout import require_readout
from walkback.schedules import Schedule
from walkback.support.seeding import generator
from walkback.training.persistent_chains import chain_rows
from walkback.training.updates import require_fitting
from walkback.walk import Start


@dataclass(frozen=True, slots=True)
class Given:
    """Parts that were built elsewhere, each in place of the one that the configuration names; None: the named one."""

    operator: TransitionOperator | None = None
    schedule: Schedule | None = None
    prior: Prior | None = None
    process: Process | None = None
    objective: AnyObjective | None = None
    data: Dataset | None = None

    @property
    def sections(self) -> frozenset[str]:
        """The sections of the configuration that do not count."""
        return frozenset(entry.name for entry in fields(self) if getattr(self, entry.name) is not None)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything a run needs, checked and built."""

    config: RunConfig
    registry: Registry
    dataset: Dataset
    model: Model
    objective: AnyObjective
    device: torch.device
    precision: Precision
    given: Given = field(default_factory=Given)
    metrics: tuple[Metric, ...] = ()
    loggers: tuple[Logger, ...] = ()

    def names(self) -> dict[str, Any]:
        """Configuration and origins of components as a checkpoint has them: without given parts, which have no name."""
        parts = {"config": self.config.to_dict(), "components": origins(self.config, self.registry)}
        return {
            key: {
                path: value
                for path, value in part.items()
                if path.partition(".")[0] not in self.given.sections
            }
            for key, part in parts.items()
        }

    @property
    def num_parameters(self) -> int:
        """Number of trainable parameters of the operator."""
        return sum(p.numel() for p in self.model.operator.parameters() if p.requires_grad)


def prepare(
    config: RunConfig, registry: Registry, device_name: str | None = None, given: Given | None = None
) -> Prepared:
    """Check a configuration against this machine and build what it names.

    Args:
        config: What to run.
        registry: The plugins.
        device_name: A device instead of the configuration's, for one process of several.
        given: Parts instead of the configuration's; operator, process and prior are fitted to the data in place.

    Raises:
        ConfigurationError: No such device, the components do not fit each other or the data.
        DataError: The data cannot be had.
        PluginError: A component cannot be built.
    """
    given = given or Given()
    device = resolve_device(device_name or config.run.device)
    metrics, loggers = build_metrics(config, registry), build_loggers(config, registry)
    chain_rows(config.training)  # more chains than there can be are refused now
    objective = build_objective(config.objective, registry) if given.objective is None else given.objective
    require_fitting(config.training, objective)
    dataset = build_dataset(config.data, registry) if given.data is None else given.data
    dataset.prepare()
    _refuse_too_few(config, dataset)
    sections = ("operator", "schedule", "process", "prior")
    model = build_model(
        {section: getattr(config, section) for section in sections},
        registry,
        dataset.info.space,
        config.run.seed,
        {section: getattr(given, section) for section in sections},
    )
    fit_to_data(model, dataset, config.run.seed)
    model.levels()  # a schedule that cannot reach T_max says so now
    require_readout(model, config.samples.readout)
    _refuse_unfit(model, objective, dataset, config.run.seed)
    precision = resolve_precision(config.run.precision, device)
    if config.run.compile:
        model.operator.compile()
    model = model.to(device)
    return Prepared(config, registry, dataset, model, objective, device, precision, given, metrics, loggers)


@torch.no_grad()
def _refuse_unfit(model: Model, objective: AnyObjective, dataset: Dataset, seed: int) -> None:
    """Let an objective look at one step, and say now what it cannot learn from.

    One of whole walks needs heating kernels that can be differentiated through. The bound that a run ends with needs
    a walk step by step, whatever the objective.
    """
    noise = generator("cpu", seed, "look")
    data = batch_of(dataset, "train", slice(2), noise)
    state, _ = initial_state(model.operator, data.states, noise)
    with model.evaluating():
        first = model.levels()[:1]
        step = next(model.walk(Start(state, context=data.context), first, noise))
        if isinstance(objective, PathObjective):
            require_reparametrized(step.forward)
        elif isinstance(objective, Restricted):
            objective.require_fitting(step)


def _refuse_too_few(config: RunConfig, dataset: Dataset) -> None:
    """The bounds of validations and of the final evaluation need an error; say before training if they have none."""
    require_error_of_mean(
        dataset, "validation", config.training.validation_examples, "training.validation_examples", None
    )
    settings = config.evaluation
    require_error_of_mean(dataset, settings.split, settings.limit, "evaluation.limit", "evaluation.split =")
