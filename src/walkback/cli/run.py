"""`walkback run`: train a transition operator, evaluate it, draw samples."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from walkback.cli.choices import (
    EXECUTION,
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
    overrides_of,
)
from walkback.cli.common import Json, registry_of
from walkback.cli.console import Output, plain, table
from walkback.errors import ConfigurationError

if TYPE_CHECKING:
    from walkback.configuration.config import RunConfig
    from walkback.extensions.registry import Registry
    from walkback.training.preparation import Prepared
    from walkback.training.run import RunResult


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
        int | None, typer.Option(help="Processes to train with, one per device.", rich_help_panel=EXECUTION)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory (default: runs/OPERATOR-DATA).", rich_help_panel=EXECUTION),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="auto|DIR",
            help="Go on with a run directory; auto takes the newest that fits, or starts anew.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show the resolved configuration and the parameter count, and stop.",
            rich_help_panel=EXECUTION,
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Train a transition operator, evaluate it on held-out data and draw samples.

    Without options: small handwritten digits, in about two minutes on two cores.

    walkback run --operator gaussian-conv --data celeba

    walkback run --data ./photos --set data.size=32 --steps 2000

    walkback run --recipe digits --set operator.network.hidden=512 --out runs/wide
    """
    settings = {
        "training.steps": steps,
        "training.batch_size": batch_size,
        "training.lr": lr,
        "run.seed": seed,
        "run.device": device,
        "run.precision": precision,
        "run.compile": compiled,
        "run.nproc": nproc,
    }
    components = {
        "operator": operator,
        "data": data,
        "schedule": schedule,
        "prior": prior,
        "objective": objective,
        "process": process,
    }
    registry = registry_of(ctx)
    overrides = overrides_of(settings, [*logger_overrides(loggers), *(assignments or ())])
    config, resumed = _configure(registry, recipe, components, overrides, out, resume)
    if dry_run:
        _show(config, registry, Output(), json)
        return
    if config.run.nproc > 1:
        from walkback.support.interrupts import Interrupted
        from walkback.training.launch import STOPPED, is_child, launch

        if not is_child():
            code = launch(config.run.nproc, sys.argv[1:])
            if code in STOPPED:  # and the first of them has said so
                raise Interrupted(code - 128, None, 0)
            raise typer.Exit(code)
    from walkback.support.threads import cpu_threads

    with cpu_threads(config.run.threads):
        _execute(config, registry, out, resumed, json)


def _configure(
    registry: Registry,
    recipe: str | None,
    components: dict[str, str | None],
    overrides: Sequence[str],
    out: Path | None,
    resume: str | None,
) -> tuple[RunConfig, Path | None]:
    """The resolved configuration, and the directory to resume (None: a new run)."""
    from walkback.configuration.layering import resolve
    from walkback.configuration.resuming import resumed_config
    from walkback.storage.rundir import default_stem, newest, require_free

    if resume is not None and recipe is not None:
        raise ConfigurationError(
            "Got --resume and --recipe, expected one of them: a run keeps its own recipe."
        )
    if resume not in (None, "auto"):
        directory = Path(str(resume))
        return resumed_config(registry, directory, components, overrides), directory
    config = resolve(registry, recipe=recipe, components=components, overrides=overrides)
    if resume == "auto":
        found = out if out is not None else newest(default_stem(config.operator.name, config.data.name))
        if found is not None and (found / "config.toml").exists():
            return resumed_config(registry, found, components, overrides), found
    if out is not None:
        require_free(out)
    return config, None


def _execute(
    config: RunConfig, registry: Registry, out: Path | None, resumed: Path | None, json: bool
) -> None:
    """Train for real."""
    from walkback.storage.rundir import RunDirectory, default_stem
    from walkback.support.interrupts import stoppable
    from walkback.training.distributed import joined_world, local_device
    from walkback.training.preparation import prepare
    from walkback.training.run import Run

    output = Output()
    with output.messages.status(plain(f"Preparing {config.data.name}")):
        prepared = prepare(config, registry, local_device(config.run.device))

    with joined_world(prepared.device) as world:

        def warn() -> None:
            if world.is_main:
                output.warn("stopping after this walk; once more to abort.")

        directory = None
        if world.is_main and resumed is not None:
            directory = RunDirectory.open(resumed)
        elif world.is_main:
            stem = default_stem(config.operator.name, config.data.name)
            directory = RunDirectory.create_next(stem) if out is None else RunDirectory.create(out)
        if directory is not None:
            output.note(_headline(prepared, directory.path))
        try:
            with stoppable(warn) as stop, output.progress(shown=world.is_main) as bar:
                job = Run(prepared, directory, bar, stop, world)
                if resumed is not None:
                    job.resume(resumed)
                result = job.execute()
        finally:
            if directory is not None:
                directory.close()
    if result is not None:
        _report(result, output, json)


def _headline(prepared: Prepared, directory: Path) -> str:
    """What is about to happen, in a line."""
    config = prepared.config
    return (
        f"{config.operator.name} ({prepared.num_parameters:,} parameters) on {config.data.name}, "
        f"K ≤ {len(prepared.model.levels())}, {prepared.device}, {prepared.precision} → {directory}"
    )


def _report(result: RunResult, output: Output, json: bool) -> None:
    if json:
        document = asdict(result)
        paths = {"directory": str(result.directory), "checkpoint": str(result.checkpoint)}
        output.emit_json({**document, **paths, "pictures": [str(path) for path in result.pictures]})
        return
    bound = result.bound
    rows = [
        (
            "bound on -log p",
            f"{bound.nats:.2f} ± {bound.nats_error:.2f} nats"
            + (
                ""
                if bound.bits_per_dimension is None or bound.bits_error is None
                else f" = {bound.bits_per_dimension:.3f} ± {bound.bits_error:.3f} bits/dim"
            ),
        ),
        (
            "measured on",
            f"{bound.examples} {result.protocol['split']} examples, {bound.paths} path(s), K = {bound.levels}",
        ),
        ("training", f"{result.walks:,} walks in {result.seconds:.0f} s" + _peak(result)),
        *([] if result.best_step is None else [("best model", f"after {result.best_step:,} walks")]),
        ("checkpoint", str(result.checkpoint)),
        *((path.stem, str(path)) for path in result.pictures),
    ]
    output.show(table(("", ""), rows))


def _peak(result: RunResult) -> str:
    return "" if result.peak_memory is None else f", {result.peak_memory / 2**20:,.0f} MiB of memory at most"


def _show(config: RunConfig, registry: Registry, output: Output, json: bool) -> None:
    """--dry-run: the resolved configuration, and the size of the model."""
    from walkback.training.preparation import prepare

    prepared = prepare(config, registry)
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
