"""Quality of samples and long chains of an MNIST run: a classifier scores them, real digits and noise.

    WALKBACK_DATA=DIR python benchmarks/mnist.py runs/mnist/final.safetensors --judge judge.safetensors

For annealed states (`--start data`: for test digits, smoothed as the training data are), and after further steps at
T = 1, each shown by the mean of a step from it (`--readout mean@T`: of one at T; `--readout state`: unprocessed, with
the noise of its last step): the share that the classifier assigns to a class with at least 90 % probability, the
entropy of its predicted classes in nats (log 10 = 2.30 if all are equally frequent), and the mean Euclidean distance to
the nearest training image. Standard errors are over samples; that of the entropy is from the plug-in formula. Rows for
real test digits (unchanged, and with noise of 0.05) and for uniform noise are given for comparison. A copy would have a
nearest distance far below that of real test digits.

The classifier, a small convolutional network trained here on the 60,000 training labels with noise of up to 0.1, never
sees the operator or the test split. A fifth of its training examples are not digits (noise, shuffled pixels, collages
of quarters of four digits) and have all classes equally probable as their label; without them, it is sure that noise is
an 8.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from walkback.building.assembly import load_model
from walkback.building.data_of_model import data_for, first_states
from walkback.building.devices import autocast, resolve_device, resolve_precision
from walkback.extensions.registry import Registry
from walkback.model import Model
from walkback.pictures.images import grid, save_png
from walkback.sampling import anneal, chain, last
from walkback.sampling.readout import read_out, require_readout
from walkback.support.readouts import READOUTS
from walkback.support.seeding import generator

SIGMA = 0.05
SURE = 0.9
JUNK = 26  # of 128


def mnist(split: str) -> tuple[Tensor, Tensor]:
    """Images `(N, 1, 28, 28)` in gray levels and labels `(N,)`, from the mirror of the hub or the hub."""
    mirror = Path(os.environ.get("WALKBACK_DATA", "")) / "ylecun" / "mnist"
    rows = load_dataset(str(mirror) if mirror.is_dir() else "ylecun/mnist", split=split)
    table = rows.data.table.to_pydict()
    images = [np.asarray(Image.open(BytesIO(image["bytes"]))) for image in table["image"]]
    return torch.from_numpy(np.stack(images))[:, None].float(), torch.tensor(table["label"])


def dequantized(grey: Tensor, noise: torch.Generator) -> Tensor:
    """(v + u) / 256, the states that operators are trained on."""
    return (grey + torch.rand(grey.shape, generator=noise)) / 256


class Judge(nn.Module):
    """Two convolutions and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 32, 5, stride=2, padding=2), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 5, stride=2, padding=2), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, 10)`."""
        logits: Tensor = self.layers(images)
        return logits


def junk(states: Tensor, noise: torch.Generator) -> Tensor:
    """Images `(B, 1, 28, 28)` that are no digits, made of some that are; three kinds in turn."""
    images = states.clone()
    images[0::3] = torch.rand(images[0::3].shape, generator=noise)
    order = torch.rand(images[1::3].flatten(1).shape, generator=noise).argsort(1)
    images[1::3] = images[1::3].flatten(1).gather(1, order).reshape(images[1::3].shape)
    others = [states.roll(shift, 0) for shift in (1, 2, 3, 4)]
    top = torch.cat([others[0][..., :14, :14], others[1][..., :14, 14:]], 3)
    bottom = torch.cat([others[2][..., 14:, :14], others[3][..., 14:, 14:]], 3)
    images[2::3] = torch.cat([top, bottom], 2)[2::3]
    return images


def trained_judge(path: Path, images: Tensor, labels: Tensor, epochs: int = 4) -> Judge:
    """The classifier from `path`, trained and written there if need be."""
    torch.manual_seed(0)
    judge = Judge()
    if path.exists():
        judge.load_state_dict(load_file(path))
        return judge.eval()
    noise = generator("cpu", 0, "judge")
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3)
    steps = epochs * (len(images) // 128)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(images), (128,), generator=noise)
        level = 2 * SIGMA * torch.rand(128, 1, 1, 1, generator=noise)
        states = dequantized(images[rows], noise)
        states = states + level * torch.randn(states.shape, generator=noise)
        targets = one_hot(labels[rows], 10).float()
        states[:JUNK] = junk(states, noise)[:JUNK]
        targets[:JUNK] = 0.1
        loss = cross_entropy(judge(states), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    save_file(judge.state_dict(), path)
    return judge.eval()


@torch.no_grad()
def verdict(states: Tensor, judge: Judge) -> tuple[float, float]:
    """Share of the states `(N, 1, 28, 28)` that the classifier is sure of, and the entropy of its classes, nats."""
    probabilities = judge(states.cpu().float()).softmax(1)
    shares = torch.bincount(probabilities.argmax(1), minlength=10).double() / len(states)
    sure = (probabilities.max(1).values >= SURE).double().mean().item()
    return sure, torch.special.entr(shares).sum().item()


@torch.no_grad()
def figures(states: Tensor, judge: Judge, train: Tensor) -> str:
    """One row of the table: share sure, class entropy, nearest distance, each with its standard error."""
    states = states.cpu().float()
    probabilities = judge(states).softmax(1)
    sure = (probabilities.max(1).values >= SURE).double()
    counts = torch.bincount(probabilities.argmax(1), minlength=10).double()
    shares = counts / counts.sum()
    surprise = -shares.clamp(min=1e-12).log()
    entropy = (shares * surprise).sum()
    spread = ((shares * surprise.square()).sum() - entropy.square()).clamp(min=0).sqrt()
    nearest = torch.cat([torch.cdist(part.flatten(1), train).min(1).values for part in states.split(250)])
    root = len(states) ** 0.5
    return (
        f"{sure.mean():.3f} ± {sure.std() / root:.3f}   {entropy:.2f} ± {spread / root:.2f}   "
        f"{nearest.mean():.2f} ± {nearest.std() / root:.2f}   {nearest.min():.2f}   "
        + " ".join(f"{int(count):4d}" for count in counts)
    )


def stages(
    model: Model, start: int | Tensor, steps: list[int], noise: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    """Annealed states, `start` of them, or states `(N, 1, 28, 28)`; then these after more and more steps at T = 1."""
    if isinstance(start, Tensor):
        state = start.to(model.device)
        yield "start", state
    else:
        state = last(anneal(model.operator, model.prior, model.levels(), start, noise))
        yield "annealed", state
    done = 0
    for target in steps:
        state = last(chain(model.operator, state, target - done, noise, every=target - done))
        done = target
        yield f"+ {done:,} at T = 1", state  # type: ignore[misc]


def main(options: argparse.Namespace) -> None:
    """Judge one checkpoint."""
    noise = generator("cpu", 0, "real")
    grey, labels = mnist("train")
    judge = trained_judge(options.judge, grey, labels)
    train = dequantized(grey, noise).flatten(1)
    test, test_labels = mnist("test")
    real = dequantized(test, noise)
    with torch.no_grad():
        accuracy = (judge(real).argmax(1) == test_labels).double().mean()
    print(f"classifier: {100 * accuracy:.2f} % of test digits right")
    print(f"{'':22s}  sure ≥ 0.9        class entropy   nearest         smallest   classes 0 … 9")

    def report(name: str, states: Tensor) -> None:
        print(f"{name:22s}  {figures(states, judge, train)}", flush=True)

    report("real test digits", real[:2000])
    report("real + noise of 0.05", real[:2000] + SIGMA * torch.randn(real[:2000].shape, generator=noise))
    report("uniform noise", torch.rand(500, 1, 28, 28, generator=noise))
    if options.checkpoint is None:
        return
    device = resolve_device("auto")
    registry = Registry.discover()
    loaded = load_model(options.checkpoint, registry, device)
    model, start = loaded.model, options.num
    if options.start == "data":
        start = first_states(data_for(loaded, registry), "test", options.num, options.seed)
    require_readout(model, options.readout)
    chain_noise = generator(device, options.seed, "judged")
    with autocast(device, resolve_precision(options.precision, device)):
        for name, state in stages(model, start, options.steps, chain_noise):
            shown = read_out(model.operator, state, options.readout).cpu().float()
            report(name, shown)
            if options.pictures is not None:
                options.pictures.mkdir(exist_ok=True, parents=True)
                file = options.pictures / f"{name.replace(' ', '-').replace(',', '')}.png"
                save_png(file, grid(shown[:100]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument(
        "--judge", type=Path, default=Path("judge.safetensors"), help="where the classifier is kept"
    )
    parser.add_argument("--num", type=int, default=500, help="number of samples")
    parser.add_argument(
        "--start", default="noise", choices=("noise", "data"), help="annealed, or test digits as states"
    )
    parser.add_argument("--steps", type=int, nargs="*", default=[1000, 10_000], help="steps at T = 1")
    parser.add_argument("--readout", default="mean", metavar=READOUTS, help="what is judged of a state")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--pictures", type=Path, help="directory for grids of the samples")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
