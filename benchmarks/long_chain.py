"""Does a chain at T = 1 stay on the data for 100,000 steps, and in constant memory?

    python benchmarks/long_chain.py runs/gaussian-mlp-digits/final.safetensors --chains 200 --steps 100000

Chains start from annealed states. At 20 evenly spaced times: mean and variance of the state's entries, distance to the
nearest of (at most 10,000) training states, the same figures of held-out states above them, and the memory of the
process. The last line compares the second fifth of the chain with the last: the chains are independent, so the mean
over chains of the difference between the two, in units of its standard error, is about standard normal where nothing
drifts. Class shares are in digits.py and mnist.py, which take further steps too.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from walkback.configuration.config import component
from walkback.engine.assembly import build_dataset, load_model
from walkback.engine.devices import autocast, resolve_device, resolve_precision
from walkback.extensions.registry import Registry
from walkback.operators import visible
from walkback.sampling import anneal, chain, last
from walkback.seeding import generator

FRAMES = 20
NAMES = ("mean", "variance", "nearest")


def statistics(states: Tensor, train: Tensor) -> Tensor:
    """Mean, variance and nearest training state of each row, `(N, 3)`."""
    rows = states.cpu().float().flatten(1)
    nearest = torch.cdist(rows, train).min(1).values
    return torch.stack([rows.mean(1), rows.var(1, correction=0), nearest], 1).double()


def resident() -> float:
    """Memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096 / 2**20


def show(name: str, found: Tensor, note: str = "") -> None:
    """One row: mean over chains ± standard error."""
    error = found.std(0) / math.sqrt(len(found))
    cells = "  ".join(
        f"{m:9.4f} ± {e:.4f}" for m, e in zip(found.mean(0).tolist(), error.tolist(), strict=True)
    )
    print(f"{name:>16s}  {cells}  {note}", flush=True)


def main(options: argparse.Namespace) -> None:
    """Run the chains of one checkpoint."""
    device, registry = resolve_device("auto"), Registry.discover()
    loaded = load_model(options.checkpoint, registry, device)
    dataset = build_dataset(
        component(registry, "data", loaded.checkpoint.description.config["data"]), registry
    )
    dataset.prepare()
    noise = generator("cpu", 0, "data")
    train = dataset.states(dataset.examples("train")[:10_000], noise).flatten(1)
    print(f"{'steps at T = 1':>16s}  " + "  ".join(f"{name:>18s}" for name in NAMES) + "  memory")
    show("held-out data", statistics(dataset.states(dataset.examples("test")[:1000], noise), train))
    model, frames = loaded.model, []
    draw = generator(device, options.seed, "long-chain")
    started = time.perf_counter()
    with autocast(device, resolve_precision(options.precision, device)):
        state = last(anneal(model.operator, model.prior, model.levels(), options.chains, draw))
        every = options.steps // FRAMES
        show("annealed", statistics(visible(model.operator, state), train), f"{resident():.0f} MiB")
        for number, frame in enumerate(
            chain(model.operator, state, options.steps, draw, every=every), start=1
        ):
            frames.append(statistics(visible(model.operator, frame), train))
            show(f"{number * every:,}", frames[-1], f"{resident():.0f} MiB")
    fifth = FRAMES // 5
    early, late = (torch.stack(part).mean(0) for part in (frames[fifth : 2 * fifth], frames[-fifth:]))
    change = late - early
    z = change.mean(0) / (change.std(0) / math.sqrt(len(change)))
    print(
        "drift, z:  "
        + "  ".join(f"{name} {value:+.1f}" for name, value in zip(NAMES, z.tolist(), strict=True))
    )
    print(f"{options.steps:,} steps of {options.chains} chains in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--chains", type=int, default=200)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--seed", type=int, default=0)
    torch.set_num_threads(1)
    main(parser.parse_args())
