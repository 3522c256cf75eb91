"""A feature network trained on the labels of the dataset: a small classifier, trained in seconds to a minute.

It replaces Inception in FID, KID and the Inception score: sets are compared in its last hidden layer. Its features
capture only what distinguishes the classes of the dataset; its accuracy on held-out examples shows how well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from walkback.data import Dataset, Labelled, Split, states_of
from walkback.errors import ConfigurationError, DataError, WalkbackError
from walkback.measuring.estimates import share_figure
from walkback.report import Figure
from walkback.support.memory import send
from walkback.support.seeding import generator

FeatureMap: TypeAlias = Callable[[Tensor], Tensor]
"""Maps states `(B, *E)` on the CPU to features `(B, F)`, row by row."""

_FEATURES = 64

_BATCH = 128
_CHUNK = 512


@final
class _Network(nn.Module):
    """Convolutions for images, a multilayer perceptron otherwise: features `(B, 64)`, then logits `(B, K)`."""

    def __init__(self, shape: tuple[int, ...], classes: int, mean: float, std: float) -> None:
        super().__init__()
        self._mean, self._std, self.scale = mean, std, 1.0
        layers = _convolutions(shape) if len(shape) == 3 and min(shape[1:]) >= 8 else []
        width = _FEATURES * (_halved(shape[1], 2) * _halved(shape[2], 2)) if layers else math.prod(shape)
        hidden = [] if layers else [nn.Linear(width, 128), nn.ReLU()]
        last = nn.Linear(width if layers else 128, _FEATURES)
        self.body = nn.Sequential(*layers, nn.Flatten(), *hidden, last, nn.ReLU())
        self.head = nn.Linear(_FEATURES, classes)

    def forward(self, states: Tensor) -> Tensor:
        """Return logits `(B, K)`."""
        return self.head(self._hidden(states))  # type: ignore[no-any-return]

    def features(self, states: Tensor) -> Tensor:
        """Return the last hidden layer `(B, 64)`, nonnegative, divided by `scale`."""
        return self._hidden(states) / self.scale

    def _hidden(self, states: Tensor) -> Tensor:
        return self.body((states - self._mean) / self._std)  # type: ignore[no-any-return]


@final
@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained classifier.

    Attributes:
        network: The network in evaluation mode; maps states to logits.
        classes: Names of the classes by number.
        accuracy: Accuracy on held-out examples, in %.
    """

    network: _Network
    classes: tuple[str, ...]
    accuracy: Figure

    def features(self, states: Tensor) -> Tensor:
        """Return the last hidden layer for states `(N, *E)`: `(N, 64)`, on the CPU, mean square 1 on training data."""
        return in_chunks(self.network.features, states, self._device)

    def log_probs(self, states: Tensor) -> Tensor:
        """Return log p(y | x) of states `(N, *E)`: `(N, K)`, on the CPU."""
        return in_chunks(self.network, states, self._device).log_softmax(1)

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device


@torch.no_grad()
def in_chunks(features: FeatureMap, states: Tensor, device: torch.device | None = None) -> Tensor:
    """Compute features `(N, F)` of states `(N, *E)` in chunks, float64 on the CPU.

    Args:
        features: The feature map.
        states: States on any device.
        device: Device that `features` expects; None leaves the states where they are.

    Raises:
        WalkbackError: The result is not a finite matrix with one row per state.
    """
    parts = [features(part.to(device or part.device)).double().cpu() for part in torch.split(states, _CHUNK)]
    rows = torch.cat(parts)
    if rows.ndim != 2 or len(rows) != len(states) or not bool(rows.isfinite().all()):
        raise WalkbackError(
            f"Got features of shape {tuple(rows.shape)}, expected a finite row for each of {len(states)} states."
        )
    return rows


