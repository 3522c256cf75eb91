"""The base of a configuration: a recipe of a plugin, a recipe file, or parts of the default recipe."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from walkback.configuration.config import SECTIONS, parse_document
from walkback.errors import ConfigurationError, PluginError
from walkback.extensions.registry import Registry
from walkback.support.textfile import read_text


@dataclass(frozen=True, slots=True)
class Layer:
    """Plain values by section and option.

    Attributes:
        tables: The values; `name` in a component section is the name of its component.
        distribution: The distribution that takes precedence for names in this layer.
        recipe: Name of the recipe, if the layer is a complete recipe.
    """

    tables: Mapping[str, Mapping[str, Any]]
    distribution: str = ""
    recipe: str | None = None


def starting_layer(registry: Registry, recipe: str | None, asked: Collection[str]) -> Layer:
    """Return the base layer of a run.

    Args:
        registry: The plugins.
        recipe: Name or file of the recipe; None for the default recipe, or the required parts of it.
        asked: Sections whose component the user names.

    Raises:
        ConfigurationError: The recipe does not exist, or is not valid.
        PluginError: A plugin's recipe cannot be read.
    """
    if recipe is not None:
        return (
            _read_file(registry, recipe)
            if recipe.endswith(".toml") or "/" in recipe
            else _read(registry, recipe)
        )
    open_sections = {"operator", "data"}.difference(asked)
    default = registry.default_recipe() if open_sections else None
    if default is None:
        return Layer({})
    layer = _read(registry, default.qualified_name)
    if len(open_sections) == 2:
        return layer
    return Layer({s: table for s, table in layer.tables.items() if s in open_sections}, layer.distribution)


def _read_file(registry: Registry, path: str) -> Layer:
    try:
        file = Path(path).expanduser()
    except RuntimeError as error:  # ~user of an unknown user
        raise ConfigurationError(f"Recipe file {path!r} cannot be read: {error}.") from error
    if not os.path.lexists(file):
        raise ConfigurationError(f"No such recipe file: {path!r}.")
    text = read_text(file)
    document = parse_document(text, f"Recipe {path!r}", registry)
    return Layer({section: table for section, table in document.items() if section in SECTIONS}, recipe=path)


def _read(registry: Registry, reference: str) -> Layer:
    registered = registry.find_recipe(reference)
    try:
        text, origin = registry.recipe_text(registered), f"Recipe {registered.qualified_name!r}"
        tables = parse_document(text, origin, registry, registered.distribution)
    except ConfigurationError as error:
        raise PluginError(str(error)) from error
    return Layer(tables, registered.distribution, registered.reference)
