"""The names of a new plugin: one name from the user, four from that.

    my-operator  →  distribution walkback-my-operator,  package walkback_my_operator,  class MyOperator

The class ends in the kind.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass

from walkback.component import Kind, spoken
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry

_PREFIX = "walkback-"

_MAX_LENGTH = 40

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Names:
    """What a new plugin and its parts are called.

    Attributes:
        kind: Kind of the component.
        component: What users type.
        distribution: What pip installs.
        package: What Python imports.
        cls: The component's class.
    """

    kind: Kind
    component: str
    distribution: str
    package: str
    cls: str


def names_for(name: str, kind: Kind) -> Names:
    """The names that follow from `name`, which may begin with "walkback-" as the distribution will.

    Raises:
        ConfigurationError: It is no name in lower case with hyphens, or too long.
    """
    component = name.removeprefix(_PREFIX)
    if not _NAME.fullmatch(component) or len(component) > _MAX_LENGTH:
        suggestion = re.sub(r"[^a-z0-9]+", "-", component.lower())[:_MAX_LENGTH].strip("-0123456789")
        example = suggestion if _NAME.fullmatch(suggestion) else f"my-{kind.replace('_', '-')}"
        raise ConfigurationError(
            f"Got the name {name!r:.80}, expected lower-case letters and digits joined by single hyphens, a "
            f"letter first, {_MAX_LENGTH} characters at most: choose another, e.g. {example!r}."
        )
    words, ending = component.split("-"), kind.split("_")
    if words[-len(ending) :] != ending:
        words += ending
    cls = "".join(word.capitalize() for word in words)
    distribution = _PREFIX + component
    return Names(kind, component, distribution, distribution.replace("-", "_"), cls)


def require_unused(names: Names, registry: Registry) -> None:
    """Refuse names that belong to somebody else; those of an earlier version of the same plugin are free.

    Raises:
        ConfigurationError: Another distribution offers the component, or has a package of this name.
    """
    others = [
        offer
        for offer in registry.matches(names.kind, names.component)
        if offer.distribution != names.distribution
    ]
    if others:
        raise ConfigurationError(
            f"Got the name {names.component!r}, which {others[0].distribution} gives to {article(names.kind)} "
            f"{spoken(names.kind)} already: choose another."
        )
    if importlib.util.find_spec(names.package) is not None and not _is_installed(names.distribution):
        raise ConfigurationError(
            f"Got the name {names.component!r}, whose package {names.package} is installed already and belongs "
            "to another distribution: choose another name."
        )


def article(noun: str) -> str:
    """The indefinite article of a noun."""
    return "an" if noun[0] in "aeiou" else "a"


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
