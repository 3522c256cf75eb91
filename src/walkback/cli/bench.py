"""`walkback bench`: the speed of a configuration on its device, and of alternatives."""

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
)
from walkback.cli.common import ForcePlot, Json, Plot, carry_out
from walkback.cli.console import Output
from walkback.cli.reports import tell_report


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
        int, typer.Option(min=1, help="Number of repetitions of each measurement.", rich_help_panel=EXECUTION)
    ] = 9,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare/--no-compare",
            help="Also measure other kinds of updates and the other precision, the loop by hand, and the ceilings.",
            rich_help_panel=EXECUTION,
        ),
    ] = True,
    scaling: Annotated[
        bool,
        typer.Option(
            "--scaling",
            help="Instead measure how time and memory grow with batch, K, image size, chain length and processes.",
            rich_help_panel=EXECUTION,
        ),
    ] = False,
    plot: Plot = None,
    force: ForcePlot = False,
    json: Json = False,
) -> None:
    """Measure how fast a configuration trains and samples before a long run, and which options are faster.

    Takes the options of `walkback run`, trains copies of the model on a few minibatches, and writes nothing. Other
    kinds of updates, the other precision, the loop that one would write by hand, and the machine's ceilings are
    measured in turn with the configured ways: compare the ratios.

    walkback bench --recipe mnist --device cuda

    walkback bench --operator gaussian-conv --data ./photos --set data.size=32 --batch-size 64 --no-compare

    walkback bench --recipe mnist --repeats 20 --json > speed.json

    walkback bench --recipe mnist --scaling --repeats 3 --plot scaling.png
    """
    from walkback.jobs.bench import BenchJob
    from walkback.jobs.configuration import choices_of
    from walkback.jobs.job import flags
    from walkback.speed.records import BenchmarkPlan

    # Components and settings are passed by parameter name, and so are not repeated here.
    choices = choices_of(ctx.params, assignments or ())
    plan = BenchmarkPlan(repeats=repeats, compare=compare)
    job = BenchJob(choices, plan, scaling=scaling, plot=plot, overwrite=force, say=flags)
    output = Output()
    tell_report(output, carry_out(ctx, output, job), json=json, plot=plot)
