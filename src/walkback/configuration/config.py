"""The resolved configuration of a run: every choice made, every default filled in.

    [operator]
    name = "gaussian-mlp"
    sigma = 0.03

    [training]
    steps = 2000

A section chooses a component and sets its options, holds any number of components by name (`[loggers.tensorboard]`), or
has settings of the engine. How a configuration comes from recipes, flags and defaults is in `layering.py`.
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
"""The kind of component that each of these sections chooses."""

COLLECTIONS: Mapping[str, Kind] = {"loggers": "logger", "metrics": "metric"}
"""The kind of component of which each of these sections holds any number, `[loggers.NAME]`."""

SETTINGS_SECTIONS: Mapping[str, type[Settings]] = {
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
    "samples": SampleSettings,
    "run": RunSettings,
}
"""The sections that belong to the engine."""

SECTIONS: tuple[str, ...] = (*COMPONENT_SECTIONS, *SETTINGS_SECTIONS, *COLLECTIONS)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that determines a run; `recipe` says where it started from, and is None where it did not."""

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
        """Plain JSON types: tables by section, a component's name beside its options."""
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
        """Inverse of `to_dict`.

        Raises:
            ConfigurationError: A component is missing or unknown, or an option is.
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
        """TOML, which has no null: what is None is left out, and None again when it is read."""
        document = CONFIGURATION.stamp() | without_none(self.to_dict())
        return tomli_w.dumps({"digest": _digest(tomllib.loads(tomli_w.dumps(document))), **document})

    @classmethod
    def from_toml(cls, text: str, registry: Registry) -> RunConfig:
        """Inverse of `to_toml`, also of an older version's; raises as `from_dict`."""
        return cls.from_dict(parse_document(text, "The configuration", registry), registry)


def parse_document(text: str, origin: str, registry: Registry, prefer: str = "") -> dict[str, Any]:
    """Read a configuration or a recipe of any format as tables by section of this version's, and "recipe".

    Args:
        text: TOML.
        origin: Where it came from, for messages.
        registry: Where components are looked up that have renamed options.
        prefer: A distribution whose claim to names beats the others'.

    Raises:
        ConfigurationError: It is no TOML, has something else in it, or is of a newer format.
        PluginError: A component cannot be imported.
    """
    parsed = parse_tables(text, origin, SECTIONS, extra={"kind", "format", "recipe", "digest"})
    document = CONFIGURATION.migrated(parsed, origin[:1].lower() + origin[1:], ConfigurationError)
    moved = with_moved_options(document, registry, prefer)
    return {key: value for key, value in moved.items() if key not in ("digest", *CONFIGURATION.stamp())}


def with_moved_options(document: Mapping[str, Any], registry: Registry, prefer: str = "") -> dict[str, Any]:
    """Tables by section with the options of components where this version has them.

    Args:
        document: A configuration of today's format, as a checkpoint contains it.
        registry: Where components are looked up that have renamed options.
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
    """Return whether a `config.toml` was changed after it was written; comments and layout do not count.

    False for files of older versions, which have no digest.
    """
    document = tomllib.loads(text)
    digest = document.pop("digest", None)
    return digest is not None and digest != _digest(document)


def _digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of a TOML document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def component(
    registry: Registry, section: str, table: Mapping[str, Any], prefer: str = ""
) -> ComponentConfig:
    """Read one component section, `{"name": …, **options}`.

    Args:
        registry: Where the name is looked up.
        section: One of `COMPONENT_SECTIONS`.
        table: Plain values.
        prefer: A distribution whose claim to the name beats the others', see `Registry.find`.

    Raises:
        ConfigurationError: The name is missing or unknown, or an option is.
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
        registry: Where the names are looked up.
        section: One of `COLLECTIONS`.
        layers: Such tables, from weak to strong. In the place of options, true means none and false takes a component
            out that a weaker layer has.

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
    """A RunConfig from its parts by section."""
    return RunConfig(**{field.name: parts[field.name] for field in fields(RunConfig)[:-1]}, recipe=recipe)
