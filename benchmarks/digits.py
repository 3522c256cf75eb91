"""Quality of samples and long chains of a digits run: a classifier scores them, real digits and noise.

    python benchmarks/digits.py runs/gaussian-mlp-digits/final.safetensors

For each set of 500: the share that the classifier assigns to a class with at least 90 % probability, the entropy of its
predicted classes in nats (log 10 = 2.30 if all are equally frequent), and the mean distance to the nearest training
digit. The classifier (a support vector machine) and the distances use the training split only; real digits are the test
split, with the noise of one step at T = 1 added.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor

from walkback.building.assembly import load_model
from walkback.extensions.registry import Registry
from walkback.sampling import anneal, chain, last
from walkback.support.seeding import generator
from walkback_toys.digits import Digits

NUM = 500
SIGMA = 0.05


def report(name: str, states: Tensor, judge: SVC, train: np.ndarray) -> None:
    """Print one row."""
    x = states.flatten(1).numpy()
    probabilities = judge.predict_proba(x)
    shares = np.bincount(probabilities.argmax(1), minlength=10) / len(x)
    entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
    nearest = np.sqrt(((x[:, None] - train[None]) ** 2).sum(-1)).min(1).mean()
    print(
        f"{name:22s}  {(probabilities.max(1) >= 0.9).mean():9.2f}  {entropy:13.2f}  {nearest:7.2f}",
        flush=True,
    )


def main(path: Path, steps: list[int]) -> None:
    """Judge one checkpoint."""
    noise = generator("cpu", 0, "judge")
    data = Digits()
    data.prepare()
    raw = load_digits()
    labels = {
        image.astype(np.uint8).tobytes(): label for image, label in zip(raw.images, raw.target, strict=True)
    }
    rows = data.examples("train")
    classes = [labels[row.numpy().tobytes()] for row in rows]

    def noisy(examples: Tensor) -> Tensor:
        states = data.states(examples, noise)
        return states + SIGMA * torch.randn(states.shape, generator=noise)

    train = noisy(rows).flatten(1).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the way scikit-learn will calibrate in future
        judge = SVC(probability=True, C=10, random_state=0).fit(train, classes)
    print(f"{'':22s}  confident  class entropy  nearest")
    report("real test digits", noisy(data.examples("test")), judge, train)
    report("uniform noise", torch.rand(NUM, 1, 8, 8, generator=noise), judge, train)
    model = load_model(path, Registry.discover(), torch.device("cpu")).model
    state = last(anneal(model.operator, model.prior, model.levels(), NUM, noise))
    report("annealed", state, judge, train)
    done = 0
    for target in steps:
        state = last(chain(model.operator, state, target - done, noise, every=target - done))
        done = target
        report(f"+ {done:,} steps at T = 1", state, judge, train)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--steps", type=int, nargs="*", default=[100, 300, 1000, 10_000], help="steps at T = 1"
    )
    torch.set_num_threads(1)
    options = parser.parse_args()
    main(options.checkpoint, options.steps)
