"""`walkback sample`: draw samples and chains from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from walkback.cli.common import (
    CheckpointFile,
    Device,
    DrawingPrecision,
    Excursion,
    Force,
    Guidance,
    Json,
    Label,
    NumLevels,
    NumProcesses,
    OldSteps,
    ReadoutOption,
    Seed,
    TrustData,
    carry_out_together,
)
from walkback.cli.console import Output
from walkback.support.formats import CHAINS, PICTURES, STATES, listed


def sample(
    ctx: typer.Context,
    checkpoint: CheckpointFile,
    num: Annotated[
        int | None,
        typer.Option(min=1, help="Number of samples, or of chains (default: 64, or those of the file)."),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="noise|data|FILE",
            help="Anneal from noise, or start at T = 1 from held-out data, from samples "
            f"({listed(STATES)}) or from an image ({listed(PICTURES)}).",
        ),
    ] = "noise",
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        typer.Option(help="Split of the data for --from data (default: test)."),
    ] = None,
    trust_data: TrustData = False,
    levels: NumLevels = None,
    steps: OldSteps = None,
    extra: Annotated[
        int, typer.Option(min=0, help="Number of steps at T = 1 before the recorded chain.")
    ] = 0,
    chain: Annotated[int, typer.Option(min=0, help="Number of recorded steps at T = 1.")] = 0,
    every: Annotated[
        int | None, typer.Option(min=1, help="Steps between two recorded frames (default: 20 frames).")
    ] = None,
    excursion: Excursion = None,
    label: Label = None,
    guidance: Guidance = None,
    readout: ReadoutOption = "state",
    out: Annotated[Path, typer.Option(help=f"File to write: {listed(CHAINS)}.")] = Path("samples.png"),
    force: Force = False,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of samples computed at a time; another size gives other samples for the same seed.",
        ),
    ] = 1000,
    seed: Seed = 0,
    device: Device = "auto",
    nproc: NumProcesses = 1,
    precision: DrawingPrecision = "auto",
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile/--no-compile",
            help="Compile steps at T = 1, for long chains: takes seconds, and rounds otherwise.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Draw samples: anneal from the prior, take extra steps at T = 1, and optionally record a chain.

    With --from, chains start at T = 1 from data or from a file instead.

    walkback sample runs/mine --num 64 --out grid.png

    walkback sample final.safetensors --num 8 --chain 100000 --every 1000 --out chain.gif

    walkback sample final.safetensors --from data --num 8 --chain 1000 --every 100 --out from-data.png

    walkback sample final.safetensors --num 8 --chain 100 --excursion 5 --out excursions.png

    walkback sample final.safetensors --label 7 --guidance 2
    """
    from walkback.jobs.inputs import ModelRequest
    from walkback.jobs.job import flags, renamed
    from walkback.jobs.labels import LabelRequest
    from walkback.jobs.sample import SampleJob

    output = Output()
    job = SampleJob(
        model=ModelRequest(checkpoint, device, precision, launched=True),
        num=num,
        start=start,
        split=split,
        trust_data=trust_data,
        levels=renamed(output.warn, flags, "steps", steps, "levels", levels),
        extra=extra,
        chain=chain,
        every=every,
        excursion=excursion,
        readout=readout,
        labels=LabelRequest(label, guidance),
        out=out,
        overwrite=force,
        batch_size=batch_size,
        compiled=compiled,
        seed=seed,
        say=flags,
    )
    drawn = carry_out_together(ctx, output, job, nproc)
    if drawn is None:
        return
    if json:
        output.emit_json({"file": str(out), "num": drawn.num, "frames": len(drawn.steps), **drawn.protocol})
    else:
        output.note(f"Wrote {out}.")
