"""`walkback evaluate`: the likelihood of held-out data, with errors, from a checkpoint."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from walkback.cli.common import (
    CheckpointFile,
    DataOptions,
    DataSource,
    Device,
    ForcePlot,
    Json,
    MeasuringPrecision,
    NumLevels,
    NumProcesses,
    OldKeep,
    OldSteps,
    Plot,
    ReadoutOption,
    Seed,
    TrustData,
    WorkDirectory,
    carry_out_together,
)
from walkback.cli.console import Output
from walkback.cli.reports import tell_report


def evaluate(
    ctx: typer.Context,
    checkpoint: CheckpointFile,
    data: DataSource = None,
    assignments: DataOptions = None,
    trust_data: TrustData = False,
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="Split to evaluate on.")
    ] = "test",
    limit: Annotated[
        int, typer.Option(min=1, help="Maximum number of examples, from the start of the split.")
    ] = 1000,
    paths: Annotated[int, typer.Option(min=1, help="Number of heating paths per example.")] = 32,
    simulated: Annotated[
        int, typer.Option(min=0, help="Number of samples whose likelihood is bracketed; 0 omits the bracket.")
    ] = 100,
    samples: Annotated[
        int, typer.Option(min=0, help="Number of samples to compare with the data; 0 omits the comparison.")
    ] = 0,
    readout: ReadoutOption = "state",
    classifier: Annotated[
        bool,
        typer.Option(
            "--classifier",
            help="Train a classifier on the data's labels, and also compare its features of samples.",
        ),
    ] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Evaluate simple models on the same examples.")
    ] = True,
    levels: NumLevels = None,
    levels_per_path: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Number of levels that each path visits, for diffusion processes of many levels: bound only "
            "(default: all).",
        ),
    ] = None,
    steps: OldSteps = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of examples computed at a time.")] = 250,
    cache: WorkDirectory = None,
    keep: OldKeep = None,
    plot: Plot = None,
    force: ForcePlot = False,
    seed: Seed = 0,
    device: Device = "auto",
    nproc: NumProcesses = 1,
    precision: MeasuringPrecision = "auto",
    json: Json = False,
) -> None:
    """Estimate the likelihood of held-out data: bound and importance sampling, in nats and bits/dim, with errors.

    The report also contains the reliability of the estimate (effective sample size, Pareto's k), bounds from both sides
    on the likelihood of the model's own samples, the gap by level, and simple models to compare with.

    walkback evaluate runs/mine --limit 200 --paths 64 --plot evaluation.png

    walkback evaluate final.safetensors --samples 1000 --classifier --json > evaluation.json
    """
    from walkback.jobs.evaluate import EvaluateJob
    from walkback.jobs.inputs import DataRequest, ModelRequest
    from walkback.jobs.job import flags, renamed
    from walkback.measuring.path_works import EvaluationPlan

    output = Output()
    job = EvaluateJob(
        model=ModelRequest(checkpoint, device, precision, launched=True),
        data=DataRequest(data, tuple(assignments or ()), trust_data),
        plan=EvaluationPlan(
            split=split,
            limit=limit,
            paths=paths,
            simulated=simulated,
            baselines=baselines,
            samples=samples,
            classifier=classifier,
            levels=renamed(output.warn, flags, "steps", steps, "levels", levels),
            batch_size=batch_size,
            seed=seed,
            readout=readout,
            levels_per_path=levels_per_path,
        ),
        cache=renamed(output.warn, flags, "keep", keep, "cache", cache),
        plot=plot,
        overwrite=force,
        say=flags,
    )
    report = carry_out_together(ctx, output, job, nproc)
    if report is not None:
        tell_report(output, report, json=json, plot=plot)
