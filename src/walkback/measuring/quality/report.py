"""All figures of sample quality, with errors, each next to its value for fresh data.

A figure compares equal numbers of samples and held-out states, because all of these statistics depend on the number.
The value for a perfect sampler, `…_reference`, is the same figure with training states in place of the samples.
Errors come from the delete-a-group jackknife over samples and held-out states (`jackknife`). The sliced Wasserstein
distance adds the error of its projections in quadrature, and the error of a share is at least that of as many
independent hits. Intervals are Student's with the number of groups. Distances between finite sets of the same law are
not 0: except for the kernel distance, their expectations exceed the distances of the laws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from scipy.stats import t as student_t
from torch import Tensor

from walkback.data import DataInfo
from walkback.errors import WalkbackError
from walkback.measuring.estimates import Side, share_figure
from walkback.measuring.jackknife import GROUPS, jackknife
from walkback.measuring.quality.coverage import Distances
from walkback.measuring.quality.features import Classifier, FeatureMap, in_chunks
from walkback.measuring.quality.frechet import classifier_score, frechet_distance, kernel_distance
from walkback.measuring.quality.mmd import mmd_squared
from walkback.measuring.quality.wasserstein import directions, entropic_wasserstein, sliced_wasserstein
from walkback.report import Figure
from walkback.support.seeding import generator

_BLUR = 0.05

_CONFIDENT = 0.9
"""Probability of a class above which a state counts as certain."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Sizes of the comparison.

    Attributes:
        limit: Largest number of examples to compare.
        transport_limit: The same for the entropic Wasserstein distance and MMD, whose cost is quadratic in it.
        projections: Number of projections of the sliced Wasserstein distance.
        neighbors: k of precision, recall, density and coverage.
    """

    limit: int = 1000
    transport_limit: int = 400
    projections: int = 256
    neighbors: int = 5


def quality_figures(
    samples: Tensor,
    real: Tensor,
    train: Tensor,
    info: DataInfo,
    *,
    seed: int,
    classifier: Classifier | None = None,
    features: FeatureMap | None = None,
    rules: Rules | None = None,
) -> tuple[Figure, ...]:
    """Compare samples with held-out states, and training states with held-out states as a reference.

    Args:
        samples: Independent states drawn from the model, one per chain, `(N, *E)`.
        real: Held-out states `(M, *E)`.
        train: Training states `(L, *E)`, which stand for the samples of a perfect model.
        info: Description of the data.
        seed: Seed of projections and of the order of states.
        classifier: Adds the classifier's score, and its features if `features` is None.
        features: Feature map for Fréchet distance, kernel distance and coverage; None measures coverage on states.
        rules: Numbers of examples, projections and neighbors.

    Raises:
        ConfigurationError: geomloss or torchmetrics is not installed.
        WalkbackError: A set has fewer than 40 states, shapes differ, or a value is not finite.
    """
    rules = rules or Rules()
    num = min(len(samples), len(real), len(train), rules.limit)
    sets = {"samples": samples, "real": real, "train": train}
    for name, states in sets.items():
        if tuple(states.shape[1:]) != info.shape or not bool(states.isfinite().all()):
            raise WalkbackError(
                f"Got {name} of shape {tuple(states.shape)}, expected finite (N, *{info.shape})."
            )
    chosen = {name: _some(states, num, seed, name) for name, states in sets.items()}
    if features is None and classifier is not None:
        features = classifier.features
    embedded = chosen if features is None else {n: in_chunks(features, s) for n, s in chosen.items()}
    figures = [] if classifier is None else [classifier.accuracy]
    for name, ending in (("samples", ""), ("train", "_reference")):
        judged = _Judged(
            chosen[name], chosen["real"], embedded[name], embedded["real"], features is not None, ending
        )
        figures += judged.figures(rules, seed)
        if classifier is not None:
            figures += _classified(classifier.log_probs(chosen[name]), ending, classifier)
    return tuple(figures)


@final
@dataclass(frozen=True, slots=True)
class _Judged:
    """Equally many states to judge and held-out states, and the features of both."""

    states: Tensor
    real: Tensor
    features: Tensor
    real_features: Tensor
    learned: bool
    ending: str

    def figures(self, rules: Rules, seed: int) -> list[Figure]:
        found = self._sliced(rules, seed) + self._transport(rules) + self._neighbors(rules)
        return found + self._moments() if self.learned else found

    def _sliced(self, rules: Rules, seed: int) -> list[Figure]:
        dim = self.states[0].numel()
        along = directions(dim, rules.projections, generator("cpu", seed, "quality-projections"))
        of_projections = sliced_wasserstein(self.states, self.real, along).error

        def measure(rows: Tensor) -> tuple[float]:
            return (sliced_wasserstein(self.states[rows], self.real[rows], along).value,)

        (value,), (error,) = jackknife(measure, len(self.states))
        meaning = f"SW_2 over {rules.projections} projections of {len(self.states)} states, in their units"
        return [
            self._figure("sliced_wasserstein", value, math.hypot(error, of_projections), meaning, "above")
        ]

    def _transport(self, rules: Rules) -> list[Figure]:
        num = min(rules.transport_limit, len(self.states))
        x, y = self.states[:num], self.real[:num]
        flat = y.double().flatten(1)
        # Blur and bandwidth are relative to the spread of the held-out states, so both are the same for samples and
        # reference; the smallest positive number stands for a spread of 0.
        spread = max(math.sqrt(flat.var(0, correction=0).sum().item()), torch.finfo(torch.float64).tiny)
        blur = _BLUR * spread

        def measure(rows: Tensor) -> tuple[float, float]:
            return entropic_wasserstein(x[rows], y[rows], blur), mmd_squared(x[rows], y[rows], spread)

        (far, mmd), (far_error, mmd_error) = jackknife(measure, num)
        return [
            self._figure(
                "entropic_wasserstein",
                far,
                far_error,
                f"near W_2 of {num} states, in their units; blur {blur:.3g}",
                "above",
            ),
            self._figure(
                "mmd_squared",
                mmd,
                mmd_error,
                f"Gaussian kernel of bandwidth {spread:.3g}, {num} states",
                "above",
            ),
        ]

    def _neighbors(self, rules: Rules) -> list[Figure]:
        distances = Distances.of(self.real_features, self.features)
        values, errors = jackknife(
            lambda rows: distances.among(rows).scores(rules.neighbors), len(self.states)
        )
        where = f"{rules.neighbors} neighbors among {'features' if self.learned else 'states'}"
        told = (
            ("precision", f"share of samples among the data, {where}"),
            ("recall", f"share of the data among samples, {where}"),
            ("density", f"how densely data surround the samples, about 1 for a perfect model, {where}"),
            ("coverage", f"share of the data with a sample nearby, {where}"),
        )
        num = len(self.states)
        return [
            self._figure(
                name, value, error if name == "density" else max(error, _error_of_share(value, num)), meaning
            )
            for (name, meaning), value, error in zip(told, values, errors, strict=True)
        ]

    def _moments(self) -> list[Figure]:
        def measure(rows: Tensor) -> tuple[float, float]:
            pair = self.features[rows], self.real_features[rows]
            return frechet_distance(*pair), kernel_distance(*pair)

        (frechet, kernel), errors = jackknife(measure, len(self.features))
        beware = (
            f"of {self.features.shape[1]} features of {len(self.features)} states; no FID or KID of Inception"
        )
        return [
            self._figure("frechet_distance", frechet, errors[0], f"Fréchet distance {beware}", "above"),
            self._figure("kernel_distance", kernel, errors[1], f"squared kernel distance {beware}"),
        ]

    def _figure(self, name: str, value: float, error: float, meaning: str, side: Side = None) -> Figure:
        kind = "; training states in place of samples" if self.ending else ""
        return Figure(name + self.ending, value, "1", error, _interval(value, error), meaning + kind, side)


def _interval(value: float, error: float) -> tuple[float, float]:
    """Return Student's 95 % interval; the error comes from few groups."""
    half = float(student_t.ppf(0.975, GROUPS - 1)) * error
    return value - half, value + half


