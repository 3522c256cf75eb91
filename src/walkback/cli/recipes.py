"""`walkback recipes`: the complete configurations provided by plugins."""

from __future__ import annotations

from typing import Annotated

import typer

from walkback.cli.common import Json, complete_recipe, registry_of
from walkback.cli.console import Output, table

app = typer.Typer(no_args_is_help=True, help="List and show recipes.")


@app.command("list")
def list_recipes(ctx: typer.Context, json: Json = False) -> None:
    """List recipes: complete configurations by name, for `walkback run --recipe NAME`."""
    output, recipes = Output(), registry_of(ctx).recipes()
    if json:
        records = [
            {"name": r.reference, "plugin": r.plugin, "summary": r.spec.summary, "default": r.spec.default}
            for r in recipes
        ]
        output.emit_json({"recipes": records})
        return
    rows = [
        (r.reference, r.spec.summary + (" (default)" if r.spec.default else ""), r.plugin) for r in recipes
    ]
    output.show(table(("name", "summary", "plugin"), rows))


@app.command("show")
def show_recipe(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a recipe.", autocompletion=complete_recipe)],
) -> None:
    """Print a recipe as TOML, to be edited and passed to `walkback run --recipe FILE.toml`."""
    registry = registry_of(ctx)
    Output().write(registry.recipe_text(registry.find_recipe(name)))
