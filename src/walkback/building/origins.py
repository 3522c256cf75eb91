"""The distributions that provide the components of a checkpoint, including nested components.

    "operator": gaussian of walkback 0.1,   "operator.network": unet of somebody-else 2.0

A checkpoint is read with the components that it was written with, even if other plugins now use the same names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from walkback.component import Kind
from walkback.configuration.components import ComponentConfig
from walkback.configuration.config import COMPONENT_SECTIONS, RunConfig, component
from walkback.configuration.renaming import moved_component
from walkback.configuration.schema import component_options, nested_in
from walkback.errors import CheckpointError, ConfigurationError, shortened
from walkback.extensions.loader import OF_A_FILE
from walkback.extensions.registry import Registry
from walkback.storage.description import ComponentOrigin, Description
from walkback.support.text import spoken


def origins(config: RunConfig, registry: Registry) -> dict[str, ComponentOrigin]:
    """Return the origin of each component of a configuration, by dotted path."""
    return {
        path: ComponentOrigin(
            name=registered.spec.name, distribution=registered.distribution, version=registered.version
        )
        for section, kind in COMPONENT_SECTIONS.items()
        for path, registered in _registered(registry, kind, section, getattr(config, section))
    }


def recorded_component(
    path: Path | None, section: str, description: Description, registry: Registry
) -> ComponentConfig:
    """Return one component section of a checkpoint, resolved with the plugins that wrote it.

    Args:
        path: File of the checkpoint, for messages.
        section: One of `COMPONENT_SECTIONS`.
        description: Description of the checkpoint.
        registry: The plugins.

    Raises:
        CheckpointError: The checkpoint has no such section, or needs a plugin that is not installed.
        PluginError: A required plugin is broken.
    """
    what = "a checkpoint" if path is None else str(path)
    table = description.config.get(section)
    if section not in description.components or not isinstance(table, dict):
        raise CheckpointError(f"Got {what} without its {section}, expected a checkpoint of `walkback run`.")
    kind = COMPONENT_SECTIONS[section]
    pinned = _pinned(registry, kind, section, table, description, what)
    try:
        return component(registry, section, pinned)
    except ConfigurationError as error:
        raise unknown_configuration(what, description, error) from error


def unknown_configuration(
    what: object, description: Description, error: ConfigurationError
) -> CheckpointError:
    """Return the error for a checkpoint whose configuration this version cannot use."""
    here, writer = version("walkback"), description.walkback
    cure = (
        f"with pip install walkback=={writer}"
        if writer != here
        else "or one of the same date, or train again"
    )
    reason = str(error).rstrip(".")
    return CheckpointError(
        f"Got {what} with a configuration that walkback {here} cannot use ({shortened(reason, 600)}); it was written "
        f"by walkback {writer}, format {description.format}: install that version {cure}."
    )


def _registered(
    registry: Registry, kind: Kind, path: str, config: ComponentConfig
) -> Iterator[tuple[str, Any]]:
    """Yield the components of one section by dotted path, outer ones first."""
    registered = registry.find(kind, config.name)
    yield path, registered
    for name, nested in _nested(registry, registered).items():
        value = config.options[name]
        for place, item in _items(f"{path}.{name}", value):
            if isinstance(item, ComponentConfig):
                yield from _registered(registry, nested, place, item)


def _pinned(
    registry: Registry, kind: Kind, path: str, table: Mapping[str, Any], description: Description, what: str
) -> dict[str, Any]:
    """Return the table with current options, and names qualified by the recorded distributions."""
    origin = description.components.get(path)
    if origin is None:  # written before components could be nested: only the name is known
        return dict(table)
    reference = f"{origin.distribution}:{origin.name}"
    _refuse_missing(registry, kind, origin, what)
    result = moved_component(registry, kind, {**table, "name": reference})
    for registered in registry.matches(kind, reference):
        for name, nested in _nested(registry, registered).items():
            value = result.get(name)
            if isinstance(value, Mapping):
                result[name] = _pinned(registry, nested, f"{path}.{name}", value, description, what)
            elif isinstance(value, list):
                result[name] = [
                    _pinned(registry, nested, place, item, description, what)
                    for place, item in _items(f"{path}.{name}", value)
                ]
    return result


def _refuse_missing(registry: Registry, kind: Kind, origin: ComponentOrigin, what: str) -> None:
    broken = any(
        status.distribution == origin.distribution and status.status == "broken"
        for status in registry.plugins
    )
    if registry.matches(kind, f"{origin.distribution}:{origin.name}") or broken:
        return
    if origin.version == OF_A_FILE:
        raise CheckpointError(
            f"Got {what}, which needs the {spoken(kind)} '{origin.name}' of {origin.distribution}.py: name that file "
            "in WALKBACK_PLUGINS, if you have and trust it."
        )
    raise CheckpointError(
        f"Got {what}, which needs the {spoken(kind)} '{origin.name}' of {origin.distribution} {origin.version}: "
        f"if you trust that distribution, install it with pip install {origin.distribution}=={origin.version}."
    )


def _nested(registry: Registry, registered: Any) -> dict[str, Kind]:
    """Return the kinds of the components nested in a component, by option."""
    fields = component_options(registry.load(registered)).model_fields
    found = {name: nested_in(field) for name, field in fields.items()}
    return {name: nested.kind for name, nested in found.items() if nested is not None}


def _items(path: str, value: Any) -> list[tuple[str, Any]]:
    """Return the component, or components, of an option by dotted path."""
    if isinstance(value, tuple | list):
        return [(f"{path}[{number}]", item) for number, item in enumerate(value)]
    return [(path, value)]
