"""Before a run: from a configuration to built parts. Nothing is written, nothing is trained.

configuration → device, objective, dataset (prepared), model (fitted to the data's moments)
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
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

    def copied(self) -> Instances:
        """The same with copies of what learns or is fitted, so that the caller's stay as they are."""
        return replace(
            self,
            operator=deepcopy(self.operator),
            process=deepcopy(self.process),
            prior=deepcopy(self.prior),
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything a run needs, built."""

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
        """Configuration and origins of components as a checkpoint has them: without instances, which have no name."""
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
        """The operator's component, or its class where it is an instance."""
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
) -> Prepared:
    """Build what a configuration names, on this machine.

    Args:
        config: What to run.
        registry: The plugins.
        device_name: A device instead of the configuration's, for one process of several.
        instances: Parts instead of the configuration's; operator, process and prior are fitted to the data in place.
        watch: Told of what takes long.

    Raises:
        ConfigurationError: No such device, the components do not fit each other or the data.
        DataError: The data cannot be had.
        PluginError: A component cannot be built.
    """
    given = instances or Instances()
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
    fit_to_data(model, dataset, config.run.seed)
    precision = resolve_precision(config.run.precision, device)
    model = model.to(device)
    return Prepared(config, registry, dataset, model, objective, device, precision, given, metrics, loggers)
