"""From names to objects: builds data sets, objectives and models from a configuration or a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from walkback.component import Kind
from walkback.configuration.config import COMPONENT_SECTIONS, ComponentConfig, RunConfig, component
from walkback.data import DataInfo, Dataset
from walkback.errors import CheckpointError, PluginError, WalkbackError
from walkback.extensions.registry import Registry
from walkback.model import Model
from walkback.objectives import AnyObjective, Objective, PathObjective
from walkback.operators import DataAware, TransitionOperator, initial_state, state_space
from walkback.priors import Prior
from walkback.processes import Process
from walkback.schedules import Schedule
from walkback.seeding import derive_seed, generator, lent_seed
from walkback.state import StateSpace
from walkback.storage.checkpoint import Checkpoint, load_checkpoint
from walkback.storage.description import ComponentOrigin

FIT_EXAMPLES = 5000
"""Number of training examples that set the data's moments before training."""

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model from a checkpoint, and the data it was trained on."""

    model: Model
    info: DataInfo
    checkpoint: Checkpoint


def build_dataset(config: ComponentConfig, registry: Registry) -> Dataset:
    """The data set of a configuration, not yet prepared."""
    return build_part(registry, "dataset", config, Dataset)  # type: ignore[type-abstract]


def build_objective(config: ComponentConfig, registry: Registry) -> AnyObjective:
    """The objective of a configuration, local or of whole walks."""
    cls = registry.load(registry.find("objective", config.name))
    if issubclass(cls, PathObjective):
        return build_part(registry, "objective", config, PathObjective)  # type: ignore[type-abstract]
    return build_part(registry, "objective", config, Objective)  # type: ignore[type-abstract]


def build_model(
    parts: Mapping[str, ComponentConfig],
    registry: Registry,
    data_space: StateSpace,
    seed: int,
    given: Mapping[str, Any] | None = None,
) -> Model:
    """A new model: weights drawn from the seed, moments not yet fitted.

    Args:
        parts: The chosen operator, schedule, process and prior, by section.
        registry: The plugins.
        data_space: Space of the data.
        seed: Seed of the initial weights.
        given: Instances in the place of parts, by section; the others are what they would be without these.

    Raises:
        ConfigurationError: A component does not fit the data.
        PluginError: A component cannot be built.
    """
    instances = given or {}

    def part(kind: Kind, base: type[Part], *arguments: Any) -> Part:
        own: Part | None = instances.get(kind)
        return build_part(registry, kind, parts[kind], base, *arguments) if own is None else own

    with lent_seed(derive_seed(seed, "weights")):
        operator = part("operator", TransitionOperator, data_space)  # type: ignore[type-abstract]
        prior = part("prior", Prior, state_space(operator, data_space))  # type: ignore[type-abstract]
    schedule = part("schedule", Schedule)  # type: ignore[type-abstract]
    process = part("process", Process)  # type: ignore[type-abstract]
    operator.train()
    prior.train()
    return Model(operator, schedule, process, prior)


def fit_to_data(model: Model, dataset: Dataset, seed: int) -> None:
    """Give operator and prior the moments of (at most 5,000) training examples; the model is on the CPU."""
    rows = dataset.examples("train")
    some = torch.randperm(len(rows), generator=generator("cpu", seed, "fit-order"))[:FIT_EXAMPLES]
    noise = generator("cpu", seed, "fit")
    data = dataset.states(rows[some], noise)
    if isinstance(model.operator, DataAware):
        model.operator.fit_data(data)
    with torch.no_grad():
        state, _ = initial_state(model.operator, data, noise)
    model.prior.fit(state)


def load_model(path: Path, registry: Registry, device: torch.device) -> LoadedModel:
    """The model in a checkpoint file, in evaluation mode, built by the plugins that it names.

    Raises:
        CheckpointError: The file is not a usable checkpoint, or needs a plugin that is not installed.
        PluginError: A plugin that it needs is broken.
    """
    checkpoint = load_checkpoint(path)
    description = checkpoint.description
    parts = {
        section: _known_component(path, section, checkpoint, registry)
        for section in ("operator", "schedule", "process", "prior")
    }
    model = build_model(parts, registry, checkpoint.data.space, seed=0)
    try:
        model.operator.load_state_dict(checkpoint.part("operator."))
        model.prior.load_state_dict(checkpoint.part("prior."))
    except RuntimeError as error:
        origin = description.components["operator"]
        raise CheckpointError(
            f"Got {path}, whose weights do not fit the operator '{origin.name}' of this installation; "
            f"it was written with {origin.distribution} {origin.version}."
        ) from error
    model.operator.eval().requires_grad_(False)
    return LoadedModel(model.to(device), checkpoint.data, checkpoint)


def origins(config: RunConfig, registry: Registry) -> dict[str, ComponentOrigin]:
    """Where each component of a configuration comes from, for the checkpoint."""
    found = {}
    for section, kind in COMPONENT_SECTIONS.items():
        registered = registry.find(kind, getattr(config, section).name)
        found[section] = ComponentOrigin(
            name=registered.spec.name, distribution=registered.distribution, version=registered.version
        )
    return found


def _known_component(path: Path, section: str, checkpoint: Checkpoint, registry: Registry) -> ComponentConfig:
    """One component section of a checkpoint, if a plugin for it is installed."""
    description = checkpoint.description
    origin = description.components.get(section)
    table = description.config.get(section)
    if origin is None or not isinstance(table, dict):
        raise CheckpointError(f"Got {path} without its {section}, expected a checkpoint of `walkback run`.")
    reference = f"{origin.distribution}:{origin.name}"
    broken = any(
        status.distribution == origin.distribution and status.status == "broken"
        for status in registry.plugins
    )
    if not registry.matches(COMPONENT_SECTIONS[section], reference) and not broken:
        raise CheckpointError(
            f"Got {path}, which needs the {section} '{origin.name}' of {origin.distribution} {origin.version}: "
            f"install that with pip install {origin.distribution}=={origin.version}."
        )
    return component(registry, section, {**table, "name": reference})


def build_part(
    registry: Registry, kind: Kind, config: ComponentConfig, base: type[Part], *arguments: Any
) -> Part:
    """Construct a component of a kind, a subclass of `base`; what goes wrong inside is its plugin's fault.

    Raises:
        PluginError: It cannot be built.
        WalkbackError: It says itself what is wrong.
    """
    registered = registry.find(kind, config.name)
    cls = registry.load(registered)
    if not issubclass(cls, base):
        raise PluginError(
            f"Got {cls.__qualname__} as the {kind} '{registered.qualified_name}', "
            f"expected a subclass of {base.__module__}.{base.__qualname__}."
        )
    try:
        part = cls(*arguments, **config.options)
    except WalkbackError:
        raise
    except Exception as error:
        raise PluginError(
            f"The {kind} '{registered.qualified_name}' of {registered.distribution} {registered.version} "
            f"cannot be built: {error!r}."
        ) from error
    if isinstance(part, nn.Module):
        part.train()
    return part
