"""The resolved configuration of a run: every choice made, every default filled in.

    [operator]
    name = "gaussian-mlp"
    sigma = 0.03

    [training]
    steps = 2000

A section chooses a component and sets its options, contains any number of components by name (`[loggers.tensorboard]`),
or contains general settings. `layering.py` makes configurations from recipes, flags and defaults.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import tomli_w
from pydantic_core import to_jsonable_python

from walkback.component import Component, Kind
from walkback.configuration.components import (
    ComponentConfig,
    Options,
    component_table,
    configure,
    options_table,
    without_none,
)
from walkback.configuration.overrides import parse_tables, refuse_unknown_tables
from walkback.configuration.renaming import moved_component
from walkback.configuration.schema import check
from walkback.configuration.settings import (
    RENAMED,
    EvaluationSettings,
    RunSettings,
    SampleSettings,
    Settings,
    TrainingSettings,
)
from walkback.errors import ConfigurationError
from walkback.extensions.registered import Registered
from walkback.extensions.registry import Registry
from walkback.storage.migrations import CONFIGURATION

COMPONENT_SECTIONS: Mapping[str, Kind] = {
    "operator": "operator",
    "schedule": "schedule",
    "prior": "prior",
    "process": "process",
    "objective": "objective",
    "data": "dataset",
}
"""Sections that choose one component, with its kind."""

COLLECTIONS: Mapping[str, Kind] = {"loggers": "logger", "metrics": "metric"}
"""Sections that contain any number of components, `[loggers.NAME]`, with their kind."""

SETTINGS_SECTIONS: Mapping[str, type[Settings]] = {
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
    "samples": SampleSettings,
    "run": RunSettings,
}
"""Sections of general settings."""

SECTIONS: tuple[str, ...] = (*COMPONENT_SECTIONS, *SETTINGS_SECTIONS, *COLLECTIONS)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that determines a run; `recipe` is the recipe that it is based on, if any."""

    operator: ComponentConfig
    schedule: ComponentConfig
    prior: ComponentConfig
    process: ComponentConfig
    objective: ComponentConfig
    data: ComponentConfig
    training: TrainingSettings
    evaluation: EvaluationSettings
    samples: SampleSettings
    run: RunSettings
    loggers: tuple[ComponentConfig, ...] = ()
    metrics: tuple[ComponentConfig, ...] = ()
    recipe: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types: tables by section, with the name of a component among its options."""
        document: dict[str, Any] = {} if self.recipe is None else {"recipe": self.recipe}
        for section in SECTIONS:
            part = getattr(self, section)
            if isinstance(part, ComponentConfig):
                document[section] = component_table(part)
            elif section in COLLECTIONS:
                document[section] = {entry.name: options_table(entry) for entry in part}
            else:
                document[section] = to_jsonable_python(part)
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], registry: Registry) -> RunConfig:
        """Invert `to_dict`.

        Raises:
            ConfigurationError: A component or an option is missing or unknown.
            PluginError: A component cannot be imported.
        """
        refuse_unknown_tables(document, "The configuration", SECTIONS, extra={"recipe"})
        parts = {
            section: component(registry, section, document.get(section, {})) for section in COMPONENT_SECTIONS
        }
        settings = {
            section: check(section, model, document.get(section, {}), renamed=RENAMED.get(section))
            for section, model in SETTINGS_SECTIONS.items()
        }
        collections = {
            section: collection(registry, section, [Options(document.get(section, {}))])
            for section in COLLECTIONS
        }
        return assemble({**parts, **settings, **collections}, document.get("recipe"))

    def to_toml(self) -> str:
        """Convert to TOML, which has no null: options that are None are omitted, and None again when read."""
        document = CONFIGURATION.stamp() | without_none(self.to_dict())
        return tomli_w.dumps({"digest": _digest(tomllib.loads(tomli_w.dumps(document))), **document})

    @classmethod
    def from_toml(cls, text: str, registry: Registry) -> RunConfig:
        """Invert `to_toml`, also for files of older versions; raises the errors of `from_dict`."""
        return cls.from_dict(parse_document(text, "The configuration", registry), registry)


def parse_document(text: str, origin: str, registry: Registry, prefer: str = "") -> dict[str, Any]:
    """Parse a configuration or a recipe of any format; returns tables by section in the current format, and "recipe".

    Args:
        text: TOML.
        origin: Source of the text, for messages.
        registry: Resolves the names of components with renamed options.
        prefer: Distribution that takes precedence for names.

    Raises:
        ConfigurationError: The text is not TOML, has unknown entries, or is of a newer format.
        PluginError: A component cannot be imported.
    """
    parsed = parse_tables(text, origin, SECTIONS, extra={"kind", "format", "recipe", "digest"})
    document = CONFIGURATION.migrated(parsed, origin[:1].lower() + origin[1:], ConfigurationError)
    moved = with_moved_options(document, registry, prefer)
    return {key: value for key, value in moved.items() if key not in ("digest", *CONFIGURATION.stamp())}


def with_moved_options(document: Mapping[str, Any], registry: Registry, prefer: str = "") -> dict[str, Any]:
    """Return tables by section, with renamed options of components moved to their current places.

    Args:
        document: A configuration of the current format, as in a checkpoint.
        registry: Resolves the names of components with renamed options.
        prefer: See `parse_document`.

    Raises:
        PluginError: A component cannot be imported.
    """
    moved = dict(document)
    for section, kind in COMPONENT_SECTIONS.items():
        if isinstance(moved.get(section), Mapping):
            moved[section] = moved_component(registry, kind, moved[section], prefer)
    return moved


def is_edited(text: str) -> bool:
    """Return whether a `config.toml` was edited after it was written; comments and layout are ignored.

    False for files of older versions, which have no digest.
    """
    document = tomllib.loads(text)
    digest = document.pop("digest", None)
    return digest is not None and digest != _digest(document)


def _digest(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a TOML document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def component(
    registry: Registry, section: str, table: Mapping[str, Any], prefer: str = ""
) -> ComponentConfig:
    """Read one component section, `{"name": …, **options}`.

    Args:
        registry: Resolves the name.
        section: One of `COMPONENT_SECTIONS`.
        table: Plain values.
        prefer: Distribution that takes precedence for the name, see `Registry.find`.

    Raises:
        ConfigurationError: The name or an option is missing or unknown.
        PluginError: The component cannot be imported.
    """
    name = table.get("name")
    if not isinstance(name, str):
        raise ConfigurationError(f"Section [{section}] has no name, expected name = '…'.")
    registered = registry.find(COMPONENT_SECTIONS[section], name, prefer=prefer)
    return configure(registry, section, registered, [Options(table, prefer)])


def collection(registry: Registry, section: str, layers: Sequence[Options]) -> tuple[ComponentConfig, ...]:
    """Read one section of components by name, `{NAME: {**options}, …}`.

    Args:
        registry: Resolves the names.
        section: One of `COLLECTIONS`.
        layers: Such tables, from weak to strong. Instead of a table of options, true stands for no options, and false
            removes a component of a weaker layer.

    Raises:
        ConfigurationError: A name or an option is unknown, or an option is ill-typed.
        PluginError: A component cannot be imported.
    """
    found: dict[str, tuple[Registered[Component], list[Options]]] = {}
    for layer in layers:
        for name, table in layer.table.items():
            registered = registry.find(COLLECTIONS[section], name, prefer=layer.distribution)
            _, said = found.setdefault(registered.qualified_name, (registered, []))
            if table is False:
                del found[registered.qualified_name]
            elif table is True:
                said.append(Options({}))
            elif isinstance(table, Mapping):
                said.append(Options(table, layer.distribution, layer.proposed))
            else:
                raise ConfigurationError(
                    f"{section}.{name}: got {table!r:.80}, expected a table of options, true or false."
                )
    return tuple(
        configure(registry, f"{section}.{registered.spec.name}", registered, said)
        for registered, said in found.values()
    )


def assemble(parts: Mapping[str, Any], recipe: str | None) -> RunConfig:
    """Return a RunConfig made of parts by section."""
    return RunConfig(**{field.name: parts[field.name] for field in fields(RunConfig)[:-1]}, recipe=recipe)
