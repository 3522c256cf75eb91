"""`walkback plugins show`: details of a component or a plugin."""

from __future__ import annotations

import json as json_module
import traceback as traceback_module
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from walkback.cli.common import Json, registry_of
from walkback.cli.console import Output, plain, table
from walkback.component import KINDS, Component
from walkback.errors import PluginError
from walkback.extensions.loader import RECORDS, PluginStatus, canonical, is_named
from walkback.extensions.lookup import component_named, kind_named
from walkback.extensions.registered import Registered
from walkback.extensions.registry import Registry


@dataclass(frozen=True, slots=True)
class Problem:
    """The reason why a component cannot be used, in one line and with its traceback."""

    error: str = ""
    traceback: str = ""


def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A component, a plugin or a distribution.", show_default=False)],
    kind: Annotated[
        str | None,
        typer.Option(help="Kind of the component, if several kinds use the name.", show_default=False),
    ] = None,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show the traceback of a broken plugin or component.")
    ] = False,
    json: Json = False,
) -> None:
    """Show a component with its options, or a plugin with its status and components."""
    registry, output = registry_of(ctx), Output()
    plugins = [] if kind is not None else _plugins_named(registry, name)
    if plugins and not _is_component(registry, name):
        document, problem = _plugin_documents(registry, plugins)
        tell = _tell_plugins
    else:
        found = component_named(registry, name, None if kind is None else kind_named(kind))
        document, problem = _component_document(registry, found)
        tell = _tell_component
    if json:
        output.emit_json({**document, "traceback": problem.traceback or None} if traceback else document)
        return
    tell(document, output)
    if traceback and problem.traceback:
        output.show("", plain(problem.traceback))


def _is_component(registry: Registry, name: str) -> bool:
    return any(registry.matches(kind, name) for kind in KINDS)


def _plugins_named(registry: Registry, name: str) -> list[PluginStatus]:
    """Return the plugins that match `name`: `entry-point`, `distribution:entry-point` or `distribution`."""
    return [
        status
        for status in registry.plugins
        if is_named(status, [name]) or canonical(status.distribution) == canonical(name)
    ]


def _plugin_documents(registry: Registry, plugins: list[PluginStatus]) -> tuple[dict[str, Any], Problem]:
    documents = [
        {
            "plugin": status.name,
            "distribution": status.distribution,
            "version": status.version,
            "status": status.status,
            "error": status.error or None,
            "seconds": round(status.seconds, 3),
            "offers": _offers(registry, status.name),
        }
        for status in plugins
    ]
    problem = Problem(traceback="\n".join(status.traceback for status in plugins if status.traceback))
    return {"plugins": documents}, problem


def _offers(registry: Registry, plugin: str) -> dict[str, list[str]]:
    """Return the names of the components of a plugin, by kind."""
    offers = {
        kind: [offer.spec.name for offer in registry.offers(kind) if offer.plugin == plugin]
        for kind in RECORDS
    }
    return {kind: names for kind, names in offers.items() if names}


def _tell_plugins(document: dict[str, Any], output: Output) -> None:
    for plugin in document["plugins"]:
        rows = [
            ("plugin", plugin["plugin"]),
            ("distribution", f"{plugin['distribution']} {plugin['version']}"),
            ("status", plugin["status"]),
            *([("error", plugin["error"])] if plugin["error"] else []),
            ("loaded in", f"{plugin['seconds']:g} s"),
            *((kind, ", ".join(names)) for kind, names in plugin["offers"].items()),
        ]
        output.show(table(("", ""), rows))


def _component_document(registry: Registry, found: Registered[Component]) -> tuple[dict[str, Any], Problem]:
    options, problem = _options(registry, found)
    document = {
        "name": found.spec.name,
        "kind": found.kind,
        "qualified_name": found.qualified_name,
        "plugin": found.plugin,
        "distribution": found.distribution,
        "version": found.version,
        "status": "broken" if problem.error else "shadowed" if found.rivals else "ok",
        "error": problem.error or None,
        "rivals": list(found.rivals),
        "summary": found.spec.summary,
        "class": found.spec.target,
        "options": options,
        # The defaults of a plugin may be any objects; here they are only shown.
        "defaults": json_module.loads(json_module.dumps(_tables(found.spec), default=str)),
    }
    return document, problem


def _tables(spec: Component) -> dict[str, dict[str, Any]]:
    return {section: dict(table) for section, table in spec.defaults.items()}


def _tell_component(document: dict[str, Any], output: Output) -> None:
    others = ", ".join(document["rivals"])
    rows = [
        (document["kind"], document["name"]),
        ("", document["summary"]),
        ("distribution", f"{document['distribution']} {document['version']}"),
        ("plugin", document["plugin"]),
        ("status", document["status"]),
        ("error", document["error"]),
        ("ask for", f"{document['qualified_name']}; others: {others}" if others else ""),
        ("class", document["class"]),
    ]
    output.show(table(("", ""), [row for row in rows if row[1]]))
    options = [(o["name"], o["type"], o["default"], o["help"]) for o in document["options"]]
    if options:
        output.show("", table(("option", "type", "default", ""), options, title="Options"))
    settings = [
        (f"{section}.{option}", json_module.dumps(value))
        for section, values in document["defaults"].items()
        for option, value in values.items()
    ]
    if settings:
        title = plain("Settings of other sections that suit it", "bold")
        output.show("", title, table(("", ""), settings))


def show_options(output: Output, registry: Registry, found: Registered[Component]) -> None:
    """Print the options of a component: name, type, default and meaning."""
    options, problem = _options(registry, found)
    rows = [(o["name"], o["type"], o["default"], o["help"]) for o in options]
    title = f"Options of {found.spec.name} (--set OPTION=VALUE)"
    if problem.error:
        output.warn(problem.error)
    elif rows:
        output.show("", table(("option", "type", "default", ""), rows, title=title))


def _options(registry: Registry, found: Registered[Component]) -> tuple[list[dict[str, str]], Problem]:
    """Return the described options, or the problem if the class cannot be imported or read."""
    from walkback.configuration.options import options_of

    try:
        options = options_of(registry.load(found), found.spec.preset, registry)
    except PluginError as error:
        return [], Problem(str(error), "".join(traceback_module.format_exception(error)))
    return [asdict(option) for option in options], Problem()
