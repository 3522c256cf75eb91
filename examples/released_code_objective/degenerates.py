"""Trains one operator twice, by the paper's rule and by that of the released code, and measures both.

    python degenerates.py [--steps 1000] [--out released-objective.png]

Same data (a Swiss roll), same Gaussian operator with mixing mean μ = (1 - α) s + α F(s), α = ½, and a learned cooling
variance T σ² r(s), same initial weights, same noise; only the objective differs. Heating noise is fixed in both, so the
walks of both forget the data.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from walkback.configuration.layering import resolve
from walkback.data import Batch, Dataset, Split
from walkback.extensions.registry import Registry
from walkback.kernels import NormalKernel
from walkback.measuring.bound import estimate_bound
from walkback.measuring.quality.mmd import mmd_squared
from walkback.model import Model
from walkback.sampling import COLD, anneal, chain, last
from walkback.state import State, leaves
from walkback.support.extras import require
from walkback.support.seeding import generator
from walkback.training.preparation import Prepared, prepare
from walkback.training.trainer import Trainer

NAMES = {"walkback": "the paper: log p(s_{t-1} | s_t)", "released-code": "released code: log p(s_t | s_t)"}
ALPHA, SIGMA, CHAIN, BANDWIDTH = 0.5, 0.1, 500, 0.2
HELD_OUT: tuple[Split, ...] = ("test", "validation")
OPTIONS = (
    *("operator.mean=mix", f"operator.alpha={ALPHA}", "operator.variance=reverse", f"operator.sigma={SIGMA}"),
    *("operator.network.hidden=64", "operator.network.depth=2", "schedule.n1=2", "data.num=5000"),
    *("training.batch_size=128", "training.updates=stacked", "training.lr=0.003", "training.ema=0.98"),
    *("training.lr_schedule=cosine", "run.precision=fp32"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One trained operator.

    Attributes:
        bound: -E[L] on held-out data, nats.
        bound_error: Its standard error.
        map_distance: Root mean square of F(s) - s over held-out data, in units of σ.
        ratio: Geometric mean of r(s) over held-out data: cooling variance over heating variance at T = 1.
        annealed: MMD² of annealed samples to held-out data.
        chain: The same after `CHAIN` further steps at T = 1.
        frozen: The same of chains of as many steps that start from data.
        samples: Annealed samples, `(N, 2)`.
        history: Loss of each walk, nats a step.
    """

    bound: float
    bound_error: float
    map_distance: float
    ratio: float
    annealed: float
    chain: float
    frozen: float
    samples: Tensor
    history: Tensor


def prepared(objective: str, steps: int) -> Prepared:
    """Everything that a run with this objective needs."""
    registry = Registry.discover()
    config = resolve(
        registry,
        components={"operator": "gaussian-mlp", "data": "swiss-roll", "objective": objective},
        overrides=[*OPTIONS, f"training.steps={steps}"],
    )
    return prepare(config, registry, "cpu")


def dataset() -> Dataset:
    """The data set of both."""
    return prepared("walkback", 1).dataset


def train(parts: Prepared) -> tuple[Model, Tensor]:
    """The trained model, and the loss of each walk."""
    settings = parts.config.training
    trainer = Trainer(parts.model, parts.objective, parts.dataset, settings, seed=0, device=parts.device)
    history = torch.stack([trainer.walk() for _ in range(settings.steps)])
    return trainer.averaged_model, history


@torch.no_grad()
def mean_map(model: Model, data: Tensor) -> tuple[float, float]:
    """How far F is from the identity, in units of σ, and r: both at T = 1, over data `(N, 2)`."""
    kernel = model.operator(data, COLD).cooling(COLD)
    assert isinstance(kernel, NormalKernel)
    moved = (kernel.mean - data) / ALPHA
    ratio = (kernel.variance / SIGMA**2).log().mean().exp()
    return moved.square().mean().sqrt().item() / SIGMA, ratio.item()


def measure(objective: str, steps: int, num: int = 1000) -> Measured:
    """Train, and measure on held-out data."""
    parts = prepared(objective, steps)
    model, history = train(parts)
    data = parts.dataset.examples("test")[:num]
    noise = generator("cpu", 0, "measure")
    bound = estimate_bound(model, [Batch(data)], parts.dataset.info, noise)
    annealed = last(anneal(model.operator, model.prior, model.levels(), num, noise))
    ends = [last(chain(model.operator, start, CHAIN, noise)) for start in (annealed, data)]

    def away(state: State) -> float:
        return mmd_squared(leaves(state)[0], data, BANDWIDTH)

    distance, ratio = mean_map(model, data)
    return Measured(
        bound=bound.nats,
        bound_error=bound.nats_error,
        map_distance=distance,
        ratio=ratio,
        annealed=away(annealed),
        chain=away(ends[0]),
        frozen=away(ends[1]),
        samples=leaves(annealed)[0],
        history=history,
    )


def best_gaussian(data: Tensor) -> float:
    """½ log |2πe Σ|, nats."""
    return 0.5 * torch.logdet(2 * math.pi * math.e * data.double().T.cov()).item()


def draw(path: Path, found: dict[str, Measured], data: Tensor) -> None:
    """Losses, and annealed samples over the data."""
    require("matplotlib", "viz").use("Agg")
    plot = require("matplotlib.pyplot", "viz")
    figure, axes = plot.subplots(1, 3, figsize=(12, 4), layout="constrained")
    for name, result in found.items():
        axes[0].plot(result.history.numpy(), label=NAMES[name], linewidth=0.8)
    axes[0].set(
        xlabel="walk", ylabel="own loss (nats a step)", title="The loss of the released code has no floor"
    )
    axes[0].legend(fontsize=8)
    for axis, (name, result) in zip(axes[1:], found.items(), strict=True):
        axis.scatter(*data.T.numpy(), s=2, color="0.8")
        axis.scatter(*result.samples.T.numpy(), s=2, color="tab:red")
        bound = f"bound {result.bound:.3g} nats" if result.bound < 1e4 else f"bound {result.bound:.1e} nats"
        axis.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title=f"{NAMES[name]}\n{bound}")
    figure.savefig(path, dpi=80)
    plot.close(figure)


def main() -> None:
    """Print a table and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("released-objective.png"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: measure(name, chosen.steps) for name in NAMES}
    data, other = (dataset().examples(split)[:1000] for split in HELD_OUT)
    print(
        f"best Gaussian {best_gaussian(data):.3f} nats; MMD² of data to data {mmd_squared(other, data, BANDWIDTH):.2g}"
    )
    for name, m in found.items():
        print(
            f"{NAMES[name]}: loss {m.history[-50:].mean():.3g} nats, bound {m.bound:.4g} ± {m.bound_error:.2g} nats"
        )
        print(f"  RMS of F(s) - s: {m.map_distance:.3g} σ, r = {m.ratio:.2g}")
        print(f"  MMD²: annealed {m.annealed:.2g}, {CHAIN} steps on {m.chain:.2g}, from data {m.frozen:.2g}")
    draw(chosen.out, found, data)


if __name__ == "__main__":
    main()
