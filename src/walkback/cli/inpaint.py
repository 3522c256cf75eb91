"""`walkback inpaint`: fill in what is missing of held-out images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from walkback.cli.common import (
    CheckpointFile,
    DataOptions,
    DataSource,
    Device,
    Json,
    ReadoutOption,
    Seed,
    data_overrides,
    refuse_options_without_data,
    registry_of,
)
from walkback.cli.console import Output, plain
from walkback.errors import ConfigurationError


def inpaint(
    ctx: typer.Context,
    checkpoint: CheckpointFile,
    keep: Annotated[
        str,
        typer.Option(
            metavar="top|bottom|left|right|FILE.png",
            help="What is kept: a half, or the white part of an image of the data's size.",
        ),
    ],
    data: DataSource = None,
    assignments: DataOptions = None,
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="Split to take images from.")
    ] = "test",
    num: Annotated[int, typer.Option(min=1, help="Number of images: the first ones of the split.")] = 8,
    extra: Annotated[int, typer.Option(min=0, help="Steps at T = 1 after annealing.")] = 100,
    anneal: Annotated[
        bool,
        typer.Option(
            "--anneal/--no-anneal",
            help="Cool from the prior first, or start at T = 1 from the corrupted image, noise where nothing is kept.",
        ),
    ] = True,
    readout: ReadoutOption = "state",
    out: Annotated[Path, typer.Option(help="File to write: .png, .npz or .safetensors.")] = Path(
        "inpainted.png"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="Precision of the network; auto is bf16 on CUDA.")
    ] = "auto",
    json: Json = False,
) -> None:
    """Fill in images: keep a part of each as it is at every step, and let the chain draw the rest.

    The picture has three rows: masked, filled, original.

    walkback inpaint runs/mine/final.safetensors --keep top --num 8 --out faces.png

    walkback inpaint final.safetensors --keep mask.png --data ./photos --set size=32
    """
    from walkback.building.assembly import load_model
    from walkback.building.data_of_model import data_for, first_states
    from walkback.building.devices import autocast, resolve_device, resolve_precision
    from walkback.inpainting import fill_in, fill_steps
    from walkback.measuring.provenance import protocol_of
    from walkback.pictures.inpainted import check_target, read_mask, save_inpainted
    from walkback.readout import require_readout

    refuse_options_without_data(data, assignments)
    if not (anneal or extra):
        raise ConfigurationError("Got --no-anneal and --extra 0, expected steps to take: raise --extra.")
    check_target(out, force)
    target = resolve_device(device)
    chosen = resolve_precision(precision, target)
    loaded = load_model(checkpoint, registry_of(ctx), target)
    require_readout(loaded.model, readout)
    mask = read_mask(keep, loaded.info)
    output = Output()
    with output.messages.status(plain(f"Preparing {data or loaded.info.name}")):
        overrides = data_overrides(assignments)
        dataset = data_for(loaded, registry_of(ctx), data, overrides)
        original = first_states(dataset, split, num, seed)
    levels = loaded.model.levels() if anneal else ()
    with output.progress() as bar, autocast(target, chosen):
        bar.stage("Inpainting", fill_steps(len(original), levels, extra))
        filled = fill_in(
            loaded.model,
            original,
            mask,
            levels,
            extra=extra,
            readout=readout,
            seed=seed,
            device=target,
            on_step=lambda done: bar.advance(done, {}),
        )
    protocol = {
        **protocol_of(loaded, checkpoint.name, target, chosen, seed),
        "data": dataset.info.name,
        "split": split,
        "preprocessing": list(dataset.info.preprocessing),
        "fingerprint": dataset.info.fingerprint,
        "keep": keep,
        "annealing_steps": len(levels),
        "extra": extra,
        "readout": readout,
    }
    save_inpainted(out, mask, filled, original, protocol)
    if json:
        output.emit_json({"file": str(out), "num": num, **protocol})
    else:
        output.note(f"Wrote {out}.")
