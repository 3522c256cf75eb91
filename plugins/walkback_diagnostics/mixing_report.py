"""What `mixing` says of the chains that it recorded."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.measuring.estimates import mean_figure
from walkback.report import Figure, Series
from walkback_diagnostics.correlation import (
    autocorrelation_time,
    effective_sample_size,
    implied_timescale,
    r_hat,
    with_error,
)

_MIXED = 1.01
"""R-hat above which chains are not taken for mixed (Vehtari et al. 2021)."""

_LONG = 50
"""Autocorrelation times that a chain should be long."""

_LAGS = 100
"""Lags at which the autocorrelation is drawn."""

_MOST_CLASSES = 20
"""Classes up to which the matrix of switches is drawn."""

Found = tuple[list[Figure], list[Series], list[str]]


def figures_of_statistics(values: Tensor, names: tuple[str, ...], every: int) -> Found:
    """Autocorrelation times, effective sample sizes and R-hat of statistics `(N, C, S)`, recorded `every` steps.

    Raises:
        WalkbackError: No statistic ever changes, or chains stand still at different places.
    """
    warnings = []
    moving = [i for i in range(len(names)) if bool((values[..., i] != values[0, 0, i]).any())]
    if not moving:
        raise WalkbackError("Got chains on which no statistic ever changes, expected chains that move.")
    if len(moving) < len(names):
        still = [name for i, name in enumerate(names) if i not in moving]
        warnings.append(f"Left out because they never change: {', '.join(still)}.")
    times = [with_error(autocorrelation_time, values[..., i]) for i in moving]
    hats = [r_hat(values[..., i]) for i in moving]
    if not all(map(math.isfinite, (*(time for time, _ in times), *hats))):
        raise WalkbackError("Got chains that stand still, each at its own place, expected chains that move.")
    slowest = max(range(len(moving)), key=lambda k: times[k][0])
    time, error = times[slowest][0] * every, times[slowest][1] * every
    size = effective_sample_size(values[..., moving[slowest]])
    which = names[moving[slowest]]
    figures = [
        Figure(
            "autocorrelation_time",
            time,
            "steps",
            error,
            meaning=f"steps for one independent sample, of the slowest statistic ({which}); error by jackknife over "
            "chains, as if that were the slowest in any case",
        ),
        Figure(
            "effective_sample_size",
            size,
            "samples",
            size * error / time,
            meaning=f"of all chains together, of the slowest statistic ({which})",
        ),
        Figure(
            "effective_sample_size_per_chain",
            size / values.shape[1],
            "samples",
            size * error / time / values.shape[1],
            meaning="the same, divided by the number of chains",
        ),
        Figure(
            "r_hat",
            max(hats),
            "1",
            meaning=f"largest of all statistics, without error; below {_MIXED} if mixed",
        ),
        *(
            Figure(
                f"autocorrelation_time_of_{names[i]}",
                t * every,
                "steps",
                e * every,
                meaning=_meaning(names[i]),
            )
            for i, (t, e) in zip(moving, times, strict=True)
        ),
    ]
    series = [_autocorrelation(values[..., i], names[i], every) for i in moving]
    return figures, series, warnings + _warnings(max(hats), time, len(values) * every, every)


def _meaning(name: str) -> str:
    """Of a statistic, by its name."""
    if name.startswith("axis"):
        return "of the projection on a principal axis of the data"
    return {
        "squared_norm": "of the squared distance to the mean of the data",
        "log_probability": "of log p(s'|s)",
    }[name]


def _warnings(hat: float, time: float, length: int, every: int) -> list[str]:
    warnings = []
    if hat > _MIXED:
        warnings.append(
            f"R-hat is {hat:.3f}, above {_MIXED}: chains have not mixed, each knows a part of the law only, and the "
            "autocorrelation time is a lower bound."
        )
    if length < _LONG * time:
        warnings.append(
            f"Chains are {length / time:.1f} autocorrelation times long, fewer than {_LONG}: the estimate is biased; "
            "raise --set steps=…."
        )
    if every > 1 and time < 2 * every:
        warnings.append(
            f"Only every {every} steps were recorded, too few for an autocorrelation time of {time:.1f} steps, which "
            "is an upper bound: raise --set frames=…."
        )
    return warnings


def _autocorrelation(values: Tensor, name: str, every: int) -> Series:
    """ρ_k around the mean of all chains, with its error over chains."""
    rows = (values - values.mean()).T
    variance = rows.square().mean()
    lags = torch.arange(0, max(1, len(values) // 2), max(1, len(values) // 2 // _LAGS)).tolist()
    products = torch.stack([(rows[:, : rows.shape[1] - k] * rows[:, k:]).mean(1) for k in lags]) / variance
    return Series(
        f"autocorrelation_of_{name}",
        tuple(float(k * every) for k in lags),
        tuple(products.mean(1).tolist()),
        "lag (steps)",
        "autocorrelation (1)",
        tuple((products.std(1) / math.sqrt(len(rows))).tolist()),
    )


def figures_of_timescales(values: Tensor, lag: int, every: int) -> list[Figure]:
    """Implied timescale and spectral gap of projections `(N, C, S)`.

    Raises:
        WalkbackError: The chain has no timescale at this lag.
    """

    def gap(chains: Tensor) -> float:
        return -math.expm1(-1 / (implied_timescale(chains, lag) * every))

    time, error = with_error(lambda chains: implied_timescale(chains, lag) * every, values)
    rate, of_rate = with_error(gap, values)
    return [
        Figure(
            "implied_timescale",
            time,
            "steps",
            error,
            meaning=f"slowest relaxation seen in the projections at a lag of {lag * every} steps (VAMP): a lower bound",
        ),
        Figure(
            "spectral_gap", rate, "1/step", of_rate, meaning="1 - exp(-1/implied_timescale): an upper bound"
        ),
    ]


def figures_of_classes(kinds: Tensor, num_classes: int, every: int) -> tuple[list[Figure], list[Series]]:
    """Switches between the classes `(N, C)` of the nearest training states, and their matrix."""
    before, after = kinds[:-1], kinds[1:]
    rate = (before != after).double().mean(0) / every
    met = torch.nn.functional.one_hot(kinds, num_classes).any(0).double().sum(1)
    note = "" if every == 1 else f", as far as records every {every} steps show them"
    figures = [
        mean_figure("switches", rate, "1/step", f"changes of class (nearest training state) a step{note}"),
        mean_figure("classes_visited", met, "classes", f"by a chain, of {num_classes}"),
    ]
    if num_classes > _MOST_CLASSES:
        return figures, []
    pairs = torch.bincount((before * num_classes + after).flatten(), minlength=num_classes**2)
    counts = pairs.reshape(num_classes, num_classes).double()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    x = tuple(map(float, range(num_classes)))
    label = f"share of next classes after {every} steps (1)" if every > 1 else "share of next classes (1)"
    return figures, [
        Series(f"from_class_{i}", x, tuple(row.tolist()), "class (number)", label, marks=True)
        for i, row in enumerate(shares)
        if counts[i].sum() > 0
    ]
