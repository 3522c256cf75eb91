"""`walkback plugins`: installed plugins and their components."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from walkback.cli.common import Json, registry_of
from walkback.cli.console import Output, plain, table
from walkback.cli.plugins_check import check
from walkback.cli.plugins_new import new
from walkback.cli.plugins_show import show
from walkback.errors import ConfigurationError
from walkback.extensions.loader import RECORDS, hook_name
from walkback.extensions.registered import Registered
from walkback.extensions.registry import Registry
from walkback.support.text import nearest

app = typer.Typer(no_args_is_help=True, help="List, show, write and check plugins.")
app.command("show")(show)
app.command("new")(new)
app.command("check")(check)


@app.command("list")
def list_plugins(
    ctx: typer.Context,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Only this kind of component, e.g. operator.", autocompletion=lambda: list(RECORDS)
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the installed plugins with their status, and their components by kind."""
    if kind is not None and kind not in RECORDS:
        raise ConfigurationError(
            f"Unknown kind {kind!r}{nearest(kind, RECORDS)}; available: {', '.join(RECORDS)}."
        )
    registry, output = registry_of(ctx), Output()
    kinds = list(RECORDS) if kind is None else [kind]
    if json:
        output.emit_json(_document(registry, kinds))
    else:
        _show(registry, kinds, output)
    if ctx.find_root().params.get("debug"):
        for status in registry.plugins:
            output.messages.print(plain(status.traceback), end="", soft_wrap=True)


def _document(registry: Registry, kinds: list[str]) -> dict[str, Any]:
    plugins = [
        {
            "name": status.name,
            "distribution": status.distribution,
            "version": status.version,
            "status": status.status,
            "error": status.error or None,
        }
        for status in registry.plugins
    ]
    return {
        "plugins": plugins,
        "offers": {kind: [_record(o) for o in registry.offers(kind)] for kind in kinds},
    }


def _record(offer: Registered[Any]) -> dict[str, Any]:
    return {
        "name": offer.spec.name,
        "qualified_name": offer.qualified_name,
        "plugin": offer.plugin,
        "distribution": offer.distribution,
        "version": offer.version,
        "status": "shadowed" if offer.rivals else "ok",
        "summary": offer.spec.summary,
        "rivals": list(offer.rivals),
    }


def _show(registry: Registry, kinds: list[str], output: Output) -> None:
    rows = [(s.name, s.version, f"{s.status}: {s.error}" if s.error else s.status) for s in registry.plugins]
    output.show(table(("plugin", "version", "status"), rows, title="Plugins"))
    for kind in kinds:
        offers = registry.offers(kind)
        rows = [(offer.reference, _summary(offer), offer.plugin) for offer in offers]
        if rows:
            title = hook_name(kind).removeprefix("walkback_").capitalize()
            output.show("", table(("name", "summary", "plugin"), rows, title=title))


def _summary(offer: Registered[Any]) -> str:
    """Return the summary, with a note if other distributions use the same name."""
    shadowed = f"shadowed: {offer.spec.name!r} is also {' and '.join(offer.rivals)}" if offer.rivals else ""
    return "; ".join(text for text in (offer.spec.summary, shadowed) if text)
