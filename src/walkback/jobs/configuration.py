"""The user's choice of what to train: a recipe, components by name or as instances, and settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from walkback.building.preparation import Instances
from walkback.configuration.config import COMPONENT_SECTIONS, RunConfig
from walkback.configuration.layering import resolve
from walkback.configuration.overrides import assignments
from walkback.configuration.recipes import starting_layer
from walkback.configuration.schema import component_options
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry

PARTS = ("operator", "data", "schedule", "prior", "process", "objective")
"""The sections of components, under which callers pass them."""

_FLAGS = {
    "steps": "training.steps",
    "batch_size": "training.batch_size",
    "lr": "training.lr",
    "seed": "run.seed",
    "device": "run.device",
    "precision": "run.precision",
    "compiled": "run.compile",
    "nproc": "run.nproc",
    "pictures": "samples.pictures",
}
"""Settings with a dedicated flag."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Explicit choices; all else comes from the recipe, the defaults that components propose, and general defaults.

    Attributes:
        recipe: Name of a recipe, or path of a TOML file.
        components: Component names by section (for data, also a path or hub id); None if not chosen.
        settings: `section.option=value` assignments; the last one for an option wins.
        instances: Instances that replace components.
    """

    recipe: str | None = None
    components: Mapping[str, str | None] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    instances: Instances = field(default_factory=Instances)

    def resolve(self, registry: Registry) -> RunConfig:
        """Return the complete configuration.

        In the configuration, an instance is represented by the component registered for its class, or else by that of
        the default recipe. Components that are not chosen may depend on it.

        Raises:
            ConfigurationError: The choices are invalid, leave a component open, or set an option of an instance.
            PluginError: A required plugin is broken.
        """
        for assignment in self.settings:
            name = assignment.partition("=")[0].strip()
            section = name.partition(".")[0]
            if section in self.instances.sections:
                raise ConfigurationError(
                    f"{name} cannot be set because {section} is an instance: set it when you create the instance."
                )
        names = {**self.components, **self._stand_ins(registry)}
        return resolve(registry, recipe=self.recipe, components=names, overrides=self.settings)

    def _stand_ins(self, registry: Registry) -> dict[str, str]:
        """Return the names of components that represent instances in the configuration; they are not built."""
        found: dict[str, str] = {}
        if not self.instances.sections:
            return found
        base, default = starting_layer(registry, self.recipe, ()), starting_layer(registry, None, ())
        for section in self.instances.sections:
            own = _component_of(registry, section, type(getattr(self.instances, section)))
            if own is not None:
                found[section] = own
            elif self.recipe is None or "name" not in base.tables.get(section, {}):
                name = default.tables.get(section, {}).get("name")
                if isinstance(name, str):
                    found[section] = name if ":" in name else f"{default.distribution}:{name}"
        return found


def choices_of(
    given: Mapping[str, Any], more: Iterable[str] = (), instances: Instances | None = None
) -> Choices:
    """Return the choices among named values; other values are ignored.

    Args:
        given: `recipe`, the names of `PARTS`, and settings with a dedicated flag (`lr`, `seed`, …); None or missing if
            not given.
        more: `section.option=value` assignments, which take precedence over flags.
        instances: Instances that replace components.
    """
    flags = {path: given[name] for name, path in _FLAGS.items() if given.get(name) is not None}
    parts = {section: given.get(section) for section in PARTS}
    return Choices(given.get("recipe"), parts, (*assignments(flags), *more), instances or Instances())


def _component_of(registry: Registry, section: str, cls: type) -> str | None:
    """Return the component registered for a class, if it has no required options.

    Of several presets of the class it is the one that sets the fewest options: others propose settings that suit what
    they set.
    """
    place = f"{cls.__module__}:{cls.__qualname__}"
    of_class = [
        registered
        for registered in registry.components(COMPONENT_SECTIONS[section])
        if place in (registered.spec.target, *registered.spec.instances)
    ]
    if not of_class:
        return None
    plainest = min(of_class, key=lambda registered: len(registered.spec.preset))
    options, preset = component_options(cls).model_fields.items(), plainest.spec.preset
    open_options = [name for name, option in options if option.is_required() and name not in preset]
    return None if open_options else plainest.qualified_name
