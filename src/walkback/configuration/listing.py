"""All options of a run by dotted name, with descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from walkback.configuration.config import COMPONENT_SECTIONS, SECTIONS, SETTINGS_SECTIONS, RunConfig
from walkback.configuration.layering import resolve
from walkback.configuration.options import Option, options_of, options_of_settings
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.support.text import nearest


def all_options(registry: Registry, beginning: str = "") -> tuple[Option, ...]:
    """Return the options of all sections; for components, those of the default recipe's choice.

    Args:
        registry: The plugins.
        beginning: A section or an option, to list only that and options inside it; empty lists all.

    Raises:
        ConfigurationError: There is no such section or option.
        PluginError: A component of the default recipe is broken.
    """
    wanted = beginning.rstrip(".")
    section = wanted.partition(".")[0]
    sections = (*COMPONENT_SECTIONS, *SETTINGS_SECTIONS)
    if section and section not in sections:
        raise ConfigurationError(
            f"Unknown section {section!r}{nearest(section, SECTIONS)}; sections with options of their own: "
            f"{', '.join(sections)}."
        )
    found = [
        option
        for name in sections
        if not section or name == section
        for option in _options_of(registry, name)
        if not wanted or option.name == wanted or option.name.startswith(f"{wanted}.")
    ]
    if not found:
        names = [option.name for option in _options_of(registry, section)]
        raise ConfigurationError(f"Unknown option {wanted!r}{nearest(wanted, names)}.")
    return tuple(found)


def completions(
    registry: Registry, incomplete: str, recipe: str | None, components: Mapping[str, str | None]
) -> list[tuple[str, str]]:
    """Return `SECTION.OPTION=` with its help for every option that begins like that, for `--set`.

    Args:
        registry: The plugins.
        incomplete: What was typed.
        recipe: The recipe that was chosen; None for the default one.
        components: Names of components that were chosen, by section.

    Raises:
        ConfigurationError: A choice is wrong.
        PluginError: A chosen component is broken.
    """
    section, dot, _ = incomplete.partition(".")
    sections = [name for name in (*COMPONENT_SECTIONS, *SETTINGS_SECTIONS) if name.startswith(section)]
    if not dot:
        return [(f"{name}.", "") for name in sections]
    config = resolve(registry, recipe=recipe, components=dict(components))
    found = _options_of(registry, section, config) if section in sections else []
    return [(f"{option.name}=", option.help) for option in found if option.name.startswith(incomplete)]


def _options_of(registry: Registry, section: str, config: RunConfig | None = None) -> list[Option]:
    if section in SETTINGS_SECTIONS:
        return [
            replace(option, name=f"{section}.{option.name}")
            for option in options_of_settings(SETTINGS_SECTIONS[section])
        ]
    kind = COMPONENT_SECTIONS[section]
    chosen = getattr(config or resolve(registry), section).name
    registered = registry.find(kind, chosen)
    names = " or ".join(offer.reference for offer in registry.components(kind))
    own = options_of(registry.load(registered), registered.spec.preset, registry)
    return [
        Option(f"{section}.name", names, chosen, f"Name of the {kind}"),
        *(replace(option, name=f"{section}.{option.name}") for option in own),
    ]