def _error_of_share(share: float, num: int) -> float:
    """Return the error for independent hits, positive even if all agree; see `walkback.measuring.estimates`."""
    middle = (share * num + 0.5) / (num + 1)
    return math.sqrt(middle * (1 - middle) / num)


def _classified(log_probs: Tensor, ending: str, classifier: Classifier) -> list[Figure]:
    """Return what a classifier says of states, log p(y | x) `(N, K)`: share of certain ones, entropy, score."""
    kind = "; training states in place of samples" if ending else ""
    count = len(classifier.classes)
    certain = share_figure(
        f"classifier_confident{ending}",
        log_probs.exp().amax(1) >= _CONFIDENT,
        f"states whose class is at least {_CONFIDENT:.0%} certain{kind}",
    )

    def measure(rows: Tensor) -> tuple[float, float]:
        some = log_probs[rows]
        shares = some.argmax(1).bincount(minlength=count).double() / len(some)
        return float(torch.special.entr(shares).sum()), classifier_score(some)

    (entropy, score), (entropy_error, score_error) = jackknife(measure, len(log_probs))
    told = (
        f"of the most probable classes; log {count} = {math.log(count):.3g} if all are equally frequent{kind}"
    )
    meaning = f"exp E KL(p(y|x) ‖ p(y)), 1 to {count}, of a classifier of these data, not Inception{kind}"
    return [
        certain,
        Figure(
            f"class_entropy{ending}", entropy, "nats", entropy_error, _interval(entropy, entropy_error), told
        ),
        Figure(f"classifier_score{ending}", score, "1", score_error, _interval(score, score_error), meaning),
    ]


def _some(states: Tensor, num: int, seed: int, name: str) -> Tensor:
    """Return `num` of the states on the CPU, in random order: the groups of the jackknife must be exchangeable."""
    order = torch.randperm(len(states), generator=generator("cpu", seed, f"quality-{name}"))[:num]
    return states.detach()[order.to(states.device)].cpu()
