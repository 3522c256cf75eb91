"""`walkback report`: one run as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from walkback.cli.common import Device, Force, carry_out
from walkback.cli.console import Output


def report(
    ctx: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="RUN|CKPT", help="Run directory, or checkpoint (.safetensors).")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.html", help="The page to write.")] = Path(
        "report.html"
    ),
    force: Force = False,
    device: Device = "auto",
) -> None:
    """Write one self-contained HTML page on a run: curves, samples, chains, measurements, configuration.

    Reports in the run directory (`walkback evaluate RUN --json > RUN/evaluate.json`) are part of the page.
    """
    from walkback.jobs.report import ReportJob

    output = Output()
    written = carry_out(ctx, output, ReportJob(source, out, force, device))
    output.note(f"Wrote {written}.")
