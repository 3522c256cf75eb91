"""Preparation of a run: builds the parts of a configuration, without writing or training anything.

configuration → device, objective, dataset (prepared), model (fitted to data)
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from functools import partial
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
from walkback.building.initial import adopt, initial_operator
from walkback.building.origins import origins
from walkback.configuration.config import RunConfig
from walkback.data import Dataset, prepare_data
from walkback.extensions.registry import Registry
from walkback.loggers import Logger
from walkback.metrics import Metric
from walkback.model import Model
from walkback.objectives import AnyObjective
from walkback.operators import TransitionOperator
from walkback.priors import Prior
from walkback.processes import Process
from walkback.schedules import Schedule
from walkback.support.watch import Silent, Watch


@dataclass(frozen=True, slots=True)
class Instances:
    """Instances that replace the parts named by a configuration; None keeps the named part."""

    operator: TransitionOperator | None = None
    schedule: Schedule | None = None
    prior: Prior | None = None
    process: Process | None = None
    objective: AnyObjective | None = None
    data: Dataset | None = None

    @property
    def sections(self) -> frozenset[str]:
        """The sections of the configuration that instances replace."""
        return frozenset(entry.name for entry in fields(self) if getattr(self, entry.name) is not None)

    def copied(self) -> Instances:
        """Return instances with copies of the parts that are trained or fitted, so that the caller's are unchanged."""
        return replace(
            self,
            operator=deepcopy(self.operator),
            process=deepcopy(self.process),
            prior=deepcopy(self.prior),
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """The built parts of a run."""

    config: RunConfig
    registry: Registry
    dataset: Dataset
    model: Model
    objective: AnyObjective
    device: torch.device
    precision: Precision
    instances: Instances = field(default_factory=Instances)
    metrics: tuple[Metric, ...] = ()
    loggers: tuple[Logger, ...] = ()

    def names(self) -> dict[str, Any]:
        """Return configuration and origins of components for a checkpoint, without instances, which have no names."""
        parts = {"config": self.config.to_dict(), "components": origins(self.config, self.registry)}
        return {
            key: {
                path: value
                for path, value in part.items()
                if path.partition(".")[0] not in self.instances.sections
            }
            for key, part in parts.items()
        }

    @property
    def operator_name(self) -> str:
        """Name of the operator's component, or of its class if it is an instance."""
        operator = self.instances.operator
        return self.config.operator.name if operator is None else type(operator).__name__

    @property
    def num_parameters(self) -> int:
        """Number of trainable parameters of the operator."""
        return sum(p.numel() for p in self.model.operator.parameters() if p.requires_grad)


def prepare(
    config: RunConfig,
    registry: Registry,
    device_name: str | None = None,
    instances: Instances | None = None,
    watch: Watch | None = None,
    *,
    resumes: bool = False,
) -> Prepared:
    """Build the parts of a configuration on this machine.

    Args:
        config: The configuration.
        registry: The plugins.
        device_name: Device that overrides the configuration's, for one of several processes.
        instances: Instances that replace parts; operator, process and prior are fitted to the data in place.
        watch: Receives progress of long preparations.
        resumes: Whether the weights will be replaced by those of a checkpoint of the same run, so that
            `training.initial` is not read.

    Raises:
        CheckpointError: `training.initial` is not a usable checkpoint.
        ConfigurationError: The device does not exist, or components do not fit one another or the data.
        DataError: The data cannot be read or downloaded.
        PluginError: A component cannot be built.
    """
    given = instances or Instances()
    initial = None if resumes else initial_operator(config.training.initial, registry)
    device = resolve_device(device_name or config.run.device)
    metrics, loggers = build_metrics(config, registry), build_loggers(config, registry)
    objective = build_objective(config.objective, registry) if given.objective is None else given.objective
    dataset = build_dataset(config.data, registry) if given.data is None else given.data
    watch = watch or Silent()
    prepare_data(dataset, watch)
    watch.stage("Building the model, and fitting it to moments of the data", 0)
    sections = ("operator", "schedule", "process", "prior")
    model = build_model(
        {section: getattr(config, section) for section in sections},
        registry,
        dataset.info.space,
        config.run.seed,
        {section: getattr(given, section) for section in sections},
    )
    fit_to_data(
        model,
        dataset,
        config.run.seed,
        None if initial is None else partial(adopt, initial=initial, file=config.training.initial),
    )
    precision = resolve_precision(config.run.precision, device)
    model = model.to(device)
    return Prepared(config, registry, dataset, model, objective, device, precision, given, metrics, loggers)
