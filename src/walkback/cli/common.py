"""Shared parts of commands: the registry of a call, completion of names, common options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

import typer

from walkback.cli.console import Output
from walkback.component import Kind
from walkback.extensions.loader import chosen
from walkback.extensions.registry import Registry
from walkback.support.processes import follow_parent, is_one_of_several, require_few, talks
from walkback.support.readouts import READOUTS, Readout

if TYPE_CHECKING:
    from walkback.jobs.job import Job

Result = TypeVar("Result")

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def registry_of(ctx: typer.Context) -> Registry:
    """Return the registry of this call of the program; plugins are loaded on the first request.

    Broken plugins are reported on stderr at that time, and those that break later when the command ends.
    """
    root = ctx.find_root()
    if not isinstance(root.obj, Registry):
        root.obj = Registry.discover(chosen(), enabled=not root.params.get("no_plugins"))
        if not ctx.resilient_parsing:
            _report_broken(root, root.obj)
    registry: Registry = root.obj
    return registry


def completion(kind: Kind) -> Callable[[typer.Context, str], list[tuple[str, str]]]:
    """Return a completion callback for the names of components of one kind."""

    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        offers = registry_of(ctx).components(kind)
        return [
            (offer.reference, offer.spec.summary)
            for offer in offers
            if offer.reference.startswith(incomplete)
        ]

    return complete


def complete_recipe(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete names of recipes."""
    offers = registry_of(ctx).recipes()
    return [
        (offer.reference, offer.spec.summary) for offer in offers if offer.reference.startswith(incomplete)
    ]


def complete_setting(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The completion callback for `--set SECTION.OPTION=`, with the options of the components that were chosen."""
    from walkback.configuration.config import COMPONENT_SECTIONS
    from walkback.configuration.listing import completions
    from walkback.errors import WalkbackError

    chosen = {section: ctx.params.get(section) for section in COMPONENT_SECTIONS}
    try:
        return completions(registry_of(ctx), incomplete, ctx.params.get("recipe"), chosen)
    except WalkbackError:
        return []  # what is wrong is said when the command runs


def _report_broken(root: Any, registry: Registry) -> None:
    output, known = Output(), registry.warnings()
    for warning in known:
        output.warn(warning)

    def report_later() -> None:
        for warning in registry.warnings():
            if warning not in known:
                output.warn(warning)

    root.call_on_close(report_later)


def carry_out(ctx: typer.Context, output: Output, job: Job[Result], *, shown: bool = True) -> Result:
    """Check a job, do its work and return its result; with a progress bar if `shown`."""
    from walkback.jobs import job as jobs

    with output.progress(shown=shown) as watch:
        return jobs.carry_out(job, registry_of(ctx), watch)


def carry_out_together(ctx: typer.Context, output: Output, job: Job[Result], nproc: int) -> Result | None:
    """Carry out a job in `nproc` processes, or with others that a launcher has started; None where nothing is shown."""
    if is_one_of_several():
        follow_parent()
    elif nproc > 1:
        from walkback.jobs.launch import launch

        require_few(nproc, f"--nproc {nproc}")
        raise typer.Exit(launch(nproc, sys.argv[1:]))
    result = carry_out(ctx, output, job, shown=talks())
    return result if talks() else None


def data_overrides(assignments: Sequence[str] | None) -> list[str]:
    """Convert options of a dataset, `OPTION=VALUE`, to overrides of the configuration, `data.OPTION=VALUE`."""
    return [a if "." in a.partition("=")[0] else f"data.{a}" for a in assignments or ()]


CheckpointFile: TypeAlias = Annotated[
    Path, typer.Argument(metavar="CKPT", help="Checkpoint (.safetensors), or the directory of a run.")
]
DataSource: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Dataset: a name, a path or a hub id (default: that of the checkpoint).",
        autocompletion=completion("dataset"),
    ),
]
TrustData: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--trust-data",
        help="Allow reading or downloading the dataset named by the checkpoint, even if the file is not yours.",
    ),
]
DataOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="OPTION=VALUE", help="Set an option of the dataset given by --data."),
]
ReadoutOption: TypeAlias = Annotated[
    Readout,
    typer.Option(
        "--readout",
        metavar=READOUTS,
        help="How states are shown: unchanged, or as the mean of a step at T = 1 or T, which is free of its noise.",
    ),
]
Label: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS|none",
        help="Class, by name or number, for class-conditional models (default: the classes of the data; without data, "
        "drawn as in the training data).",
    ),
]
Guidance: TypeAlias = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Position between the unconditional (0) and the class-conditional (1) operator, or beyond.",
    ),
]
Excursion: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="LEVELS",
        help="Heat this many levels of the schedule and cool them back in each step at T = 1, by 2 runs of the network "
        "per level (default: single steps, 1 run).",
    ),
]
NumProcesses: TypeAlias = Annotated[
    int, typer.Option("--nproc", min=1, help="Number of processes to divide the work among, one per device.")
]
Seed: TypeAlias = Annotated[int, typer.Option(min=0, help="Seed.")]
Device: TypeAlias = Annotated[str, typer.Option(metavar="auto|cpu|cuda[:i]", help="Device to compute on.")]
Plot: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE.png", help="Draw the report's curves (needs the extra viz)."),
]
WorkDirectory: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Directory of finished parts: keep them here, and resume from existing ones."
    ),
]
NumLevels: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Number of annealing levels (default: those of the schedule).")
]
OldKeep: TypeAlias = Annotated[Path | None, typer.Option("--keep", hidden=True)]
OldSteps: TypeAlias = Annotated[int | None, typer.Option("--steps", min=1, hidden=True)]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]
ForcePlot: TypeAlias = Annotated[bool, typer.Option("--force", help="Overwrite an existing plot.")]
DrawingPrecision: TypeAlias = Annotated[
    Literal["auto", "fp32", "bf16"], typer.Option(help="Precision of the network; auto is bf16 on CUDA.")
]
MeasuringPrecision: TypeAlias = Annotated[
    Literal["auto", "fp32", "bf16"], typer.Option(help="Precision of the network; auto is fp32.")
]
