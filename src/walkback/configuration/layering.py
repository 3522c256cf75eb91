"""How a run's configuration comes about: in layers, each of which may change what is below it.

    the options' own defaults < what the component presets (`Component.preset`)
    < what the data component proposes (`Component.defaults`) < what the operator component proposes
    < recipe < flags (--operator, --data, …) < --set

Each layer of a component's options is merged into those below it, tables of records and of components inside included
(`configuration.components`).

Without recipe, operator and data the default recipe is used. With an operator or data alone, the other of the two comes
from the default recipe, unless the data propose an operator, and everything else from what the components propose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from walkback.component import Component
from walkback.configuration.components import ComponentConfig, Options, configure
from walkback.configuration.config import (
    COLLECTIONS,
    COMPONENT_SECTIONS,
    SECTIONS,
    SETTINGS_SECTIONS,
    RunConfig,
    assemble,
    collection,
)
from walkback.configuration.overrides import Tables, parse_overrides
from walkback.configuration.recipes import Layer, starting_layer
from walkback.configuration.schema import annotations_of, check, merge
from walkback.configuration.settings import RENAMED
from walkback.errors import ConfigurationError
from walkback.extensions.registered import Registered
from walkback.extensions.registry import Registry
from walkback.support.formats import DATA_PATHS


def resolve(
    registry: Registry,
    *,
    recipe: str | None = None,
    components: Mapping[str, str | None] | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """Resolve what the user asked for into a complete configuration.

    Args:
        registry: The plugins.
        recipe: Name of a recipe, or path of a TOML file.
        components: Component name (for "data" also a path or hub id) by section; None where not given.
        overrides: `section.option=value` assignments; flags for settings go before those of `--set`.

    Raises:
        ConfigurationError: The request is wrong, or leaves a component open.
        PluginError: A plugin that is wanted is at fault.
    """
    changes = parse_overrides(overrides, SECTIONS)
    names = _names(components or {}, changes)
    base = starting_layer(registry, recipe, names)
    # Operator and data are chosen first: they are the components whose proposals choose the rest.
    request = _Request(registry, base, names, changes)
    proposed = _proposal(request.choose("data")) if "data" in names else Layer({})
    if recipe is None and "name" in proposed.tables.get("operator", {}):
        base = Layer({})  # what suits these data, rather than the default recipe's operator
    request = _Request(registry, base, names, changes, proposals=(proposed,))
    operator, data = request.choose("operator"), request.choose("data")
    request = _Request(registry, base, names, changes, proposals=(_proposal(data), _proposal(operator)))
    choices = {section: request.choose(section) for section in COMPONENT_SECTIONS}
    parts: dict[str, Any] = {
        section: request.component(section, choice) for section, choice in choices.items()
    }
    parts |= {
        section: check(section, *request.settings(section), renamed=RENAMED.get(section))
        for section in SETTINGS_SECTIONS
    }
    parts |= {section: collection(registry, section, request.layers(section)) for section in COLLECTIONS}
    return assemble(parts, base.recipe)


def resolve_data(registry: Registry, source: str, overrides: Sequence[str] = ()) -> ComponentConfig:
    """Resolve a dataset alone from a name, path or hub id and `data.option=value`; raises as `resolve`."""
    changes = parse_overrides(overrides, ("data",))
    request = _Request(registry, Layer({}), _names({"data": source}, changes), changes)
    return request.component("data", request.choose("data"))


@dataclass(frozen=True, slots=True)
class _Choice:
    """A component, the options that its choice implies, and whether it is the one that the base means."""

    registered: Registered[Component]
    options: Mapping[str, Any] = field(default_factory=dict)
    is_base: bool = True


@final
@dataclass(frozen=True, slots=True)
class _Request:
    """All layers; `proposals` from weak to strong."""

    registry: Registry
    base: Layer
    names: Mapping[str, str]
    changes: Tables
    proposals: tuple[Layer, ...] = ()

    def choose(self, section: str) -> _Choice:
        """The component of a section, without its options."""
        kind = COMPONENT_SECTIONS[section]
        fallback = next(self._fallbacks(section), None)
        if section in self.names:
            registered, options = self._requested(section, self.names[section])
            return _Choice(
                registered, options, fallback is None or self._means(section, *fallback, registered)
            )
        if fallback is None:
            names = ", ".join(offer.reference for offer in self.registry.components(kind))
            listing = f"available: {names}" if names else f"but no plugin offers any {kind}"
            raise ConfigurationError(f"No {kind} was chosen: choose one with --{section} NAME; {listing}.")
        name, distribution = fallback
        return _Choice(self.registry.find(kind, name, prefer=distribution))

    def component(self, section: str, choice: _Choice) -> ComponentConfig:
        """A chosen component with its options."""
        # From weak to strong: proposals of components, recipe, what the choice implies (such as a path), --set. Options
        # count only where the layer means this component and not another one of the section.
        layers = []
        for proposal in self.proposals:
            table = proposal.tables.get(section, {})
            name = _text(section, table.get("name", choice.registered.qualified_name))
            if self._means(section, name, proposal.distribution, choice.registered):
                layers.append(Options(table, proposal.distribution, proposed=True))
        if choice.is_base:
            layers.append(Options(self.base.tables.get(section, {}), self.base.distribution))
        layers += [Options(choice.options), Options(self.changes.get(section, {}))]
        return configure(self.registry, section, choice.registered, layers)

    def layers(self, section: str) -> list[Options]:
        """What all layers say of a section of settings, or of components by name."""
        proposed = [
            Options(layer.tables.get(section, {}), layer.distribution, proposed=True)
            for layer in self.proposals
        ]
        base = Options(self.base.tables.get(section, {}), self.base.distribution)
        return [*proposed, base, Options(self.changes.get(section, {}))]

    def settings(self, section: str) -> tuple[Any, dict[str, Any]]:
        """The model of a section of settings, and its values."""
        model = SETTINGS_SECTIONS[section]
        known = annotations_of(model)
        values: dict[str, Any] = {}
        for layer in self.layers(section):
            merge(values, _known(layer.table, known) if layer.proposed else layer.table, known)
        return model, values

    def _fallbacks(self, section: str) -> Iterator[tuple[str, str]]:
        """Who names this section's component where the user does not: (name, preferred distribution)."""
        # The recipe decides before the operator, and the operator before the data.
        for source in (self.base, *reversed(self.proposals)):
            name = source.tables.get(section, {}).get("name")
            if name is not None:
                yield _text(section, name), source.distribution

    def _means(self, section: str, name: str, distribution: str, registered: Registered[Component]) -> bool:
        return registered in self.registry.matches(COMPONENT_SECTIONS[section], name, distribution)

    def _requested(self, section: str, name: str) -> tuple[Registered[Component], Mapping[str, Any]]:
        kind = COMPONENT_SECTIONS[section]
        if section != "data" or self.registry.matches(kind, name):
            return self.registry.find(kind, name), {}
        if _looks_like_path(name) and not _exists(name):
            raise ConfigurationError(
                f"No such path: {name!r}; a dataset's name or a hub id owner/name works too."
            )
        hint = "an existing path or a hub id owner/name works too"
        return self.registry.dataset_source(name) or (self.registry.find(kind, name, hint=hint), {})


def _names(components: Mapping[str, str | None], changes: Tables) -> dict[str, str]:
    """The components asked for by section; `--set operator.name=…` is moved out of the changes, and wins."""
    names = {section: name for section, name in components.items() if name is not None}
    for section in COMPONENT_SECTIONS:
        if "name" in changes.get(section, {}):
            names[section] = _text(section, changes[section].pop("name"))
    return names


def _proposal(choice: _Choice) -> Layer:
    return Layer(choice.registered.spec.defaults, choice.registered.distribution)


def _known(table: Mapping[str, Any], options: Collection[str]) -> dict[str, Any]:
    return {option: value for option, value in table.items() if option in options}


def _text(section: str, name: object) -> str:
    if not isinstance(name, str):
        raise ConfigurationError(f"{section}.name: got {name!r}, expected the name of a component.")
    return name


def _looks_like_path(source: str) -> bool:
    if "://" in source:
        return False
    return source.startswith((".", "~", "/")) or source.count("/") > 1 or source.lower().endswith(DATA_PATHS)


def _exists(source: str) -> bool:
    try:
        return Path(source).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long a name, an unknown ~user, a null character
        return False
