"""`walkback report`: write a page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from walkback.cli.common import Device, Force, TrustData, carry_out, completion
from walkback.cli.console import Output


def report(
    ctx: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="RUN|CKPT", help="Run directory, or checkpoint (.safetensors).")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.html", help="The page to write.")] = Path(
        "report.html"
    ),
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Evaluate the likelihood of held-out data, with baselines.")
    ] = False,
    samples: Annotated[
        int, typer.Option(min=0, help="With --evaluate, number of samples to compare with the data.")
    ] = 0,
    diagnose: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Run this diagnostic; may be repeated.",
            autocompletion=completion("diagnostic"),
        ),
    ] = None,
    trust_data: TrustData = False,
    force: Force = False,
    device: Device = "auto",
) -> None:
    """Write a self-contained HTML page about a run: curves, samples, chains, measurements, configuration.

    walkback report runs/wide -o wide.html --evaluate --diagnose reversibility --diagnose mixing

    The page includes reports in the run directory (`walkback evaluate RUN --json > RUN/evaluate.json`).
    """
    from walkback.jobs.job import flags
    from walkback.jobs.report import MeasureRequest, ReportJob

    output = Output()
    measure = MeasureRequest(evaluate, samples, tuple(diagnose or ()), trust_data, flags)
    written = carry_out(ctx, output, ReportJob(source, out, force, device, measure))
    output.note(f"Wrote {written}.")
