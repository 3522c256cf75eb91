"""Options of older files, moved to their current places.

hidden = 256        [network]              with `Component.renamed = {"hidden": "network.hidden"}`
                    hidden = 256
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from walkback.component import Kind
from walkback.configuration.overrides import assign
from walkback.configuration.schema import component_options
from walkback.extensions.registry import Registry


def moved(table: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """Return the table with former options at their new places; options already there are kept.

    >>> moved({"name": "gaussian-mlp", "hidden": 8, "sigma": 0.1}, {"hidden": "network.hidden"})
    {'name': 'gaussian-mlp', 'sigma': 0.1, 'network': {'hidden': 8}}

    Args:
        table: Plain values by option.
        renamed: New places by former option, both dotted.
    """
    result = _without(table, renamed)
    for old, new in renamed.items():
        found, value = _at(table, old)
        if found and not _at(result, new)[0]:
            assign(result, new.split("."), value)
    return result


def moved_component(
    registry: Registry, kind: Kind, table: Mapping[str, Any], prefer: str = ""
) -> dict[str, Any]:
    """Return the table of a component section with the options of this version.

    If the new option is a boolean and the former one a number, it becomes true if the number is not 0.

    Args:
        registry: Resolves the name of the component.
        kind: Kind of the component.
        table: Plain values by option, with its name.
        prefer: Distribution that takes precedence for the name.

    Returns:
        The new table; unchanged if no distribution, or more than one, provides the name.

    Raises:
        PluginError: The component cannot be imported.
    """
    found = registry.matches(kind, str(table.get("name")), prefer)
    if len(found) != 1 or not found[0].spec.renamed:
        return dict(table)
    result = moved(table, found[0].spec.renamed)
    for name, field in component_options(registry.load(found[0])).model_fields.items():
        if field.annotation is bool and isinstance(result.get(name), int | float):
            result[name] = bool(result[name])
    return result


def _at(table: Mapping[str, Any], path: str) -> tuple[bool, Any]:
    """Return whether there is a value at a dotted path, and the value."""
    value: Any = table
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return False, None
        value = value[step]
    return True, value


def _without(table: Mapping[str, Any], paths: Mapping[str, str], prefix: str = "") -> dict[str, Any]:
    """Return a copy of a table, and of tables inside it, without the values at the dotted paths."""
    return {
        name: _without(value, paths, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in table.items()
        if f"{prefix}{name}" not in paths
    }
