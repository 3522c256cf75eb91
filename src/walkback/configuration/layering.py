"""The layers of a run's configuration; each takes precedence over those before it.

    defaults of options < presets of components (`Component.preset`)
    < proposals of the data component (`Component.defaults`) < proposals of the operator component
    < proposals of the process, if it is requested (else they are the weakest but for those of the data)
    < recipe < flags (--operator, --data, …) < --set

Options of a component are merged layer by layer, including tables of records and nested components
(`configuration.components`).

Without a recipe, an operator and data, the default recipe is used. With only an operator or only data, the other of the
two comes from the default recipe (unless the data propose an operator), and everything else from proposals.
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
    """Resolve the user's choices to a complete configuration.

    Args:
        registry: The plugins.
        recipe: Name of a recipe, or path of a TOML file.
        components: Component names by section (for "data" also a path or hub id); None if not chosen.
        overrides: `section.option=value` assignments; those of flags precede those of `--set`.

    Raises:
        ConfigurationError: The choices are invalid, or leave a component open.
        PluginError: A required plugin is broken.
    """
    changes = parse_overrides(overrides, SECTIONS)
    names = _names(components or {}, changes)
    base = starting_layer(registry, recipe, names)
    # Operator and data are chosen first: they are the components whose proposals choose the rest.
    request = _Request(registry, base, names, changes)
    proposed = _proposal(request.choose("data")) if "data" in names else Layer({})
    if recipe is None and "name" in proposed.tables.get("operator", {}):
        base = Layer({})  # use the operator proposed by the data instead of the default recipe
    request = _Request(registry, base, names, changes, proposals=(proposed,))
    operator, data = request.choose("operator"), request.choose("data")
    known = (_proposal(data), _proposal(operator))
    request = _Request(registry, base, names, changes, proposals=known)
    if request.names_a("process"):
        process = _proposal(request.choose("process"))
        proposals = (*known, process) if "process" in names else (known[0], process, known[1])
        request = _Request(registry, base, names, changes, proposals=proposals)
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
    """Resolve only a dataset from a name, path or hub id and `data.option=value`; raises the errors of `resolve`."""
    changes = parse_overrides(overrides, ("data",))
    request = _Request(registry, Layer({}), _names({"data": source}, changes), changes)
    return request.component("data", request.choose("data"))


@dataclass(frozen=True, slots=True)
class _Choice:
    """A component, the options implied by its choice, and whether it is also the component of the base layer."""

    registered: Registered[Component]
    options: Mapping[str, Any] = field(default_factory=dict)
    is_base: bool = True


@final
@dataclass(frozen=True, slots=True)
class _Request:
    """All layers; `proposals` are ordered from weak to strong."""

    registry: Registry
    base: Layer
    names: Mapping[str, str]
    changes: Tables
    proposals: tuple[Layer, ...] = ()

    def names_a(self, section: str) -> bool:
        """Return whether any layer names the component of a section."""
        return section in self.names or next(self._fallbacks(section), None) is not None

    def choose(self, section: str) -> _Choice:
        """Return the component of a section, without its options."""
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
        """Return a chosen component with its options."""
        # From weak to strong: proposals of components, recipe, options implied by the choice (such as a path), --set.
        # Options count only if the layer refers to this component, and not to another one of the section.
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
        """Return the values of a section of settings, or of components by name, in all layers."""
        proposed = [
            Options(layer.tables.get(section, {}), layer.distribution, proposed=True)
            for layer in self.proposals
        ]
        base = Options(self.base.tables.get(section, {}), self.base.distribution)
        return [*proposed, base, Options(self.changes.get(section, {}))]

    def settings(self, section: str) -> tuple[Any, dict[str, Any]]:
        """Return the model of a section of settings, and its values."""
        model = SETTINGS_SECTIONS[section]
        known = annotations_of(model)
        values: dict[str, Any] = {}
        for layer in self.layers(section):
            merge(values, _known(layer.table, known) if layer.proposed else layer.table, known)
        return model, values

    def _fallbacks(self, section: str) -> Iterator[tuple[str, str]]:
        """Yield (name, preferred distribution) of the section's component in each layer that names one."""
        # The recipe takes precedence over the operator, and the operator over the data.
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
    """Return the requested components by section; `--set operator.name=…` wins and is removed from the changes."""
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
