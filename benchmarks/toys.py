"""Do the runs on points of the plane sample their data, and do their chains stay on them?

    python benchmarks/toys.py runs/swiss-roll-0 runs/swiss-roll-1 runs/swiss-roll-2

For each run directory: the bound on test points beside the likelihood of the best single Gaussian (nats), and the
squared MMD (biased, Gaussian kernel of 0.15 times the data's standard deviation, 2,000 points a side) of annealed
points, and of the same points after 1,000 and 10,000 further steps at T = 1, against data that no run has seen, in
units of what other such data have against them. One pair of sets moves the ratio by 0.2 either way by chance, data
against data included, so it is the mean over all pairs of three sets of samples and three of data, ± the standard error
over the sets of samples. The three sets are different samples after annealing, and later the same 2,000 chains after
1,000, 2,000 and 3,000, and after 10,000, 11,000 and 12,000 steps. For a mixture, also the largest relative deviation of
a mode's share of the points from an equal share; points belong to the mode whose centre is nearest.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from walkback.building.assembly import LoadedModel, build_dataset, load_model
from walkback.configuration.config import component
from walkback.data import Batch, Dataset
from walkback.extensions.registry import Registry
from walkback.measuring.bound import estimate_bound
from walkback.measuring.quality.mmd import mmd_squared
from walkback.model import Model
from walkback.sampling import anneal, chain, last
from walkback.support.seeding import generator
from walkback_toys.figures import Mog

NUM = 2000
SETS = 3
BETWEEN = 1000
STEPS = (1000, 10_000)


def points(dataset: Dataset, split: str) -> Tensor:
    """All states of a split, `(N, 2)`."""
    return dataset.states(dataset.examples(split), generator("cpu", 0, f"points-{split}"))  # type: ignore[arg-type]


def gaussian_nats(train: Tensor, test: Tensor) -> float:
    """Mean negative log-likelihood of the test points under the Gaussian with the moments of the training points."""
    law = torch.distributions.MultivariateNormal(train.double().mean(0), torch.cov(train.double().T))
    return -law.log_prob(test.double()).mean().item()


def relative_mmd(states: Tensor, first: Tensor, second: Tensor, bandwidth: float) -> tuple[float, float]:
    """MMD² of states against data, in units of `second` data against `first`, and its standard error."""
    unit = mmd_of_sets(second, first, bandwidth).mean()
    found = mmd_of_sets(states, first, bandwidth).mean(1) / unit
    return found.mean().item(), found.std().item() / math.sqrt(SETS)


def mmd_of_sets(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    """MMD² of every set of `x` against every set of `y`, `(SETS, SETS)`."""
    return torch.tensor(
        [[mmd_squared(a, b, bandwidth) for b in torch.split(y, NUM)] for a in torch.split(x, NUM)]
    )


def stages(model: Model, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Three sets of annealed points, and three looks at the chains of the first after more and more steps at T = 1."""
    noise = generator("cpu", seed, "judged")
    state = last(anneal(model.operator, model.prior, model.levels(), SETS * NUM, noise))
    yield "annealed", state  # type: ignore[misc]
    state, done = state[:NUM], 0
    for target in STEPS:
        looks = []
        for look in range(target, target + SETS * BETWEEN, BETWEEN):
            state = last(chain(model.operator, state, look - done, noise, every=look - done))
            done = look
            looks.append(state)
        yield f"+{target:,}", torch.cat(looks)  # type: ignore[arg-type]


def mode_deviation(states: Tensor, centres: Tensor) -> float:
    """Largest relative deviation of a mode's share from the equal share of all."""
    counts = torch.bincount(
        torch.cdist(states.double(), centres.double()).argmin(1), minlength=len(centres)
    ).double()
    return (counts / counts.mean() - 1).abs().max().item()


def judge(directory: Path, registry: Registry) -> str:
    """One row of the table."""
    loaded: LoadedModel = load_model(directory / "final.safetensors", registry, torch.device("cpu"))
    table = {**loaded.checkpoint.description.config["data"], "num_held_out": 2 * SETS * NUM}
    dataset = build_dataset(component(registry, "data", table), registry)
    dataset.prepare()
    train, fresh = points(dataset, "train"), points(dataset, "test")
    first, second = fresh.chunk(2)
    bound = estimate_bound(loaded.model, [Batch(first)], loaded.info, generator("cpu", 0, "bound"))
    row = [
        f"{directory!s:28s}",
        f"{bound.nats:6.3f} ± {bound.nats_error:.3f}",
        f"{gaussian_nats(train, first):6.3f}",
    ]
    bandwidth = 0.15 * math.sqrt(train.var(0, correction=0).mean().item())
    for name, state in stages(loaded.model, seed=1):
        ratio, error = relative_mmd(state, first, second, bandwidth)
        row.append(f"{name} {ratio:5.2f} ± {error:.2f}")
        if isinstance(dataset, Mog):
            row[-1] += f" (modes {100 * mode_deviation(state, dataset.centres):.0f} %)"
    return "  ".join(row)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    torch.set_num_threads(1)
    print(f"{'':28s}  bound, nats     Gaussian  MMD² / MMD² of data against data")
    found = Registry.discover()
    for run in parser.parse_args().runs:
        print(judge(run, found), flush=True)
