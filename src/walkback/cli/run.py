"""`walkback run`: train a transition operator, evaluate it and draw samples."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from walkback.cli.choices import (
    EXECUTION,
    SWEEP,
    Assignments,
    BatchSize,
    Compile,
    DataName,
    LearningRate,
    LoggerNames,
    ObjectiveName,
    OperatorName,
    PriorName,
    ProcessName,
    RecipeName,
    RunDevice,
    RunPrecision,
    RunSeed,
    ScheduleName,
    Steps,
    logger_overrides,
)
from walkback.cli.common import Json, carry_out, registry_of
from walkback.cli.console import Output, table
from walkback.cli.runs import show_runs
from walkback.support.processes import follow_parent, is_one_of_several, talks

if TYPE_CHECKING:
    from walkback.jobs.sweep import SweepJob
    from walkback.jobs.train import CheckedTraining
    from walkback.training.run_result import RunResult


def run(
    ctx: typer.Context,
    operator: OperatorName = None,
    data: DataName = None,
    schedule: ScheduleName = None,
    prior: PriorName = None,
    objective: ObjectiveName = None,
    process: ProcessName = None,
    loggers: LoggerNames = None,
    recipe: RecipeName = None,
    assignments: Assignments = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    seed: RunSeed = None,
    device: RunDevice = None,
    precision: RunPrecision = None,
    compiled: Compile = None,
    nproc: Annotated[
        int | None,
        typer.Option(help="Number of processes to train with, one per device.", rich_help_panel=EXECUTION),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory (default: runs/OPERATOR-DATA).", rich_help_panel=EXECUTION),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="auto|DIR[@STEP]",
            help="Resume a run directory from its newest checkpoint, or from that of STEP; auto resumes the newest "
            "matching directory, or starts a new run.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="data|OPTION",
            help="With --resume, accept changed data, or a changed option that the weights depend on.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    pictures: Annotated[
        bool | None,
        typer.Option(
            "--pictures/--no-pictures",
            help="Draw samples, chains and walks at the end of training (samples.*).",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Train N runs with consecutive seeds, starting with --seed.",
            rich_help_panel=SWEEP,
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SECTION.OPTION=VALUE,…",
            help="Train one run per value, e.g. --sweep operator.sigma=0.03,0.05; may be repeated to train all "
            "combinations. Repeating the command skips finished runs and resumes others.",
            rich_help_panel=SWEEP,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show the resolved configuration and the number of parameters, without training.",
            rich_help_panel=EXECUTION,
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Train a transition operator, evaluate it on held-out data and draw samples.

    Without options, it learns small handwritten digits in about two minutes on two cores.

    walkback run --operator gaussian-conv --data celeba

    walkback run --data ./photos --set data.size=32 --steps 2000

    walkback run --recipe digits --set operator.network.hidden=512 --out runs/wide
    """
    from walkback.jobs.configuration import choices_of
    from walkback.jobs.job import flags
    from walkback.jobs.sweep import SweepJob
    from walkback.jobs.train import TrainJob

    # Components and settings are passed by parameter name, and so are not repeated here.
    choices = choices_of(ctx.params, [*logger_overrides(loggers), *(assignments or ())])
    job = TrainJob(choices, out=out, resume=resume, accept=tuple(accept or ()), launched=True, say=flags)
    output = Output()
    if seeds is not None or sweep:
        _sweep(ctx, output, SweepJob(job, seeds, tuple(sweep or ())), json, dry_run)
        return
    if dry_run:
        with output.progress() as watch:
            ready = job.check(registry_of(ctx), watch)
        _show(ready, output, json)
        return
    if is_one_of_several():
        follow_parent()
    else:
        config, _ = job.configure(registry_of(ctx))
        if config.run.nproc > 1:
            from walkback.jobs.launch import launch

            raise typer.Exit(launch(config.run.nproc, sys.argv[1:], "; go on with --resume"))
    trained = carry_out(ctx, output, job, shown=talks())
    if trained is not None:
        _report(trained.result, output, json)


def _sweep(ctx: typer.Context, output: Output, job: SweepJob, json: bool, dry_run: bool) -> None:
    """Train the runs of a sweep and show them; the exit code is 1 if one diverged."""
    if dry_run:
        with output.progress() as watch:
            ready = job.check(registry_of(ctx), watch)
        output.write("".join(f"{member.out}\n" for member in ready.members))
        return
    found = carry_out(ctx, output, job)
    show_runs(output, found, json=json)
    if any(run.state == "diverged" for run in found.runs):
        raise typer.Exit(1)


def _report(result: RunResult, output: Output, json: bool) -> None:
    if json:
        document = {**asdict(result), "bound": None if result.bound is None else result.bound.to_dict()}
        paths = {"directory": str(result.directory), "checkpoint": str(result.checkpoint)}
        output.emit_json({**document, **paths, "pictures": [str(path) for path in result.pictures]})
        return
    rows = [
        *_bound(result),
        ("training", f"{result.walks:,} walks in {result.seconds:.0f} s" + _peak(result)),
        *([] if result.best_step is None else [("best model", f"after {result.best_step:,} walks")]),
        ("checkpoint", str(result.checkpoint)),
        *((path.stem, str(path)) for path in result.pictures),
    ]
    output.show(table(("", ""), rows))


def _bound(result: RunResult) -> list[tuple[str, str]]:
    bound = result.bound
    if bound is None:
        return []
    return [
        ("bound on -log p" + (" given the label" if "given" in result.protocol else ""), str(bound)),
        (
            "measured on",
            f"{bound.examples} {result.protocol['split']} examples, {bound.paths} path(s), K = {bound.levels}",
        ),
    ]


def _peak(result: RunResult) -> str:
    return "" if result.peak_memory is None else f", {result.peak_memory / 2**20:,.0f} MiB of memory at most"


def _show(ready: CheckedTraining, output: Output, json: bool) -> None:
    """Show the resolved configuration and the size of the model, for --dry-run."""
    prepared, config = ready.prepared, ready.prepared.config
    levels = [level.temperature for level in prepared.model.levels()]
    minutes, steps = config.training.minutes, config.training.steps
    if json:
        output.emit_json(
            {
                "config": config.to_dict(),
                "parameters": prepared.num_parameters,
                "temperatures": levels,
                "device": str(prepared.device),
                "precision": prepared.precision,
                "data": prepared.dataset.info.to_dict(),
            }
        )
        return
    output.write(config.to_toml())
    length = f"{steps:,} walks" + ("" if minutes is None else f" or {minutes:g} minutes, whichever is first")
    output.note(
        f"{prepared.num_parameters:,} parameters, {len(levels)} levels, on {prepared.device} in "
        f"{prepared.precision}, {length}."
    )