def label_classifier(
    data: Dataset, seed: int, device: torch.device | str = "cpu", *, steps: int = 500, num: int = 20_000
) -> Classifier:
    """Train a classifier on the training split of a labeled dataset, and measure its accuracy on the test split.

    Args:
        data: A prepared dataset.
        seed: Seed of weights, batches and the noise in states.
        device: Device to train on.
        steps: Number of Adam steps, with batches of 128.
        num: Largest number of examples of a split to use, the first in a shuffled order.

    Raises:
        ConfigurationError: The dataset has no labels.
        DataError: The source of the data has no labels, or no example of a split has a class.
        WalkbackError: Training diverged.
    """
    labelled = require_labels(data)
    place = torch.device(device)

    def some(split: Split) -> tuple[Tensor, Tensor]:
        order = generator("cpu", seed, f"classifier-{split}")
        rows, labels = torch.randperm(len(data.examples(split)), generator=order), labelled.labels(split)
        rows = rows[labels[rows] >= 0][:num]
        if not len(rows):
            raise DataError(f"No {split} example of {data.info.name} has a class: leave the classifier out.")
        noise = generator(place, seed, f"classifier-states-{split}")
        return states_of(data, split, rows, noise), labels[rows]

    return train_classifier(some("train"), some("test"), labelled.classes, seed, steps=steps)


def require_labels(data: Dataset) -> Labelled:
    """Return the dataset as one whose examples have classes.

    Raises:
        ConfigurationError: The dataset has no labels.
        DataError: The source of the data has no labels.
    """
    if not isinstance(data, Labelled) or not data.classes:
        raise ConfigurationError(
            f"{data.info.name} has no labels, so no classifier can be trained on it: leave the classifier out, or use "
            "data such as digits, mnist or cifar10."
        )
    return data


def train_classifier(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: tuple[str, ...],
    seed: int,
    *,
    steps: int = 500,
) -> Classifier:
    """Train a small classifier with Adam and a learning rate that decreases to 0.

    Args:
        train: States `(N, *E)`, on the device to train on, and classes `(N,)`.
        test: The same for the held-out examples that accuracy is measured on.
        classes: Names of the classes.
        seed: Seed of weights and batches.
        steps: Number of updates, each on 128 examples.

    Raises:
        WalkbackError: Training diverged, or there are too few held-out examples.
    """
    states, labels = train[0].detach().float(), train[1].to(train[0].device)
    mean, std = states.mean().item(), states.std().item() or 1.0
    # The caller usually measures without gradients, and this network needs them.
    with torch.inference_mode(False), torch.enable_grad():
        # The constructor of a layer draws from the global generator; `_initialize` overwrites what it draws.
        with torch.random.fork_rng(devices=[]):
            network = _Network(tuple(states.shape[1:]), len(classes), mean, std)
        _initialize(network, generator("cpu", seed, "classifier-weights"))
        network.to(states.device)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        batches = generator("cpu", seed, "classifier-batches")
        for step in range(steps):
            rows = send(
                torch.randint(len(states), (min(_BATCH, len(states)),), generator=batches), states.device
            )
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * (1 - step / steps)
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(network(states[rows]), labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    network.eval().requires_grad_(False)
    # Fréchet and kernel distances have the units of the features, so these are normalized.
    network.scale = in_chunks(network.features, states).square().mean().sqrt().item() or 1.0
    logits = in_chunks(network, test[0].float(), states.device)
    hits = logits.argmax(1) == test[1].cpu()
    meaning = f"of the feature network on {len(hits)} held-out examples; chance is {100 / len(classes):.3g} %"
    return Classifier(network, classes, share_figure("classifier_accuracy", hits, meaning))


def _convolutions(shape: tuple[int, ...]) -> list[nn.Module]:
    """Return layers to `(B, 64, H, W)`; three convolutions of which two have stride 2, so sides shrink by four."""
    return [
        _convolution(shape[0], 16, stride=1 if max(shape[1:]) < 16 else 2),
        nn.ReLU(),
        _convolution(16, 32, stride=2),
        nn.ReLU(),
        _convolution(32, _FEATURES, stride=2 if max(shape[1:]) < 16 else 1),
        nn.ReLU(),
    ]


def _halved(side: int, times: int) -> int:
    """Return the length of a side after `times` convolutions of stride 2 with padding."""
    for _ in range(times):
        side = (side + 1) // 2
    return side


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


def _initialize(network: nn.Module, rng: torch.Generator) -> None:
    """Draw He weights and zero biases from a generator; torch's default initialization uses the global one."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=rng)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
