"""The resolved configuration of a run: every choice made, every default filled in.

    [operator]
    name = "gaussian-mlp"
    sigma = 0.03

    [training]
    steps = 2000

A section chooses a component and sets its options, or has settings of the engine. How a configuration comes
from recipes, flags and defaults is in `layering.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import tomli_w
from pydantic_core import to_jsonable_python

from walkback.component import Kind
from walkback.configuration.overrides import parse_tables, refuse_unknown_tables
from walkback.configuration.schema import check, validate
from walkback.configuration.settings import (
    EvaluationSettings,
    RunSettings,
    SampleSettings,
    Settings,
    TrainingSettings,
)
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry

COMPONENT_SECTIONS: Mapping[str, Kind] = {
    "operator": "operator",
    "schedule": "schedule",
    "prior": "prior",
    "process": "process",
    "objective": "objective",
    "data": "dataset",
}
"""The kind of component that each of these sections chooses."""

SETTINGS_SECTIONS: Mapping[str, type[Settings]] = {
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
    "samples": SampleSettings,
    "run": RunSettings,
}
"""The sections that belong to the engine."""

SECTIONS: tuple[str, ...] = (*COMPONENT_SECTIONS, *SETTINGS_SECTIONS)


@dataclass(frozen=True, slots=True)
class ComponentConfig:
    """A chosen component: its name, and all of its options as its `__init__` takes them."""

    name: str
    options: Mapping[str, Any]


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
    recipe: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: tables by section, a component's name beside its options."""
        document: dict[str, Any] = {} if self.recipe is None else {"recipe": self.recipe}
        for section in SECTIONS:
            part = getattr(self, section)
            document[section] = (
                component_table(part) if isinstance(part, ComponentConfig) else _plain(dict(part))
            )
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
            section: check(section, model, document.get(section, {}))
            for section, model in SETTINGS_SECTIONS.items()
        }
        return assemble({**parts, **settings}, document.get("recipe"))

    def to_toml(self) -> str:
        """TOML, which has no null: what is None is left out, and None again when it is read."""
        tables = self.to_dict()
        return tomli_w.dumps(
            {
                key: {k: v for k, v in table.items() if v is not None} if isinstance(table, dict) else table
                for key, table in tables.items()
            }
        )

    @classmethod
    def from_toml(cls, text: str, registry: Registry) -> RunConfig:
        """Inverse of `to_toml`; raises as `from_dict`."""
        return cls.from_dict(parse_tables(text, "The configuration", SECTIONS, extra={"recipe"}), registry)


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
    options = {option: value for option, value in table.items() if option != "name"}
    checked = validate(section, registry.load(registered), options, registered.reference)
    return ComponentConfig(registered.reference, checked)


def component_table(part: ComponentConfig) -> dict[str, Any]:
    """Inverse of `component`: plain JSON types."""
    return {"name": part.name, **_plain(part.options)}


def assemble(parts: Mapping[str, Any], recipe: str | None) -> RunConfig:
    """A RunConfig from its parts by section."""
    return RunConfig(**{field.name: parts[field.name] for field in fields(RunConfig)[:-1]}, recipe=recipe)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = to_jsonable_python(dict(options))
    return plain
