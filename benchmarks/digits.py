"""Quality of samples and long chains of a digits run: a classifier scores them, real digits and noise.

    python benchmarks/digits.py runs/gaussian-mlp-digits/final.safetensors
    python benchmarks/digits.py runs/labelled/final.safetensors --guidance 2

For each set of 500: the share that the classifier is at least 90 % sure of, the entropy of its predicted classes in
nats (log 10 = 2.30 if all are equally frequent), and the mean distance to the nearest training digit. Of a model that
is told classes (`data.condition = "label"`) 50 samples of each class are asked for, and the last column is the share
that the classifier takes for the class that was asked for, with its standard error; of real digits, for their own. The
classifier (a support vector machine) and the distances know the training split only; real digits are the test split.
Real digits get the noise of one step at T = 1.
"""

from __future__ import annotations

import argparse
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor

from walkback.building.assembly import load_model
from walkback.data import labels_in_turn
from walkback.extensions.registry import Registry
from walkback.sampling import anneal, chain, last
from walkback.sampling.guidance import guided
from walkback.support.seeding import generator
from walkback_toys.digits import Digits

NUM = 500
SIGMA = 0.05


@dataclass(frozen=True)
class Judge:
    """The classifier, and the training digits `(N, D)` that distances are measured to."""

    classifier: SVC
    train: np.ndarray

    def report(self, name: str, states: Tensor, labels: Tensor | None = None) -> None:
        """Print one row; `labels` are the classes that the states should be of."""
        x = states.flatten(1).numpy()
        probabilities = self.classifier.predict_proba(x)
        found = probabilities.argmax(1)
        shares = np.bincount(found, minlength=10) / len(x)
        entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
        nearest = np.sqrt(((x[:, None] - self.train[None]) ** 2).sum(-1)).min(1).mean()
        asked = ""
        if labels is not None:
            share = float((found == labels.numpy()).mean())
            asked = f"{share:10.3f} ± {math.sqrt(share * (1 - share) / len(x)):.3f}"
        confident = (probabilities.max(1) >= 0.9).mean()
        print(f"{name:22s}  {confident:9.2f}  {entropy:13.2f}  {nearest:7.2f}{asked}", flush=True)


def main(path: Path, steps: list[int], guidance: float) -> None:
    """Judge one checkpoint."""
    noise = generator("cpu", 0, "judge")
    data = Digits()
    data.prepare()

    def noisy(examples: Tensor) -> Tensor:
        states = data.states(examples, noise)
        return states + SIGMA * torch.randn(states.shape, generator=noise)

    train = noisy(data.examples("train")).flatten(1).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the way scikit-learn will calibrate in future
        classifier = SVC(probability=True, C=10, random_state=0).fit(train, data.labels("train").numpy())
    judge = Judge(classifier, train)
    print(f"{'':22s}  confident  class entropy  nearest  of its class")
    judge.report("real test digits", noisy(data.examples("test")), data.labels("test"))
    judge.report("uniform noise", torch.rand(NUM, 1, 8, 8, generator=noise))
    loaded = load_model(path, Registry.discover(), torch.device("cpu"))
    model, labels = loaded.model, labels_in_turn(loaded.info, NUM, torch.device("cpu"))
    operator = model.operator if guidance == 1 else guided(model.operator, guidance)
    state = last(anneal(operator, model.prior, model.levels(), NUM, noise, labels))
    judge.report("annealed", state, labels)
    done = 0
    for target in steps:
        state = last(chain(operator, state, target - done, noise, labels, every=target - done))
        done = target
        judge.report(f"+ {done:,} steps at T = 1", state, labels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--steps", type=int, nargs="*", default=[100, 300, 1000, 10_000], help="steps at T = 1"
    )
    parser.add_argument(
        "--guidance", type=float, default=1.0, help="see walkback.sampling.guidance; 1 is none"
    )
    torch.set_num_threads(1)
    options = parser.parse_args()
    main(options.checkpoint, options.steps, options.guidance)
