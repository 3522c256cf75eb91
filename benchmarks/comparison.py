"""One choice at a time: how each part of the method changes what is learned, with one network and one number of walks.

    python benchmarks/comparison.py swiss-roll mog --seeds 3 --out comparison.jsonl
    WALKBACK_DATA=DIR python benchmarks/comparison.py mnist --seeds 1 --out comparison.jsonl --judge judge.safetensors
    python benchmarks/comparison.py --table comparison.jsonl

Every variant is the base with the changes named beside it: fully connected layers with layer norm and FiLM, batch
updates of the local rule, preconditioned mean, reverse variance. Points: bound in nats, and MMD² to fresh points in
units of that of other fresh points (see toys.py), after annealing and after 1,000 steps at T = 1. MNIST: bound in
bits/dim, the share of samples that a classifier is sure of, and the entropy of its classes (see mnist.py), both after
annealing and after 300 steps at T = 1. A run that stops because it diverged has no figures. Results in the file already
are not computed again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mnist import mnist, trained_judge, verdict
from torch import Tensor
from toys import SETS, relative_mmd

from walkback.configuration.config import RunConfig
from walkback.configuration.layering import resolve
from walkback.data import Batch, Dataset
from walkback.errors import WalkbackError
from walkback.extensions.registry import Registry
from walkback.measuring.bound import estimate_bound
from walkback.model import Model
from walkback.sampling import anneal, chain, last
from walkback.support.seeding import generator
from walkback.training.preparation import Prepared, prepare
from walkback.training.trainer import Trainer

VARIANTS: Mapping[str, tuple[str, ...]] = {
    "base": (),
    "full bound (elbo)": ("objective.name=elbo",),
    "online updates": ("training.updates=online",),
    "variance fixed": ("operator.variance=fixed",),
    "variance tied, anchored": ("operator.variance=tied",),
    "variance tied, free (softplus)": ("operator.variance=softplus",),
    "mean mixed": ("operator.mean=mix",),
    "mean mixed, variance tied": ("operator.mean=mix", "operator.variance=tied"),
    "no level, batch norm shared": ("operator.network.conditioning=none", "operator.network.norm=batch"),
    "no level, batch norm per level": (
        "operator.network.conditioning=none",
        "operator.network.norm=batch",
        "operator.network.level_norms=LEVELS",
        "operator.network.norms_per_doubling=PER_DOUBLING",
    ),
    "no level, layer norm shared": ("operator.network.conditioning=none",),
    "level by embedding": ("operator.network.conditioning=embedding",),
}

COMMON = (
    "operator.name=gaussian-plain-mlp",
    "operator.network.norm=layer",
    "schedule.n1=4",
    "training.updates=batch",
    "training.lr_schedule=cosine",
    "training.warmup=50",
    "run.threads=1",
)

POINTS = (
    *(
        "operator.network.hidden=[128,128,128]",
        "operator.sigma=0.05",
        "schedule.name=geometric",
        "schedule.factor=1.5",
    ),
    *("training.batch_size=128", "training.lr=2e-3", "training.ema=0.995", "training.steps=400"),
    f"data.num_held_out={2 * SETS * 2000}",
)

BASES: Mapping[str, tuple[str, ...]] = {
    "swiss-roll": POINTS,
    "mog": POINTS,
    "mnist": (
        *("operator.network.hidden=[1200,1200]", "operator.sigma=0.05", "schedule.name=doubling"),
        *("training.batch_size=64", "training.lr=1e-3", "training.ema=0.99", "training.steps=100"),
    ),
}

NUM = 2000


def configuration(data: str, variant: str, seed: int, registry: Registry) -> RunConfig:
    """The configuration of one run."""
    levels = (
        {"LEVELS": "12", "PER_DOUBLING": "1"}
        if data == "mnist"
        else {"LEVELS": "20", "PER_DOUBLING": "1.7095"}
    )
    changes = [*COMMON, *BASES[data], *VARIANTS[variant], f"run.seed={seed}"]
    for word, number in levels.items():
        changes = [change.replace(word, number) for change in changes]
    return resolve(registry, components={"data": data}, overrides=changes)


def trained(prepared: Prepared) -> tuple[Model, float]:
    """The averaged model after all walks, and the seconds they took; raises WalkbackError where they diverge."""
    settings = prepared.config.training
    trainer = Trainer(
        prepared.model,
        prepared.objective,
        prepared.dataset,
        settings,
        seed=prepared.config.run.seed,
        device=prepared.device,
        precision=prepared.precision,
    )
    for _ in range(settings.steps):
        trainer.walk()
    model = trainer.averaged_model
    model.operator.eval()
    return model, trainer.progress.seconds


def samples(model: Model, num: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Annealed states, and the same chains `steps` steps later."""
    noise = generator("cpu", seed, "compared")
    state = last(anneal(model.operator, model.prior, model.levels(), num, noise))
    yield state  # type: ignore[misc]
    yield last(chain(model.operator, state, steps, noise, every=steps))  # type: ignore[misc]


