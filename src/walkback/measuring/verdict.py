"""Warnings for models whose likelihood is worse than that of simple baselines.

uniform     0 nats on [0, 1]^D (log2 bins bits/dim), D log 2 for bits      no training data at all
Gaussian    the better of independent coordinates and a covariance         moments of the training data
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from walkback.data import DataInfo, Dataset, Split
from walkback.errors import WalkbackError
from walkback.measuring.bound import NO_BOUND, BoundEstimate
from walkback.report import Figure
from walkback.support.seeding import generator

_MOST_NUMBERS = 2**23
"""Largest number of values in the training states that `simple_nats` uses; 64 MiB."""

_GAUSSIANS = ("diagonal_gaussian", "gaussian", "bernoulli", "symbols")
_WORDS = {
    "diagonal_gaussian": "a Gaussian with independent coordinates",
    "gaussian": "a Gaussian",
    "bernoulli": "independent coins",
    "symbols": "independent symbols",
}


def uniform_nats(info: DataInfo) -> float | None:
    """Return -log p of any state under the uniform law; None if states are unbounded."""
    if info.support == "binary":
        return info.space.size * math.log(2)
    if info.support == "one-hot":
        return info.space.size // info.shape[-1] * math.log(info.shape[-1])
    return None if info.bins is None else 0.0


def simple_nats(train: Tensor, test: Tensor, info: DataInfo, seed: int) -> dict[str, float]:
    """Return the mean -log p of held-out states `(M, *E)` under models of the moments of `train` `(N, *E)`, by name.

    Empty if no Gaussian fits the training states, e.g. because a coordinate is constant.
    """
    # Imports scikit-learn, which a training run needs only at its end.
    from walkback.measuring.baselines import moment_models

    try:
        return {
            name: float((nats + info.log_slopes(test.cpu())).mean()) + info.log_volume
            for name, nats, _ in moment_models(train, test, info, seed)
            if name in _GAUSSIANS
        }
    except WalkbackError:
        return {}


def _nats_of(figures: Sequence[Figure]) -> dict[str, float]:
    """Return the means of `simple_nats` from the baselines of an evaluation."""
    values = {figure.name: figure.value for figure in figures}
    return {name: values[f"baseline_{name}"] for name in _GAUSSIANS if f"baseline_{name}" in values}


def verdict(what: str, nats: float, info: DataInfo, others: Mapping[str, float]) -> tuple[str, ...]:
    """Return one sentence if a model is worse than the uniform law or than the best of `others`, else none.

    Args:
        what: Name of the measurement, e.g. "bound".
        nats: Its mean, nats per example.
        info: Description of the data.
        others: Result of `simple_nats` or `_nats_of`.
    """
    uniform = uniform_nats(info)
    if uniform is not None and nats > uniform:
        law = {"binary": "fair coins", "one-hot": "equally likely symbols"}.get(
            info.support, "uniform gray levels"
        )
        return (
            f"The {what} is {_told(nats, info)}, above the {_told(uniform, info)} of {law}: by this figure, the model "
            "as a density is worse than no model.",
        )
    name = min(others, key=others.__getitem__, default=None)
    if name is None or nats <= others[name] or _told(nats, info) == _told(others[name], info):
        return ()
    return (
        f"The {what} is {_told(nats, info)}, above the {_told(others[name], info)} of {_WORDS[name]} fitted to the "
        "training data: by this figure, the model is the worse density.",
    )


def outdone(figures: Sequence[Figure], info: DataInfo) -> tuple[str, ...]:
    """Return the `verdict` on an evaluation, based on its figure closest to the likelihood."""
    values = {figure.name: figure.value for figure in figures}
    what, name = ("importance-sampled NLL", "is_nll") if "is_nll" in values else ("bound on the NLL", "bound")
    return verdict(what, values[name], info, _nats_of(figures))


def remarks_on_bound(
    bound: BoundEstimate | None, dataset: Dataset, split: Split, limit: int, seed: int
) -> tuple[str, ...]:
    """Return the `verdict` on a bound, compared with simple models on the same first `limit` examples of a split.

    Of a model without a bound, say so.
    """
    if bound is None:
        return (NO_BOUND,)
    info, noise = dataset.info, generator("cpu", seed, "remarks")
    rows = dataset.examples("train")[: max(1, _MOST_NUMBERS // info.space.size)]
    train = dataset.states(rows, noise)
    test = dataset.states(dataset.examples(split)[:limit], noise)
    return verdict("bound on the NLL", bound.nats, info, simple_nats(train, test, info, seed))


def _told(nats: float, info: DataInfo) -> str:
    bits = info.bits_per_dimension(nats)
    return f"{nats:.4g} nats" if bits is None else f"{bits:.3f} bits/dim"
