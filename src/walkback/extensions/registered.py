"""Records of plugins with their origin, and import of their targets; errors name the plugin at fault."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Generic, NoReturn, TypeVar

from walkback.component import Command, Component, Recipe
from walkback.errors import PluginError
from walkback.extensions.loader import Plugin, Record, quiet_stdout
from walkback.support.faults import is_not_of_code
from walkback.support.text import one_line, spoken

Spec = TypeVar("Spec", bound=Record)


@dataclass(frozen=True, slots=True)
class Registered(Generic[Spec]):
    """A record and the plugin that provides it.

    Attributes:
        kind: A component kind, "recipe" or "command".
        spec: The record, as returned by the plugin.
        plugin: `distribution:entry-point`.
        distribution: Name of the distribution.
        version: Version of the distribution.
        rivals: Qualified names of other records with the same name.
    """

    kind: str
    spec: Spec
    plugin: str
    distribution: str
    version: str
    rivals: tuple[str, ...] = ()

    @property
    def qualified_name(self) -> str:
        """`distribution:name`, which is unambiguous if several distributions use the name."""
        return f"{self.distribution}:{self.spec.name}"

    @property
    def reference(self) -> str:
        """The shortest unambiguous name: the bare name, unless other distributions use it too."""
        return self.qualified_name if self.rivals else self.spec.name


def offered(kind: str, plugins: Sequence[Plugin]) -> tuple[Registered[Any], ...]:
    """Return the records of one kind of all plugins, sorted by name."""
    claims = [(record, plugin.status) for plugin in plugins for record in plugin.offers.get(kind, ())]
    found = []
    for record, status in claims:
        others = [s for r, s in claims if r.name == record.name and s is not status]
        rivals = tuple(f"{other.distribution}:{record.name}" for other in others)
        found.append(Registered(kind, record, status.name, status.distribution, status.version, rivals))
    return tuple(sorted(found, key=lambda registered: registered.spec.name))


def import_object(target: str) -> Any:
    """Import `"module:attribute"`.

    >>> import_object("math:pi")
    3.141592653589793
    """
    module, _, attribute = target.partition(":")
    return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))


def import_target(registered: Registered[Component] | Registered[Command]) -> Any:
    """Import the target of a record, which may be any object.

    Raises:
        PluginError: It cannot be imported.
    """
    try:
        with quiet_stdout():
            return import_object(registered.spec.target)
    except BaseException as error:  # a plugin may raise SystemExit, or a class of its own
        if is_not_of_code(error):
            raise
        _blame(registered, one_line(error), error)


def import_class(registered: Registered[Component]) -> type:
    """Import the class of a component.

    Raises:
        PluginError: It cannot be imported, or is not a class.
    """
    target = import_target(registered)
    if not isinstance(target, type):
        _blame(registered, f"{registered.spec.target} is not a class")
    return target


def read_resource(registered: Registered[Recipe]) -> str:
    """Read the text of a recipe.

    Raises:
        PluginError: The plugin does not contain it.
    """
    package, _, path = registered.spec.resource.partition(":")
    try:
        with quiet_stdout():
            file = functools.reduce(lambda place, part: place / part, path.split("/"), files(package))
            return file.read_text("utf-8")
    except BaseException as error:  # a plugin may raise SystemExit, or a class of its own
        if is_not_of_code(error):
            raise
        _blame(registered, one_line(error), error)


def _blame(registered: Registered[Any], problem: str, cause: BaseException | None = None) -> NoReturn:
    source = f"distribution {registered.distribution} {registered.version}"
    raise PluginError(
        f"The {spoken(registered.kind)} {registered.spec.name!r} of {source} is broken: {problem}."
    ) from cause