def figures(data: str, model: Model, dataset: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """What is compared."""
    fresh = dataset.states(dataset.examples("test")[: 2 * SETS * NUM], generator("cpu", 0, "test"))
    test = fresh[:NUM]
    bound = estimate_bound(
        model, list(map(Batch, torch.split(test, 500))), dataset.info, generator("cpu", 0, "bound")
    )
    if data != "mnist":
        train = dataset.states(dataset.examples("train")[: 5 * NUM], generator("cpu", 0, "train"))
        first, second = fresh.chunk(2)
        bandwidth = 0.15 * math.sqrt(train.var(0, correction=0).mean().item())
        states = samples(model, SETS * NUM, 1000, 1)
        qualities = [relative_mmd(state, first, second, bandwidth)[0] for state in states]
        return {"bound": bound.nats, "annealed": qualities[0], "after": qualities[1]}
    grey, labels = mnist("train")
    judge = trained_judge(options.judge, grey, labels)
    (sure, entropy), (later, later_entropy) = (verdict(state, judge) for state in samples(model, 500, 300, 1))
    return {
        "bound": bound.bits_per_dimension,
        "annealed": sure,
        "annealed_entropy": entropy,
        "after": later,
        "after_entropy": later_entropy,
    }


def run(
    data: str, variant: str, seed: int, registry: Registry, options: argparse.Namespace
) -> dict[str, Any]:
    """Train and judge one variant."""
    prepared = prepare(configuration(data, variant, seed, registry), registry)
    row = {"data": data, "variant": variant, "seed": seed, "parameters": prepared.num_parameters}
    try:
        model, seconds = trained(prepared)
        return row | {"seconds": round(seconds, 1)} | figures(data, model, prepared.dataset, options)
    except WalkbackError as error:
        return row | {"diverged": str(error)}


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table: mean ± standard deviation over seeds."""
    lines = [
        "| data | variant | seeds | bound | annealed | (entropy) | later | (entropy) | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for data in dict.fromkeys(row["data"] for row in rows):
        for variant in VARIANTS:
            found = [row for row in rows if row["data"] == data and row["variant"] == variant]
            good = [row for row in found if "diverged" not in row]
            if found:
                lost = f" ({len(found) - len(good)} diverged)" if len(good) < len(found) else ""
                cells = [
                    spread([row[key] for row in good if key in row])
                    for key in ("bound", "annealed", "annealed_entropy", "after", "after_entropy", "seconds")
                ]
                lines.append(f"| {data} | {variant} | {len(found)}{lost} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean ± standard deviation."""
    if not values:
        return "-"
    digits = 0 if max(values) > 100 else 2
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a results file, none where there is no file yet."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def main(options: argparse.Namespace) -> None:
    """Run what is missing, and print the table."""
    registry = Registry.discover()
    done = {(row["data"], row["variant"], row["seed"]) for row in read(options.out)}
    for seed in range(options.seeds):
        for data in options.data:
            for variant in options.only or VARIANTS:
                if (data, variant, seed) in done:
                    continue
                row = run(data, variant, seed, registry, options)
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
    print(table(read(options.out)))


def known(data: str) -> str:
    """A data set's name; not `choices`, which refuses that none is given."""
    if data not in BASES:
        raise argparse.ArgumentTypeError(f"got {data!r}, expected one of {', '.join(BASES)}")
    return data


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="*", type=known, help=f"data sets: {', '.join(BASES)}")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="variants")
    parser.add_argument(
        "--out", "--table", type=Path, default=Path("comparison.jsonl"), help="results, one a line"
    )
    parser.add_argument(
        "--judge", type=Path, default=Path("judge.safetensors"), help="the classifier of mnist.py"
    )
    torch.set_num_threads(1)
    main(parser.parse_args())
