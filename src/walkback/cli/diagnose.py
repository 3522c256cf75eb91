"""`walkback diagnose`: run a diagnostic of a plugin on a trained operator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, final

import typer
from typer.core import TyperCommand

from walkback.cli.common import (
    DataSource,
    Device,
    Excursion,
    ForcePlot,
    Json,
    MeasuringPrecision,
    NumProcesses,
    OldKeep,
    Plot,
    Seed,
    TrustData,
    WorkDirectory,
    carry_out,
    carry_out_together,
    completion,
    registry_of,
)
from walkback.cli.console import Output
from walkback.cli.plugins_show import show_options
from walkback.cli.reports import tell_report
from walkback.errors import ConfigurationError


@final
class DiagnoseCommand(TyperCommand):
    """A command whose `--help` includes the options of the given diagnostic."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Remember the arguments: `--help` ends parsing before they are assigned."""
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Format the help of the command, followed by the options for `--set`."""
        super().format_help(ctx, formatter)
        registry = registry_of(ctx)
        for name in ctx.meta.get(_ARGUMENTS, ()):
            if registry.matches("diagnostic", name):
                show_options(Output(), registry, registry.find("diagnostic", name))


COMMAND_CLASS = DiagnoseCommand

_ARGUMENTS = "walkback.diagnose"

FAILED = 3
"""Exit code if a figure is above its threshold."""


def diagnose(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="Diagnostic: reversibility, stationarity, mixing, thermodynamics, symmetry, or a plugin's; "
            "`walkback plugins list --kind diagnostic` lists them.",
            autocompletion=completion("diagnostic"),
        ),
    ],
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT|TRACE",
            help="Checkpoint (.safetensors), or the directory of a run; for mixing and stationarity also recorded "
            "chains, an array (chains, draws, …) in a .npz or .npy file.",
        ),
    ],
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="OPTION=VALUE", help="Set an option of the diagnostic, or data.OPTION=VALUE."
        ),
    ] = None,
    data: DataSource = None,
    trust_data: TrustData = False,
    thresholds: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold",
            metavar="[FIGURE=]VALUE",
            help="Exit with code 3 if the figure (default: the headline of the report) is above VALUE.",
        ),
    ] = None,
    array: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Array (chains, draws, …) in a trace .npz (default: trace, or the only one).",
        ),
    ] = None,
    excursion: Excursion = None,
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
    """Measure the behavior of a trained operator's chain, with standard errors.

    walkback diagnose reversibility runs/mine

    walkback diagnose stationarity final.safetensors --set steps=100000 --cache work --plot drift.png

    walkback diagnose reversibility final.safetensors --set chains=200 --threshold 5 --json

    walkback diagnose mixing runs/mine --excursion 5

    walkback diagnose mixing trace.npz
    """
    from walkback.jobs.diagnose import DiagnoseJob
    from walkback.jobs.inputs import DataRequest, ModelRequest
    from walkback.jobs.job import flags, renamed
    from walkback.jobs.trace import ENDINGS, TraceJob

    output, given = Output(), assignments or []
    of_data = tuple(text for text in given if text.startswith("data."))
    options = dict(_option(text) for text in given if text not in of_data)
    limits = tuple(_threshold(text) for text in thresholds or ())
    if checkpoint.suffix.lower() in ENDINGS:
        if data is not None or of_data:
            raise ConfigurationError("Got data beside a trace, expected the trace alone: leave --data out.")
        if excursion is not None:
            raise ConfigurationError(
                f"Got --excursion {excursion} beside a trace, whose steps are taken already: leave it out."
            )
        trace = TraceJob(name, checkpoint, array, options, limits, plot, force)
        found = carry_out(ctx, output, trace)
    else:
        if array is not None:
            raise ConfigurationError(
                f"Got --array {array} with a checkpoint, expected a trace: leave it out."
            )
        job = DiagnoseJob(
            diagnostic=name,
            model=ModelRequest(checkpoint, device, precision, launched=True),
            options=options,
            data=DataRequest(data, of_data, trust_data),
            thresholds=limits,
            excursion=excursion,
            cache=renamed(output.warn, flags, "keep", keep, "cache", cache),
            plot=plot,
            overwrite=force,
            seed=seed,
            say=flags,
        )
        together = carry_out_together(ctx, output, job, nproc)
        if together is None:
            return
        found = together
    tell_report(output, found.report, json=json, plot=plot, beyond=list(found.beyond))
    for sentence in found.beyond:
        output.error(sentence)
    if found.unknown:
        raise ConfigurationError(found.unknown)
    if found.beyond:
        raise typer.Exit(FAILED)


def _option(assignment: str) -> tuple[str, Any]:
    """Parse `OPTION=VALUE` of the diagnostic."""
    from walkback.configuration.overrides import parse_value

    name, equals, value = assignment.partition("=")
    if not (equals and name.strip()):
        raise ConfigurationError(f"Got --set {assignment!r}, expected --set OPTION=VALUE.")
    return name.strip().removeprefix("diagnostic."), parse_value(value.strip())


def _threshold(text: str) -> tuple[str, float]:
    """Parse `FIGURE=VALUE`, or `VALUE`, which refers to the headline."""
    name, equals, value = text.rpartition("=")
    try:
        return name.strip() if equals else "", float(value)
    except ValueError as error:
        raise ConfigurationError(f"Got --threshold {text!r}, expected a number, or FIGURE=NUMBER.") from error
