"""`walkback import`: checkpoints of models that other libraries trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Turn models of other libraries into checkpoints.")


@app.callback()
def _group() -> None:
    """Turn models of other libraries into checkpoints."""


@app.command("diffusers")
def diffusers(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of DDPMPipeline.save_pretrained.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint to write.")] = Path(
        "imported.safetensors"
    ),
    gray_levels: Annotated[
        int,
        typer.Option(
            min=0, help="Gray levels of its images, whose bits/dim are measured; 0 if they are not quantized."
        ),
    ] = 256,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Write a DDPMPipeline of diffusers as a checkpoint for sample, inpaint, evaluate and diagnose.

    walkback import diffusers ./ddpm-cifar10-32 -o ddpm.safetensors

    walkback evaluate ddpm.safetensors --data cifar10 --levels-per-path 20 --simulated 0
    """
    from walkback.errors import ConfigurationError, escaped
    from walkback.jobs.imported import ImportJob
    from walkback.jobs.job import carry_out
    from walkback.support.watch import Silent
    from walkback_diffusers import pipeline as model
    from walkback_diffusers.folder import read_pipeline

    if gray_levels == 1:
        raise ConfigurationError("Got --gray-levels 1, expected 0, or at least 2.")
    pipeline = read_pipeline(folder)
    units = model.Units(pipeline.scheduler.betas(), gray_levels or None)
    parts, options = model.components(pipeline), model.settings(pipeline, units)
    job = ImportJob(folder, parts, options, model.tensors(pipeline, units), out, force)
    carry_out(job, ctx.obj, Silent())
    facts = {
        "file": str(out),
        "shape": list(pipeline.shape),
        "levels": len(units.betas),
        "mean": options["operator.mean"],
        "variance": options["operator.variance"],
        "gray_levels": units.gray_levels,
    }
    if json:
        from json import dumps

        typer.echo(dumps(facts))
    else:
        size = "×".join(map(str, pipeline.shape))
        typer.echo(
            escaped(
                f"Wrote {out}: {options['operator.mean']} prediction, {options['operator.variance']} variance, "
                f"{len(units.betas)} levels, images of {size}."
            ),
            err=True,
        )
