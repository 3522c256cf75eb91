"""`walkback sample`: draw samples and chains from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from walkback.cli.common import Json, registry_of
from walkback.cli.console import Output
from walkback.errors import ConfigurationError


def sample(
    ctx: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint (.safetensors).")],
    num: Annotated[int, typer.Option(min=1, help="Number of samples, or of chains.")] = 64,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Annealing steps (default: those of the schedule).")
    ] = None,
    extra: Annotated[
        int, typer.Option(min=0, help="Further steps at T = 1 before anything is recorded.")
    ] = 0,
    chain: Annotated[int, typer.Option(min=0, help="Then record a chain of this many steps at T = 1.")] = 0,
    every: Annotated[
        int | None, typer.Option(min=1, help="Steps between two recorded frames (default: 20 frames).")
    ] = None,
    out: Annotated[Path, typer.Option(help="File to write: .png, .gif, .npz or .safetensors.")] = Path(
        "samples.png"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples computed at a time.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed.")] = 0,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:i]", help="Where to compute.")] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="Precision of the network; auto is bf16 on CUDA.")
    ] = "auto",
    json: Json = False,
) -> None:
    """Draw samples: anneal from the prior, take extra steps at T = 1, and record a chain if asked to.

    walkback sample runs/mine/final.safetensors --num 64 --out grid.png

    walkback sample final.safetensors --num 8 --chain 100000 --every 1000 --out chain.gif
    """
    from walkback.cli.progress import ProgressBar
    from walkback.engine.assembly import load_model
    from walkback.engine.devices import autocast, resolve_device, resolve_precision
    from walkback.operators import visible
    from walkback.pictures.frames import open_sink
    from walkback.sampling import SamplePlan, sample_frames

    if chain and every is None:
        every = max(1, chain // 20)
    if every is not None and every > max(chain, 1):
        raise ConfigurationError(
            f"Got --every {every} with --chain {chain}, expected at most the chain's length."
        )
    target = resolve_device(device)
    loaded = load_model(checkpoint, registry_of(ctx), target)
    model = loaded.model
    levels = model.levels() if steps is None else model.levels_of_length(steps)
    plan = SamplePlan(num=num, extra=extra, chain=chain, every=every or 1, seed=seed, batch_size=batch_size)
    output = Output()
    with (
        open_sink(out, loaded.info, num_frames=plan.num_frames, num_chains=num, overwrite=force) as sink,
        ProgressBar(output) as bar,
        autocast(target, resolve_precision(precision, target)),
    ):
        bar.stage("Sampling", plan.total_steps(levels))
        for done, step, state in sample_frames(model, levels, plan, target):
            if step is not None and state is not None:
                sink.add(step, visible(model.operator, state))
            bar.advance(done, {})
    if json:
        output.emit_json(
            {
                "file": str(out),
                "num": num,
                "annealing_steps": len(levels),
                "frames": plan.num_frames,
                "seed": seed,
            }
        )
    else:
        output.note(f"Wrote {out}.")
