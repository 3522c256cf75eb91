"""`walkback plugins new`: write a working plugin distribution to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from walkback.cli.common import Json, registry_of
from walkback.cli.console import Output
from walkback.component import KINDS
from walkback.extensions.lookup import kind_named
from walkback.scaffold.files import write_distribution
from walkback.scaffold.names import names_for, require_unused


def new(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the component, e.g. my-operator.", show_default=False)],
    kind: Annotated[
        str,
        typer.Option(help=f"What to write: {', '.join(KINDS)}.", autocompletion=lambda: list(KINDS)),
    ] = "operator",
    out: Annotated[
        Path | None, typer.Option(help="New directory for it (default: walkback-NAME).", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Write a complete plugin, ready to install: a small working component, its hook and its tests."""
    names = names_for(name, kind_named(kind))
    require_unused(names, registry_of(ctx))
    directory = Path(names.distribution) if out is None else out
    written = write_distribution(directory, names)
    output = Output()
    if json:
        output.emit_json(
            {
                "directory": str(directory),
                "distribution": names.distribution,
                "package": names.package,
                "name": names.component,
                "kind": names.kind,
                "files": [str(path.relative_to(directory.absolute())) for path in written],
            }
        )
        return
    output.note(f"{len(written)} files in {directory}. Next:")
    output.write(
        f"pip install -e '{directory}[dev]'\npytest {directory}\nwalkback plugins show {names.component}\n"
    )
