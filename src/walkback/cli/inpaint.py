"""`walkback inpaint`: fill in the missing part of held-out images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from walkback.cli.common import (
    CheckpointFile,
    DataOptions,
    DataSource,
    Device,
    DrawingPrecision,
    Force,
    Guidance,
    Json,
    Label,
    ReadoutOption,
    Seed,
    TrustData,
    carry_out,
)
from walkback.cli.console import Output
from walkback.support.formats import INPAINTED, listed


def inpaint(
    ctx: typer.Context,
    checkpoint: CheckpointFile,
    keep: Annotated[
        str,
        typer.Option(
            metavar="top|bottom|left|right|FILE.png",
            help="Part to keep: a half, or the white part of an image of the data's size.",
        ),
    ],
    data: DataSource = None,
    assignments: DataOptions = None,
    trust_data: TrustData = False,
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="Split to take images from.")
    ] = "test",
    num: Annotated[int, typer.Option(min=1, help="Number of images, from the start of the split.")] = 8,
    extra: Annotated[int, typer.Option(min=0, help="Steps at T = 1, or excursions, after annealing.")] = 100,
    excursion: Annotated[
        int | None, typer.Option(min=1, metavar="J", help="Levels that each excursion heats and cools back.")
    ] = None,
    returns: Annotated[
        int, typer.Option(min=0, metavar="N", help="Heat J levels again N times at every J-th level.")
    ] = 0,
    anneal: Annotated[
        bool,
        typer.Option(
            "--anneal/--no-anneal",
            help="Cool from the prior first, or start at T = 1 from the kept part completed with noise.",
        ),
    ] = True,
    label: Label = None,
    guidance: Guidance = None,
    readout: ReadoutOption = "state",
    out: Annotated[Path, typer.Option(help=f"File to write: {listed(INPAINTED)}.")] = Path("inpainted.png"),
    force: Force = False,
    seed: Seed = 0,
    device: Device = "auto",
    precision: DrawingPrecision = "auto",
    json: Json = False,
) -> None:
    """Inpaint images: keep a part of each fixed at every step of a chain that draws the rest.

    The picture has three rows: masked, filled, original.

    walkback inpaint runs/mine --keep top --num 8 --out faces.png

    walkback inpaint final.safetensors --keep mask.png --data ./photos --set size=32
    """
    from walkback.jobs.inpaint import InpaintJob
    from walkback.jobs.inputs import DataRequest, ModelRequest
    from walkback.jobs.job import flags
    from walkback.jobs.labels import LabelRequest

    output = Output()
    job = InpaintJob(
        model=ModelRequest(checkpoint, device, precision),
        keep=keep,
        data=DataRequest(data, tuple(assignments or ()), trust_data),
        split=split,
        num=num,
        extra=extra,
        excursion=excursion,
        returns=returns,
        anneal=anneal,
        readout=readout,
        labels=LabelRequest(label, guidance),
        out=out,
        overwrite=force,
        seed=seed,
        say=flags,
    )
    protocol = carry_out(ctx, output, job).protocol
    if json:
        output.emit_json({"file": str(out), "num": num, **protocol})
    else:
        output.note(f"Wrote {out}.")
