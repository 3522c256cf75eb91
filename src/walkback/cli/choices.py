"""Options that choose a configuration, shared by `run` and `bench`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

import typer

from walkback.cli.common import complete_recipe, complete_setting, completion

COMPONENTS, TRAINING, EXECUTION, SWEEP = "Components", "Training", "Execution", "Several runs"
"""Panels of the help."""

OperatorName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--operator",
        help="Transition operator; `walkback plugins show NAME` lists its options.",
        rich_help_panel=COMPONENTS,
        autocompletion=completion("operator"),
    ),
]
DataName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Dataset: a name, a path (folder of images, parquet) or a hub id owner/name.",
        rich_help_panel=COMPONENTS,
        autocompletion=completion("dataset"),
    ),
]
ScheduleName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        help="Annealing schedule.",
        rich_help_panel=COMPONENTS,
        autocompletion=completion("schedule"),
    ),
]
PriorName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--prior",
        help="Prior p* of the hottest state.",
        rich_help_panel=COMPONENTS,
        autocompletion=completion("prior"),
    ),
]
ObjectiveName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="Loss of a step, or of a whole walk.",
        rich_help_panel=COMPONENTS,
        autocompletion=completion("objective"),
    ),
]
ProcessName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--process",
        help="Heating process.",
        rich_help_panel=COMPONENTS,
        autocompletion=completion("process"),
    ),
]
RecipeName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE.toml",
        help="Start from a complete configuration (see `walkback recipes list`).",
        rich_help_panel=COMPONENTS,
        autocompletion=complete_recipe,
    ),
]
Assignments: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.OPTION=VALUE",
        help="Set any option (see `walkback plugins show NAME`), e.g. --set operator.sigma=0.05; may be repeated.",
        rich_help_panel=COMPONENTS,
        autocompletion=complete_setting,
    ),
]
LoggerNames: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--logger",
        metavar="NAME",
        help="Add a logger of metrics; may be repeated. Set its options with --set loggers.NAME.OPTION=VALUE.",
        rich_help_panel=COMPONENTS,
        autocompletion=completion("logger"),
    ),
]
Steps: TypeAlias = Annotated[
    int | None,
    typer.Option("--steps", help="Number of walks, one minibatch each.", rich_help_panel=TRAINING),
]
BatchSize: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        help="Number of walks per minibatch; another size gives another run for the same seed.",
        rich_help_panel=TRAINING,
    ),
]
LearningRate: TypeAlias = Annotated[
    float | None, typer.Option("--lr", help="Learning rate.", rich_help_panel=TRAINING)
]
RunSeed: TypeAlias = Annotated[
    int | None, typer.Option("--seed", help="Seed of all randomness.", rich_help_panel=TRAINING)
]
RunDevice: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="auto|cpu|cuda[:i]", help="Device to compute on.", rich_help_panel=EXECUTION
    ),
]
RunPrecision: TypeAlias = Annotated[
    Literal["auto", "fp32", "bf16"] | None,
    typer.Option(
        "--precision",
        help="Precision of the network; auto is bf16 where it is faster and the loss agrees.",
        rich_help_panel=EXECUTION,
    ),
]
Compile: TypeAlias = Annotated[
    bool | None,
    typer.Option("--compile/--no-compile", help="Use torch.compile.", rich_help_panel=EXECUTION),
]


def logger_overrides(names: Sequence[str] | None) -> list[str]:
    """Convert names of loggers to assignments `loggers."name"=true`."""
    return [f'loggers."{name}"=true' for name in names or ()]
