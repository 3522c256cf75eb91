"""`walkback sample`: draw samples and chains from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from walkback.cli.common import CheckpointFile, Device, Json, ReadoutOption, Seed, registry_of
from walkback.cli.console import Output, plain
from walkback.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

    from walkback.building.assembly import LoadedModel
    from walkback.data import Split
    from walkback.extensions.registry import Registry

_NUM = 64  # samples, where neither --num nor a file says how many


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
            help="Anneal from noise, or start at T = 1 from held-out data, from samples (.npz, .safetensors) "
            "or from an image (.png, .jpg).",
        ),
    ] = "noise",
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        typer.Option(help="Split of the data that --from data takes (default: test)."),
    ] = None,
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
    readout: ReadoutOption = "state",
    out: Annotated[Path, typer.Option(help="File to write: .png, .gif, .npz or .safetensors.")] = Path(
        "samples.png"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples computed at a time.")] = 1000,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="Precision of the network; auto is bf16 on CUDA.")
    ] = "auto",
    json: Json = False,
) -> None:
    """Draw samples: anneal from the prior, take extra steps at T = 1, and record a chain if asked to.

    With --from, chains start at T = 1 from data or from a file instead.

    walkback sample runs/mine/final.safetensors --num 64 --out grid.png

    walkback sample final.safetensors --num 8 --chain 100000 --every 1000 --out chain.gif

    walkback sample final.safetensors --from data --num 8 --chain 1000 --every 100 --out from-data.png
    """
    from walkback.building.assembly import load_model
    from walkback.building.devices import autocast, resolve_device, resolve_precision
    from walkback.measuring.provenance import drawing_protocol, protocol_of
    from walkback.pictures.frames import open_sink
    from walkback.readout import read_out, require_readout
    from walkback.sampling import SamplePlan, sample_frames

    if chain and every is None:
        every = max(1, chain // 20)
    if every is not None and every > max(chain, 1):
        raise ConfigurationError(
            f"Got --every {every} with --chain {chain}, expected at most the chain's length."
        )
    if start != "noise" and steps is not None:
        raise ConfigurationError(
            f"Got --steps {steps} with --from {start}, expected --from noise: such a chain starts at T = 1, "
            "and is not annealed."
        )
    if start != "data" and split is not None:
        raise ConfigurationError(f"Got --split {split} with --from {start}, expected --from data.")
    target = resolve_device(device)
    chosen = resolve_precision(precision, target)
    loaded = load_model(checkpoint, registry_of(ctx), target)
    model, output = loaded.model, Output()
    require_readout(model, readout)
    origin, levels = None, model.levels_of_length(steps) if steps is not None else model.levels()
    if start != "noise":
        origin, levels = _origin(loaded, registry_of(ctx), start, split or "test", num, seed, output), ()
    num = (num or _NUM) if origin is None else len(origin)
    plan = SamplePlan(num=num, extra=extra, chain=chain, every=every or 1, seed=seed, batch_size=batch_size)
    source = start if start in ("noise", "data") else Path(start).name
    protocol = {
        **protocol_of(loaded, checkpoint.name, target, chosen, seed),
        **drawing_protocol(plan, levels, source, readout),
    }
    with (
        open_sink(
            out, loaded.info, num_frames=plan.num_frames, num_chains=num, overwrite=force, protocol=protocol
        ) as sink,
        output.progress() as bar,
        autocast(target, chosen),
    ):
        bar.stage("Sampling", plan.total_steps(levels))
        for done, step, state in sample_frames(model, levels, plan, target, origin):
            if step is not None and state is not None:
                sink.add(step, read_out(model.operator, state, readout))
            bar.advance(done, {})
    if json:
        output.emit_json({"file": str(out), "num": num, "frames": plan.num_frames, **protocol})
    else:
        output.note(f"Wrote {out}.")


def _origin(
    loaded: LoadedModel,
    registry: Registry,
    start: str,
    split: Split,
    num: int | None,
    seed: int,
    output: Output,
) -> Tensor:
    """Where chains start that do not start from noise, `(num, *E)` on the CPU."""
    from walkback.building.data_of_model import data_for, first_states
    from walkback.pictures.starts import read_starts

    if start != "data":
        return read_starts(Path(start), loaded.info, num)
    with output.messages.status(plain(f"Preparing {loaded.info.name}")):
        dataset = data_for(loaded, registry)
    if dataset.info.fingerprint != loaded.info.fingerprint:
        output.warn(f"{loaded.info.name} has changed since training: the split may hold training examples.")
    return first_states(dataset, split, num or _NUM, seed)
