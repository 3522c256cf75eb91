"""`walkback bench`: how fast a configuration is on its device, and which switches pay."""

from __future__ import annotations

from typing import Annotated

import typer

from walkback.cli.choices import (
    EXECUTION,
    Assignments,
    BatchSize,
    Compile,
    DataName,
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
    overrides_of,
)
from walkback.cli.common import Json, registry_of
from walkback.cli.console import Output, plain


def bench(
    ctx: typer.Context,
    operator: OperatorName = None,
    data: DataName = None,
    schedule: ScheduleName = None,
    prior: PriorName = None,
    objective: ObjectiveName = None,
    process: ProcessName = None,
    recipe: RecipeName = None,
    assignments: Assignments = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    seed: RunSeed = None,
    device: RunDevice = None,
    precision: RunPrecision = None,
    compiled: Compile = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Times that everything is measured.", rich_help_panel=EXECUTION)
    ] = 9,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare/--no-compare",
            help="Measure other updates and the other precision too.",
            rich_help_panel=EXECUTION,
        ),
    ] = True,
    json: Json = False,
) -> None:
    """Measure how fast a configuration trains and samples here, before a long run, and which switches pay.

    Takes what `walkback run` takes, trains copies of the model on a few minibatches, and leaves nothing. Other updates
    and the other precision are measured beside the configured ones, in turn: read the ratios.

    walkback bench --recipe mnist --device cuda

    walkback bench --operator gaussian-conv --data ./photos --set data.size=32 --batch-size 64 --no-compare

    walkback bench --recipe mnist --repeats 20 --json > speed.json
    """
    from walkback.cli.reports import tell_report
    from walkback.configuration.layering import resolve
    from walkback.speed.report import benchmark_report
    from walkback.speed.timings import BenchmarkPlan, time_configuration
    from walkback.training.preparation import prepare

    settings = {
        "training.steps": steps,
        "training.batch_size": batch_size,
        "run.seed": seed,
        "run.device": device,
        "run.precision": precision,
        "run.compile": compiled,
    }
    components = {
        "operator": operator,
        "data": data,
        "schedule": schedule,
        "prior": prior,
        "objective": objective,
        "process": process,
    }
    output, registry = Output(), registry_of(ctx)
    config = resolve(
        registry, recipe=recipe, components=components, overrides=overrides_of(settings, assignments)
    )
    with output.messages.status(plain(f"Preparing {config.data.name}")):
        prepared = prepare(config, registry)
    plan = BenchmarkPlan(repeats=repeats, compare=compare)
    with output.progress() as bar:
        report = benchmark_report(prepared, plan, time_configuration(prepared, plan, bar))
    tell_report(output, report, json=json)
