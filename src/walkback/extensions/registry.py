"""The components of all plugins, by kind and name.

All lookups of names happen here. A name that is unknown, claimed by two distributions, or whose plugin is broken is an
error only when it is requested.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn, final

from walkback.component import Command, Component, DatasetSource, Kind, Recipe
from walkback.errors import ConfigurationError, PluginError
from walkback.extensions import loader
from walkback.extensions.loader import Plugin, PluginStatus, canonical, quiet_stdout
from walkback.extensions.registered import Registered, import_class, import_target, offered, read_resource
from walkback.support.faults import is_not_of_code
from walkback.support.text import nearest, spoken


@final
class Registry:
    """The installed plugins and their components."""

    def __init__(self, plugins: Sequence[Plugin], complaints: Sequence[str] = ()) -> None:
        self._hooks = {plugin.status.name: plugin.hooks for plugin in plugins if plugin.hooks is not None}
        self._statuses = {plugin.status.name: plugin.status for plugin in plugins}
        self._offers = {kind: offered(kind, plugins) for kind in loader.RECORDS}
        self._complaints = tuple(complaints)
        self._third_parties: dict[str, Registered[Component]] = {}

    @classmethod
    def discover(cls, only: Collection[str] | None = None, enabled: bool = True) -> Registry:
        """Load the installed plugins; a broken one is recorded, see `plugins` and `warnings`.

        Args:
            only: Names (`entry-point` or `distribution:entry-point`) of the third-party plugins to load; None
                for all.
            enabled: Whether third-party plugins are loaded at all.
        """
        plugins = loader.discover(only, enabled)
        named = [name for name in only or () if not loader.is_file(name)]
        unknown = [name for name in named if not any(loader.is_named(p.status, [name]) for p in plugins)]
        return cls(plugins, [f"No installed plugin is called {name!r}." for name in unknown])

    @property
    def plugins(self) -> tuple[PluginStatus, ...]:
        """The status of each plugin."""
        return tuple(self._statuses.values())

    def warnings(self) -> list[str]:
        """Return one line for each broken plugin, and for each requested plugin that was not found."""
        broken = [status for status in self.plugins if status.status == "broken"]
        return [*self._complaints, *(f"Plugin {s.name} ({s.version}) is broken: {s.error}." for s in broken)]

    def offers(self, kind: str) -> tuple[Registered[Any], ...]:
        """Return all records of one kind (a component kind, "recipe" or "command"), sorted by name."""
        return self._offers[kind]

    def components(self, kind: Kind) -> tuple[Registered[Component], ...]:
        """Return all components of one kind, sorted by name."""
        return self._offers[kind]

    def recipes(self) -> tuple[Registered[Recipe], ...]:
        """Return all recipes, sorted by name."""
        return self._offers["recipe"]

    def commands(self) -> tuple[Registered[Command], ...]:
        """Return all commands of plugins, sorted by name."""
        return self._offers["command"]

    def matches(self, kind: str, reference: str, prefer: str = "") -> tuple[Registered[Any], ...]:
        """Return all records that match `reference`: none, one, or several with the same name.

        Args:
            kind: A component kind, "recipe" or "command".
            reference: `name`, or `distribution:name`.
            prefer: Distribution that takes precedence for a bare name, such as that of the plugin that refers to it.
        """
        distribution, _, name = reference.rpartition(":")
        named = tuple(offer for offer in self._offers[kind] if offer.spec.name == name)
        if distribution:
            return tuple(offer for offer in named if canonical(offer.distribution) == canonical(distribution))
        return tuple(offer for offer in named if canonical(offer.distribution) == canonical(prefer)) or named

    def find(self, kind: Kind, reference: str, *, prefer: str = "", hint: str = "") -> Registered[Component]:
        """Return the component called `reference`, see `matches`.

        Args:
            kind: The kind of component.
            reference: `name`, or `distribution:name`.
            prefer: Distribution that takes precedence for a bare name.
            hint: Alternatives for the user; appended to the message about an unknown name.

        Raises:
            ConfigurationError: No plugin provides the name, or several distributions do.
            PluginError: The distribution in `reference` has a broken plugin.
        """
        found: Registered[Component] = self._one(kind, reference, prefer, hint)
        return found

    def find_recipe(self, reference: str) -> Registered[Recipe]:
        """Return the recipe called `reference`; raises the errors of `find`."""
        found: Registered[Recipe] = self._one("recipe", reference)
        return found

    def find_command(self, reference: str) -> Registered[Command]:
        """Return the command called `reference`; raises the errors of `find`."""
        found: Registered[Command] = self._one("command", reference)
        return found

    def default_recipe(self) -> Registered[Recipe] | None:
        """Return the recipe of `walkback run` without options; walkback's own takes precedence over others.

        Raises:
            ConfigurationError: Several distributions other than walkback provide a default recipe.
        """
        found = [recipe for recipe in self.recipes() if recipe.spec.default]
        own = [recipe for recipe in found if canonical(recipe.distribution) == loader.CORE_DISTRIBUTION]
        if len(own or found) > 1:
            names = " and ".join(repr(recipe.qualified_name) for recipe in own or found)
            raise ConfigurationError(
                f"Both {names} claim to be the default recipe; choose one with --recipe."
            )
        return next(iter(own or found), None)

    def load(self, registered: Registered[Component]) -> type:
        """Import the class of a component.

        Raises:
            PluginError: It cannot be imported, or is not a class.
        """
        if canonical(registered.distribution) != loader.CORE_DISTRIBUTION:
            self._third_parties[f"{registered.kind} {registered.qualified_name}"] = registered
        return import_class(registered)

    @property
    def third_parties(self) -> tuple[Registered[Component], ...]:
        """The loaded components of distributions other than walkback."""
        return tuple(self._third_parties.values())

    def load_command(self, registered: Registered[Command]) -> Any:
        """Import the target of a command.

        Raises:
            PluginError: It cannot be imported.
        """
        return import_target(registered)

    def recipe_text(self, registered: Registered[Recipe]) -> str:
        """Return the TOML text of a recipe.

        Raises:
            PluginError: The plugin does not contain it.
        """
        return read_resource(registered)

    def dataset_source(self, source: str) -> tuple[Registered[Component], Mapping[str, Any]] | None:
        """Return the dataset component that reads `source` and its options, or None if no plugin can read it.

        Third-party plugins are asked first, and the first answer is used. A plugin that fails is skipped and listed as
        broken.

        Raises:
            ConfigurationError: A plugin recognizes the source and reports that it cannot be read.
        """
        for plugin, hooks in reversed(self._hooks.items()):
            try:
                with quiet_stdout():
                    answer = hooks.walkback_dataset_source(source=source)
                if answer is not None:
                    return self._source(plugin, answer)
            except ConfigurationError:
                raise  # the plugin recognizes the source and says what is wrong with it
            except BaseException as error:
                if is_not_of_code(error):
                    raise
                self._statuses[plugin] = self._statuses[plugin].broken(error)
        return None

    def _source(self, plugin: str, answer: object) -> tuple[Registered[Component], Mapping[str, Any]]:
        if not isinstance(answer, DatasetSource):
            raise PluginError(f"walkback_dataset_source gave {answer!r:.80}, expected a DatasetSource")
        found = self.matches("dataset", answer.name, self._statuses[plugin].distribution)
        if len(found) != 1:
            raise PluginError(f"walkback_dataset_source gave {answer.name!r}, expected the name of a dataset")
        return found[0], answer.options

    def _one(self, kind: str, reference: str, prefer: str = "", hint: str = "") -> Registered[Any]:
        found = self.matches(kind, reference, prefer)
        if not found:
            self._refuse_unknown(kind, reference, hint)
        if len(found) > 1:
            names = [offer.qualified_name for offer in found]
            if len(set(names)) == 1:
                claims = " and ".join(offer.plugin for offer in found)
                raise PluginError(
                    f"The {spoken(kind)} {reference!r} is offered twice by {found[0].distribution} ({claims})."
                )
            owners = " and ".join(repr(offer.distribution) for offer in found)
            choices = " or ".join(repr(name) for name in names)
            raise ConfigurationError(
                f"The {spoken(kind)} {reference!r} is offered by {owners}: ask for {choices}."
            )
        return found[0]

    def _refuse_unknown(self, kind: str, reference: str, hint: str) -> NoReturn:
        distribution = canonical(reference.rpartition(":")[0])
        for status in self.plugins:
            if distribution and canonical(status.distribution) == distribution:
                if status.status == "broken":
                    raise PluginError(
                        f"No {spoken(kind)} {reference!r}: {status.name} is broken ({status.error})."
                    )
                if status.status == "blocked":
                    switch = "WALKBACK_PLUGINS or --no-plugins"
                    raise ConfigurationError(
                        f"No {spoken(kind)} {reference!r}: {switch} leaves out {status.name}."
                    )
        names = sorted({offer.reference for offer in self._offers[kind]})
        clauses = [
            f"Unknown {spoken(kind)} {reference!r}{nearest(reference, names)}",
            f"available: {', '.join(names)}" if names else f"no plugin offers any {spoken(kind)}",
            hint,
            self._suspicion(),
        ]
        raise ConfigurationError("; ".join(clause for clause in clauses if clause) + ".")

    def _suspicion(self) -> str:
        broken = ", ".join(status.name for status in self.plugins if status.status == "broken")
        return f"these plugins are broken and may provide it: {broken}" if broken else ""
