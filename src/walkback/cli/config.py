"""`walkback config`: all options, by section."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from walkback.cli.common import Json, registry_of
from walkback.cli.console import Output, table

app = typer.Typer(no_args_is_help=True, help="List the options of runs.")


@app.command("list")
def list_options(
    ctx: typer.Context,
    section: Annotated[
        str | None,
        typer.Argument(
            help="A section, or the beginning of an option's name: training, run, training.chains."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the options of every section, for `--set SECTION.OPTION=VALUE`: type, default and meaning.

    For operators, datasets and other components, the options are those of the default recipe's component; `walkback
    plugins show NAME` lists those of another one.

    walkback config list

    walkback config list training
    """
    from walkback.configuration.listing import all_options

    output = Output()
    found = all_options(registry_of(ctx), section or "")
    if json:
        output.emit_json({"options": [asdict(option) for option in found]})
    else:
        rows = [(option.name, option.type, option.default, option.help) for option in found]
        output.show(table(("option", "type", "default", ""), rows))
