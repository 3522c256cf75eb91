"""Lookup of components and kinds by the names that users type."""

from __future__ import annotations

from walkback.component import KINDS, Component, Kind
from walkback.errors import ConfigurationError
from walkback.extensions.registered import Registered
from walkback.extensions.registry import Registry
from walkback.support.text import nearest


def kind_named(name: str) -> Kind:
    """Return the kind of component called `name`; raises ConfigurationError if there is none."""
    for kind in KINDS:
        if name.replace("-", "_") == kind:
            return kind
    raise ConfigurationError(f"Unknown kind {name!r}{nearest(name, KINDS)}; available: {', '.join(KINDS)}.")


def component_named(registry: Registry, reference: str, kind: Kind | None) -> Registered[Component]:
    """Return the component called `reference`, of any kind if `kind` is None.

    Raises:
        ConfigurationError: No plugin provides it, several distributions do, or it exists in several kinds.
        PluginError: The distribution in `reference` has a broken plugin.
    """
    if kind is not None:
        return registry.find(kind, reference)
    kinds = [kind for kind in KINDS if registry.matches(kind, reference)]
    if len(kinds) > 1:
        choices = " or ".join(f"--kind {kind}" for kind in kinds)
        raise ConfigurationError(f"Got {reference!r}, a name of several kinds of component: add {choices}.")
    if kinds:
        return registry.find(kinds[0], reference)
    distribution = reference.rpartition(":")[0]
    if distribution and any(status.distribution == distribution for status in registry.plugins):
        return registry.find(
            KINDS[0], reference
        )  # raises an error that says what is wrong with the distribution
    names = sorted({offer.reference for kind in KINDS for offer in registry.components(kind)})
    raise ConfigurationError(
        f"Unknown component {reference!r}{nearest(reference, names)}; `walkback plugins list` shows all names."
    )
