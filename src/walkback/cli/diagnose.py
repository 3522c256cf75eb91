"""`walkback diagnose`: measure a trained operator by a diagnostic that a plugin offers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from walkback.cli.common import (
    CheckpointFile,
    Device,
    ForcePlot,
    Json,
    MeasuringPrecision,
    Plot,
    Seed,
    completion,
    data_overrides,
    refuse_options_without_data,
    registry_of,
)
from walkback.cli.console import Output
from walkback.errors import ConfigurationError

if TYPE_CHECKING:
    from walkback.report import Report

FAILED = 3
"""Exit code where a figure is beyond its threshold."""


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
    checkpoint: CheckpointFile,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="OPTION=VALUE", help="Set an option of the diagnostic, or data.OPTION=VALUE."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data to compare with: a name, a path or a hub id (default: that of the checkpoint).",
            autocompletion=completion("dataset"),
        ),
    ] = None,
    thresholds: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold",
            metavar="[FIGURE=]VALUE",
            help="Exit with 3 where the figure (default: the first of the report's kind) is above VALUE.",
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep finished pieces here, and go on from those that are there."),
    ] = None,
    plot: Plot = None,
    force: ForcePlot = False,
    seed: Seed = 0,
    device: Device = "auto",
    precision: MeasuringPrecision = "auto",
    json: Json = False,
) -> None:
    """Measure how a trained operator's chain behaves, with standard errors.

    walkback diagnose reversibility runs/mine/final.safetensors

    walkback diagnose stationarity final.safetensors --set steps=100000 --keep work --plot drift.png

    walkback diagnose reversibility final.safetensors --set chains=200 --threshold 5 --json
    """
    from walkback.building.assembly import load_model
    from walkback.building.devices import resolve_device
    from walkback.cli.reports import show_report
    from walkback.configuration.overrides import parse_value
    from walkback.measuring.diagnose import build_diagnostic, diagnose_model
    from walkback.measuring.provenance import evaluation_data, protocol_of
    from walkback.pictures.plots import check_plot_target, save_plot

    if plot is not None:
        check_plot_target(plot, force)
    of_data = [a for a in assignments or () if a.startswith("data.")]
    refuse_options_without_data(data, of_data)
    options = dict(_option(a, parse_value) for a in assignments or () if not a.startswith("data."))
    limits = [_limit(text) for text in thresholds or ()]
    target, output, registry = resolve_device(device), Output(), registry_of(ctx)
    chosen: Literal["fp32", "bf16"] = "fp32" if precision == "auto" else precision
    # A wrong name or option is refused before the checkpoint is read.
    diagnostic, table = build_diagnostic(registry, name, options)
    loaded = load_model(checkpoint, registry, target)
    with output.progress() as bar:
        report = diagnose_model(
            loaded,
            diagnostic,
            table,
            protocol_of(loaded, checkpoint.name, target, chosen, seed),
            partial(evaluation_data, loaded, registry, data, data_overrides(of_data)),
            source=data,
            device=target,
            precision=chosen,
            seed=seed,
            directory=keep,
            watch=bar,
        )
    beyond = _beyond(report, limits)
    if plot is not None:
        save_plot(plot, report)
    if json:
        output.emit_json({**report.to_dict(), "beyond": beyond})
    else:
        show_report(output, report)
    for sentence in beyond:
        output.error(sentence)
    if beyond:
        raise typer.Exit(FAILED)


def _option(assignment: str, parse_value: object) -> tuple[str, object]:
    name, equals, value = assignment.partition("=")
    if not (equals and name.strip()) or not callable(parse_value):
        raise ConfigurationError(f"Got --set {assignment!r}, expected --set OPTION=VALUE.")
    return name.strip().removeprefix("diagnostic."), parse_value(value.strip())


def _limit(text: str) -> tuple[str, float]:
    """`FIGURE=VALUE` or `VALUE`, which means the headline."""
    name, equals, value = text.rpartition("=")
    try:
        return name.strip() if equals else "", float(value)
    except ValueError as error:
        raise ConfigurationError(f"Got --threshold {text!r}, expected a number, or FIGURE=NUMBER.") from error


def _beyond(report: Report, limits: list[tuple[str, float]]) -> list[str]:
    """One sentence for each figure above its limit.

    Raises:
        ConfigurationError: There is no such figure.
    """
    found = []
    for name, limit in limits:
        try:
            figure = report[name or report.headline]
        except KeyError:
            names = ", ".join(figure.name for figure in report.figures)
            raise ConfigurationError(f"Got --threshold for {name!r}, expected one of: {names}.") from None
        if figure.value > limit:
            found.append(
                f"{figure.name} = {figure.value:.5g} {figure.unit} is above the threshold of {limit:g}."
            )
    return found
