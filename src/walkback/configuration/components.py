"""Components with their options: chosen by name, in layers, including nested components.

    [operator]                  ComponentConfig("gaussian", {"sigma": 0.05, "network": ComponentConfig("unet", {…})})
    name = "gaussian"
    sigma = 0.05
    [operator.network]
    name = "unet"

Layers are ordered from weak to strong. The strongest layer that names a nested component determines it. The component
takes the options of all layers that refer to it; options that were set for another component are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from walkback.component import Component, Kind
from walkback.configuration.schema import (
    Nested,
    annotations_of,
    check,
    component_options,
    merge,
    nested_in,
)
from walkback.errors import ConfigurationError
from walkback.extensions.registered import Registered
from walkback.extensions.registry import Registry
from walkback.support.text import spoken


@dataclass(frozen=True, slots=True)
class ComponentConfig:
    """A chosen component: its name, and all of its options for its `__init__`.

    A nested component is itself a ComponentConfig; see `building.assembly.build_part`.
    """

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """One layer of options.

    Attributes:
        table: Plain values by option.
        distribution: The distribution that takes precedence for names in this layer.
        proposed: Whether to ignore options that the component does not have.
    """

    table: Mapping[str, Any]
    distribution: str = ""
    proposed: bool = False


def configure(
    registry: Registry, path: str, registered: Registered[Component], layers: Sequence[Options]
) -> ComponentConfig:
    """Return a component with its options.

    Args:
        registry: Resolves the names of nested components.
        path: Its path in the configuration, for messages: "operator", "operator.network".
        registered: The component.
        layers: Its options from weak to strong; an entry `name` is ignored.

    Raises:
        ConfigurationError: An option is unknown, missing or ill-typed.
        PluginError: A component cannot be imported, or its options cannot be read.
    """
    model = component_options(registry.load(registered))
    own = Options(registered.spec.preset, registered.distribution)
    tables = [
        Options(_options(layer, model.model_fields), layer.distribution, layer.proposed)
        for layer in (own, *layers)
    ]
    plain: dict[str, Any] = {}
    for layer in tables:
        merge(plain, layer.table, annotations_of(model))
    inner: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        nested, where = nested_in(field), f"{path}.{name}"
        if nested is None:
            continue
        said = _of_option(tables, name)
        inner[name] = _inner(registry, where, nested, said) if said else field.default
        if field.is_required() and (not said or inner[name] is None):
            raise ConfigurationError(f"{where} is missing: {_choose(registry, where, nested.kind)}.")
    renamed = {old: f"{path}.{new}" for old, new in registered.spec.renamed.items()}
    checked = check(path, model, plain | dict.fromkeys(inner), registered.reference, renamed)
    options = {name: inner[name] if name in inner else getattr(checked, name) for name in model.model_fields}
    return ComponentConfig(registered.reference, options)


def component_table(part: ComponentConfig) -> dict[str, Any]:
    """Convert to plain JSON types: the name and the options, with a table for each nested component."""
    return {"name": part.name, **options_table(part)}


def options_table(part: ComponentConfig) -> dict[str, Any]:
    """Convert the options, without the name, to plain JSON types."""
    return {option: _plain(value) for option, value in part.options.items()}


def without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables without None values, for TOML, which has no null."""
    return {
        key: without_none(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }


def _options(layer: Options, known: Mapping[str, Any]) -> dict[str, Any]:
    return {
        option: value
        for option, value in layer.table.items()
        if option != "name" and (option in known or not layer.proposed)
    }


def _of_option(layers: Sequence[Options], option: str) -> list[tuple[Any, Options]]:
    """Return the values of one option in the layers, from weak to strong."""
    return [(layer.table[option], layer) for layer in layers if option in layer.table]


def _inner(registry: Registry, path: str, nested: Nested, said: Sequence[tuple[Any, Options]]) -> Any:
    """Return the component or components of an option."""
    strongest, layer = said[-1]
    if not nested.many:
        return _one(registry, path, nested.kind, said)
    if strongest is None:
        return None
    if not isinstance(strongest, Sequence) or isinstance(strongest, str):
        raise ConfigurationError(f"{path}: got {strongest!r:.80}, expected a list of {_plural(nested.kind)}.")
    return tuple(
        _one(registry, f"{path}[{number}]", nested.kind, [(item, layer)])
        for number, item in enumerate(strongest)
    )


def _one(
    registry: Registry, path: str, kind: Kind, said: Sequence[tuple[Any, Options]]
) -> ComponentConfig | None:
    """Return the component with the strongest name, and the options that were set for it."""
    said = [(_table(path, value), layer) for value, layer in said]
    cleared = max((number for number, (table, _) in enumerate(said) if table is None), default=-1)
    layers = [
        Options(table, layer.distribution, layer.proposed)
        for table, layer in said[cleared + 1 :]
        if table is not None
    ]
    named = [layer for layer in layers if "name" in layer.table]
    if not named:
        if not any(layer.table for layer in layers if not layer.proposed):
            return None
        raise ConfigurationError(f"{path} has options and no name: {_choose(registry, path, kind)}.")
    chosen = registry.find(kind, _name(path, named[-1]), prefer=named[-1].distribution)
    meant, applied = True, []
    for layer in layers:
        if "name" in layer.table:
            meant = chosen in registry.matches(kind, _name(path, layer), layer.distribution)
        if meant:
            applied.append(layer)
    return configure(registry, path, chosen, applied)


def _table(path: str, value: Any) -> Mapping[str, Any] | None:
    if value is None or isinstance(value, Mapping):
        return value
    if isinstance(value, str):
        return {"name": value}
    raise ConfigurationError(
        f"{path}: got {value!r:.80}, expected the name of a component, or a table with one."
    )


def _name(path: str, layer: Options) -> str:
    name = layer.table["name"]
    if not isinstance(name, str):
        raise ConfigurationError(f"{path}.name: got {name!r}, expected the name of a component.")
    return name


def _choose(registry: Registry, path: str, kind: Kind) -> str:
    names = ", ".join(offer.reference for offer in registry.components(kind))
    listing = f"available: {names}" if names else f"but no plugin offers any {spoken(kind)}"
    return f"choose one with --set {path}=NAME; {listing}"


def _plural(kind: Kind) -> str:
    return f"{spoken(kind)}es" if kind.endswith("s") else f"{spoken(kind)}s"


def _plain(value: Any) -> Any:
    if isinstance(value, ComponentConfig):
        return component_table(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return to_jsonable_python(value)
