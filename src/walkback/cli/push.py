"""`walkback push`: publish a model on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from walkback.cli.common import Json, registry_of
from walkback.cli.console import Output


def push(
    ctx: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="RUN|CKPT", help="Run directory, or checkpoint (.safetensors).")
    ],
    name: Annotated[str, typer.Argument(metavar="USER/MODEL", help="Repository on the Hugging Face hub.")],
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    license_name: Annotated[
        str | None,
        typer.Option("--license", metavar="ID", help="License of the weights, for the card: apache-2.0, …"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files and their sizes without sending anything.")
    ] = False,
    json: Json = False,
) -> None:
    """Publish a model on the Hugging Face hub: checkpoint, model card, report and pictures.

    walkback push runs/wide ada/digits --dry-run

    `hf://ada/digits` then stands for the checkpoint in every command and in `wb.load`.
    """
    from walkback.extensions.attribution import naming_plugins
    from walkback.jobs.push import PushJob

    output, registry = Output(), registry_of(ctx)
    with naming_plugins(registry), output.progress() as watch:
        job = PushJob(source, name, private, license_name, dry_run)
        ready = job.check(registry, watch)
        address = ready.run(watch)
    if json:
        output.emit_json({"address": address, "sent": not dry_run, "files": ready.files})
    elif not dry_run:
        output.write(f"{address}\n")
