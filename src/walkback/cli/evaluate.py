"""`walkback evaluate`: the likelihood of held-out data, with errors, from a checkpoint."""

from __future__ import annotations

from pathlib import Path
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
    Plot,
    ReadoutOption,
    Seed,
    data_overrides,
    refuse_options_without_data,
    registry_of,
)
from walkback.cli.console import Output, plain
from walkback.errors import ConfigurationError


def evaluate(
    ctx: typer.Context,
    checkpoint: CheckpointFile,
    data: DataSource = None,
    assignments: DataOptions = None,
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="Split to evaluate on.")
    ] = "test",
    limit: Annotated[
        int, typer.Option(min=1, help="Number of examples: the first ones of the split.")
    ] = 1000,
    paths: Annotated[int, typer.Option(min=1, help="Heating paths of each example.")] = 32,
    simulated: Annotated[
        int, typer.Option(min=0, help="Samples of the model whose likelihood is bracketed; 0: none.")
    ] = 100,
    samples: Annotated[
        int, typer.Option(min=0, help="Samples compared with the data by distances and coverage; 0: none.")
    ] = 0,
    readout: ReadoutOption = "state",
    classifier: Annotated[
        bool,
        typer.Option(
            "--classifier",
            help="Train a classifier on the data's labels, and compare samples by its features too.",
        ),
    ] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Judge simple models on the same examples.")
    ] = True,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of levels (default: those of the schedule).")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples computed at a time.")] = 250,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep finished batches here, and go on from those that are there."),
    ] = None,
    plot: Plot = None,
    force: ForcePlot = False,
    seed: Seed = 0,
    device: Device = "auto",
    precision: MeasuringPrecision = "auto",
    json: Json = False,
) -> None:
    """Bound and importance-sampled likelihood of held-out data, in nats and bits/dim, with standard errors.

    Also: what carries the estimate (effective sample size, Pareto's k), a bracket of the likelihood of the model's own
    samples from both sides, where the bound is lost level by level, and simple models for orientation.

    walkback evaluate runs/mine/final.safetensors --limit 200 --paths 64 --plot evaluation.png

    walkback evaluate final.safetensors --samples 1000 --classifier --json > evaluation.json
    """
    from walkback.building.assembly import load_model
    from walkback.building.devices import resolve_device
    from walkback.cli.reports import show_report
    from walkback.measuring.evaluate import evaluate_model
    from walkback.measuring.path_works import EvaluationPlan
    from walkback.measuring.provenance import evaluation_data, protocol_of
    from walkback.pictures.plots import check_plot_target, save_plot

    refuse_options_without_data(data, assignments)
    if classifier and not samples:
        raise ConfigurationError(
            "Got --classifier without --samples, expected samples to compare: add --samples."
        )
    if readout != "state" and not samples:
        raise ConfigurationError(
            f"Got --readout {readout} without --samples, expected samples to compare: add --samples."
        )
    if plot is not None:
        check_plot_target(plot, force)
    target, output, registry = resolve_device(device), Output(), registry_of(ctx)
    # Densities are sums of thousands of terms: bf16 networks are an approximation that must be asked for.
    chosen: Literal["fp32", "bf16"] = "fp32" if precision == "auto" else precision
    loaded = load_model(checkpoint, registry, target)
    with output.messages.status(plain(f"Preparing {data or loaded.info.name}")):
        dataset = evaluation_data(loaded, registry, data, data_overrides(assignments))
    plan = EvaluationPlan(
        split, limit, paths, simulated, baselines, samples, classifier, steps, batch_size, seed, readout
    )
    with output.progress() as bar:
        report = evaluate_model(
            loaded,
            dataset,
            plan,
            protocol_of(loaded, checkpoint.name, target, chosen, seed),
            device=target,
            precision=chosen,
            directory=keep,
            watch=bar,
        )
    if plot is not None:
        save_plot(plot, report)
    if json:
        output.emit_json(report.to_dict())
    else:
        show_report(output, report)
