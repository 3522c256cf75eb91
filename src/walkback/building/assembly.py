"""Build datasets, objectives and models from a configuration or a checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from walkback.building.devices import Precision, autocast, inference
from walkback.building.growth import savable
from walkback.building.origins import recorded_component
from walkback.building.restoring import Restoring
from walkback.component import INTERFACES, Component, Kind
from walkback.configuration.components import ComponentConfig
from walkback.configuration.config import RunConfig
from walkback.configuration.schema import component_options, nested_in
from walkback.data import DataInfo, Dataset, states_of
from walkback.errors import ConfigurationError, ConstructionError, PluginError, WalkbackError
from walkback.extensions.loader import CORE_DISTRIBUTION, canonical
from walkback.extensions.registered import Registered
from walkback.extensions.registry import Registry
from walkback.loggers import Logger
from walkback.metrics import Metric
from walkback.model import Model
from walkback.objectives import AnyObjective, Objective, PathObjective
from walkback.operators import ClassConditional, DataAware, TransitionOperator, initial_state, state_space
from walkback.priors import Prior
from walkback.processes import OperatorAware, Process
from walkback.schedules import Schedule
from walkback.state import StateSpace, dimensions
from walkback.storage.checkpoint import Checkpoint
from walkback.storage.description import Description
from walkback.support.faults import is_not_of_code
from walkback.support.memory_errors import is_out_of_memory, wanted_by
from walkback.support.seeding import derive_seed, generator, lent_seed
from walkback.support.text import one_line, spoken

_FIT_EXAMPLES, _FIT_NUMBERS = 5000, 2**21
"""Models are fitted to this many training examples, or to more of small ones, up to this many numbers."""

_SPACED: frozenset[Kind] = frozenset({"operator", "prior"})
"""Kinds whose constructors take the space of their states."""

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A trained model in evaluation mode, with the device and precision of its computations.

    Attributes:
        model: Operator, schedule, process and prior, on `device`.
        info: Description of the training data.
        checkpoint: Weights and description.
        device: Device of the model.
        name: Name of the file, for protocols.
        precision: Precision of the networks.
        dataset: The prepared training data, if they are available.
        path: The file; None for a model in memory.
    """

    model: Model
    info: DataInfo
    checkpoint: Checkpoint
    device: torch.device
    name: str
    precision: Precision = "fp32"
    dataset: Dataset | None = None
    path: Path | None = None

    @property
    def operator_name(self) -> str:
        """Name of the operator's component, or of its class if the model was built from an instance."""
        origin = self.checkpoint.description.components.get("operator")
        return type(self.model.operator).__name__ if origin is None else origin.name

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Use evaluation mode, and networks in `precision`, in the block."""
        with self.model.evaluating(), autocast(self.device, self.precision):
            yield

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """As `computing`, without gradients, and faster in bf16; see `inference`."""
        with self.model.evaluating(), inference(self.model.operator, self.device, self.precision):
            yield


def build_dataset(config: ComponentConfig, registry: Registry) -> Dataset:
    """Build the dataset of a configuration, without preparing it."""
    return build_part(registry, "dataset", config, Dataset)  # type: ignore[type-abstract]


def build_objective(config: ComponentConfig, registry: Registry) -> AnyObjective:
    """Build the objective of a configuration, local or of whole walks."""
    cls = registry.load(registry.find("objective", config.name))
    if issubclass(cls, PathObjective):
        return build_part(registry, "objective", config, PathObjective)  # type: ignore[type-abstract]
    return build_part(registry, "objective", config, Objective)  # type: ignore[type-abstract]


def build_metrics(config: RunConfig, registry: Registry) -> tuple[Metric, ...]:
    """Build the metrics of a configuration."""
    return tuple(build_part(registry, "metric", part, Metric) for part in config.metrics)  # type: ignore[type-abstract]


def build_loggers(config: RunConfig, registry: Registry) -> tuple[Logger, ...]:
    """Build the loggers of a configuration, without opening them."""
    return tuple(build_part(registry, "logger", part, Logger) for part in config.loggers)  # type: ignore[type-abstract]


def build_model(
    parts: Mapping[str, ComponentConfig],
    registry: Registry,
    data_space: StateSpace,
    seed: int,
    given: Mapping[str, Any] | None = None,
) -> Model:
    """Build a new model with weights drawn from the seed, not yet fitted to data.

    Args:
        parts: The chosen operator, schedule, process and prior, by section.
        registry: The plugins.
        data_space: Space of the data.
        seed: Seed of the initial weights.
        given: Instances that replace parts, by section; they do not change the weights of other parts.

    Raises:
        ConfigurationError: A component does not fit the data.
        PluginError: A component cannot be built.
    """
    instances = given or {}

    def part(kind: Kind, base: type[Part], *arguments: Any) -> Part:
        own: Part | None = instances.get(kind)
        return build_part(registry, kind, parts[kind], base, *arguments) if own is None else own

    with lent_seed(derive_seed(seed, "weights")), savable():
        operator = part("operator", TransitionOperator, data_space)  # type: ignore[type-abstract]
        _require_told(operator, data_space)
        prior = part("prior", Prior, state_space(operator, data_space))  # type: ignore[type-abstract]
        process = part("process", Process)  # type: ignore[type-abstract]
    schedule = part("schedule", Schedule)  # type: ignore[type-abstract]
    operator.train()
    process.train()
    prior.train()
    return Model(operator, schedule, process, prior)


def _require_told(operator: TransitionOperator, data_space: StateSpace) -> None:
    """Raise ConfigurationError unless the operator is conditioned on the classes of the data."""
    classes = 0 if isinstance(data_space, tuple) else data_space.classes
    own = operator.num_classes if isinstance(operator, ClassConditional) else 0
    if own != classes:
        raise ConfigurationError(
            f"Got {type(operator).__name__} for {own} classes with data of {classes} classes (data.condition), "
            f"expected equal numbers: "
            + (
                "build it for the data's own space."
                if isinstance(operator, ClassConditional)
                else "choose an operator that supports classes, or set data.condition = 'none'."
            )
        )


def fit_to_data(
    model: Model, dataset: Dataset, seed: int, fitted: Callable[[TransitionOperator], None] | None = None
) -> None:
    """Fit operator, process and prior to training examples, if there are any: a random part of a large dataset.

    Args:
        model: The model, on the CPU.
        dataset: Prepared data.
        seed: Seed of the choice of examples, and of the noise in them.
        fitted: Called with the fitted operator, before the others are fitted: may change it.
    """
    if not len(dataset.examples("train")):
        return
    order = generator("cpu", seed, "fit-order")
    # A table is fitted to all of its rows: those of a part would have other correlations by the error of sampling.
    most = max(_FIT_EXAMPLES, _FIT_NUMBERS // dimensions(model.prior.space))
    some = torch.randperm(len(dataset.examples("train")), generator=order)[:most]
    noise = generator("cpu", seed, "fit")
    data = states_of(dataset, "train", some, noise)
    for part in (model.operator, model.process):
        if isinstance(part, DataAware):
            part.fit_data(data)
    if fitted is not None:
        fitted(model.operator)
    if isinstance(model.process, OperatorAware):
        model.process.fit_operator(model.operator)
    with torch.no_grad():
        state, _ = initial_state(model.operator, data, noise)
    model.prior.fit(state)


def restoring(path: Path, registry: Registry) -> Restoring:
    """Return what loads the model of a checkpoint file; the plugins named in the file build it."""

    def build(description: Description) -> Model:
        parts = {
            section: recorded_component(path, section, description, registry)
            for section in ("operator", "schedule", "process", "prior")
        }
        return build_model(parts, registry, DataInfo.from_dict(description.data).space, seed=0)

    return Restoring(path, build)


def load_model(path: Path, registry: Registry, device: torch.device) -> LoadedModel:
    """Load the model of a checkpoint file in evaluation mode; the plugins named in the file build it.

    Raises:
        CheckpointError: The file is not a usable checkpoint, or needs a plugin that is not installed.
        PluginError: A required plugin is broken.
    """
    model, checkpoint = restoring(path, registry).load()
    model.operator.eval().requires_grad_(False)
    model.process.eval().requires_grad_(False)
    return LoadedModel(model.to(device), checkpoint.data, checkpoint, device, path.name, path=path)


def build_part(
    registry: Registry, kind: Kind, config: ComponentConfig, base: type[Part], *arguments: Any
) -> Part:
    """Build a component, a subclass of `base`; unexpected exceptions are attributed to its plugin.

    Nested components are built first. A nested operator or prior is built for the same space as the outer one.

    Raises:
        PluginError: The component cannot be built.
        WalkbackError: The component itself raised this error.
    """
    registered = registry.find(kind, config.name)
    cls = registry.load(registered)
    if not issubclass(cls, base):
        raise PluginError(
            f"Got {cls.__qualname__} as the {spoken(kind)} '{registered.qualified_name}', "
            f"expected a subclass of {base.__module__}.{base.__qualname__}."
        )
    options = built_options(registry, kind, config, *arguments)
    try:
        part = cls(*arguments, **options)
    except WalkbackError:
        raise
    except BaseException as error:
        if is_out_of_memory(error):
            raise WalkbackError(
                f"Got too little memory{wanted_by(error)} to build the {spoken(kind)} '{registered.reference}', "
                "expected it to suffice: choose smaller sizes among its options."
            ) from error
        if is_not_of_code(error):
            raise
        raise _construction_error(registered, error) from error
    if isinstance(part, nn.Module):
        part.train()
    return part


def _construction_error(registered: Registered[Component], error: BaseException) -> ConstructionError:
    """Convert the exception of a constructor; for built-in components the options are at fault (exit code 2)."""
    kind = spoken(registered.kind)
    if canonical(registered.distribution) == CORE_DISTRIBUTION:
        failure = ConstructionError(
            f"The {kind} '{registered.reference}' cannot be built with these options: {one_line(error)}."
        )
        failure.exit_code = ConfigurationError.exit_code
        return failure
    return ConstructionError(
        f"The {kind} '{registered.qualified_name}' of {registered.distribution} {registered.version} cannot be built: "
        f"{one_line(error)}."
    )


def built_options(registry: Registry, kind: Kind, config: ComponentConfig, *arguments: Any) -> dict[str, Any]:
    """Return the options of a component, with nested components replaced by instances.

    Raises:
        PluginError: A nested component cannot be built.
        WalkbackError: A nested component itself raised this error.
    """
    fields = component_options(registry.load(registry.find(kind, config.name))).model_fields

    def built(name: str, value: Any) -> Any:
        nested = nested_in(fields[name])
        if nested is None:
            return value
        if isinstance(value, tuple):
            return tuple(built(name, item) for item in value)
        if value is None:
            return None
        given = arguments if {kind, nested.kind} <= _SPACED else ()
        return build_part(registry, nested.kind, value, _interface(nested.kind), *given)

    return {name: built(name, value) for name, value in config.options.items()}


def _interface(kind: Kind) -> type:
    """Return the interface of a kind; a nested objective is one of single steps."""
    module, _, name = INTERFACES[kind][0].partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found
