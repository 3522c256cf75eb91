"""The names of a new plugin: the user's name, and four derived from it.

    my-operator  →  distribution walkback-my-operator,  package walkback_my_operator,  class MyOperator

The class ends in the kind.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass

from walkback.component import Kind
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.support.text import spoken

_PREFIX = "walkback-"

_MAX_LENGTH = 40

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Names:
    """Names of a new plugin and its parts.

    Attributes:
        kind: Kind of the component.
        component: Name that users type.
        distribution: Name that pip installs.
        package: Name that Python imports.
        cls: Name of the component's class.
    """

    kind: Kind
    component: str
    distribution: str
    package: str
    cls: str


def names_for(name: str, kind: Kind) -> Names:
    """Derive all names from `name`, which may begin with "walkback-", as the distribution does.

    Raises:
        ConfigurationError: `name` has characters other than lower-case letters, digits and single hyphens, or is too
            long.
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
    """Reject names used by other distributions, except by an earlier version of the same plugin.

    Raises:
        ConfigurationError: Another distribution has a component or a package with this name.
    """
    others = [
        offer
        for offer in registry.matches(names.kind, names.component)
        if offer.distribution != names.distribution
    ]
    if others:
        raise ConfigurationError(
            f"{others[0].distribution} already has {article(names.kind)} {spoken(names.kind)} called "
            f"{names.component!r}: choose another name."
        )
    if importlib.util.find_spec(names.package) is not None and not _is_installed(names.distribution):
        raise ConfigurationError(
            f"The package {names.package} is already installed by another distribution: choose another name than "
            f"{names.component!r}."
        )


def article(noun: str) -> str:
    """Return the indefinite article of a noun."""
    return "an" if noun[0] in "aeiou" else "a"


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
