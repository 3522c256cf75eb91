"""Figures, series and warnings of `mixing` for the recorded chains."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from scipy.stats import t as student_t
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.measuring.estimates import Side, mean_figure
from walkback.report import Figure, Series
from walkback_diagnostics.correlation import (
    autocorrelation_time,
    implied_timescale,
    least_time,
    p_of_mixed,
    r_hat,
    time_with_error,
    with_error,
)

_MIXED = 1.01
"""Largest R-hat at which chains count as mixed (Vehtari et al. 2021)."""

_UNLIKELY = 1e-3
"""p-value below which chains with a larger R-hat count as not mixed: chains shorter than 100 τ exceed it by chance."""

_LONG = 50
"""Recommended length of a chain, in autocorrelation times."""

_SHORT = 10
"""Length below which a chain cannot determine its autocorrelation time, in autocorrelation times."""

_THIN = 2
"""Autocorrelation time, in recorded steps, below which the recording interval is too coarse to resolve it."""

_CAPPED = 1.05
"""Estimates within this factor of the smallest autocorrelation time of arviz-stats may be that minimum, not an
estimate."""

_LAGS = 100
"""Number of lags in the plot of the autocorrelation."""

_MOST_CLASSES = 20
"""Largest number of classes for which the matrix of switches is plotted."""

Found = tuple[list[Figure], list[Series], list[str]]


def figures_of_statistics(values: Tensor, names: tuple[str, ...], every: int) -> Found:
    """Returns autocorrelation times, effective sample sizes and R-hat of statistics `(N, C, S)`, recorded every `every`
    steps.

    Raises:
        WalkbackError: No statistic ever changes, or chains are stuck at different places.
    """
    warnings = []
    moving = [i for i in range(len(names)) if bool((values[..., i] != values[0, 0, i]).any())]
    if not moving:
        raise WalkbackError("Got chains on which no statistic ever changes, expected chains that move.")
    if len(moving) < len(names):
        still = [name for i, name in enumerate(names) if i not in moving]
        warnings.append(f"Left out because they never change: {', '.join(still)}.")
    rows = [values[..., i] for i in moving]
    hats = [r_hat(row) for row in rows]
    lowest = [autocorrelation_time(row) for row in rows]
    if not all(map(math.isfinite, (*lowest, *hats))):
        raise WalkbackError("Got chains that stand still, each at its own place, expected chains that move.")
    p = min(1.0, len(rows) * min(map(p_of_mixed, rows)))
    mixed = max(hats) <= _MIXED or p >= _UNLIKELY
    times = [_time(row, names[i], every, mixed) for i, row in zip(moving, rows, strict=True)]
    slowest, estimate = max(times, key=lambda one: one[1])
    which = slowest.name.removeprefix("autocorrelation_time_of_")
    length = len(values) * every
    figures = [
        replace(
            slowest,
            name="autocorrelation_time",
            meaning=f"steps for one independent sample, of the slowest statistic ({which}), as if that were the "
            f"slowest in any case{_note(slowest, mixed)}",
        ),
        *_sizes(slowest, values.shape[1], length, which),
        Figure(
            "r_hat",
            max(hats),
            "1",
            meaning=f"largest of all statistics; mixed chains of this length and autocorrelation time have about "
            f"{_usual_hat(estimate, length):.3f}; to be read together with mixed_p",
        ),
        Figure(
            "mixed_p",
            p,
            "1",
            meaning="p-value of chains that all have the same law and do not drift, corrected for the number of "
            f"statistics; not mixed below {_UNLIKELY}, where R-hat is above {_MIXED}",
        ),
        *(figure for figure, _ in times),
    ]
    series = [_autocorrelation(row, names[i], every) for i, row in zip(moving, rows, strict=True)]
    return figures, series, warnings + _warnings((max(hats), p), slowest, estimate, length, every)


def _time(series: Tensor, name: str, every: int, mixed: bool) -> tuple[Figure, float]:
    """Returns the autocorrelation time of `(N, C)`, with an error or as a bound, and its estimate."""
    # Chains that still relax share a trend, which is not a fluctuation and would make the bound too high.
    time, error = time_with_error(series if mixed else series - series.mean(1, keepdim=True))
    quantile = float(student_t.ppf(0.975, series.shape[1] - 1))
    figure = Figure(f"autocorrelation_time_of_{name}", time * every, "steps", meaning=_meaning(name))
    estimate = figure.value
    if not mixed or len(series) < _SHORT * time:
        # The bound is the lower end of an interval of log τ: estimates from short chains err upwards as often as
        # downwards.
        low = estimate * math.exp(-quantile * error / time)
        return replace(figure, value=low, side="below"), estimate
    if (every > 1 and time < _THIN) or time < _CAPPED * least_time(series.numel()):
        return replace(figure, side="above"), estimate
    interval = max(0.0, time - quantile * error) * every, (time + quantile * error) * every
    return replace(figure, error=error * every, interval=interval), estimate


def _note(time: Figure, mixed: bool) -> str:
    """Explains why the time is a bound."""
    if time.side is None:
        return ""
    if time.side == "above":
        return "; an upper bound: it is too short to be resolved"
    return (
        "; at least this: chains have not mixed"
        if not mixed
        else "; at least this: chains are too short to tell"
    )


def _sizes(time: Figure, chains: int, length: int, which: str) -> list[Figure]:
    """Returns effective sample sizes: steps over autocorrelation time, so bounded on the other side."""
    size = chains * length / time.value
    sides: dict[Side, Side] = {"above": "below", "below": "above", None: None}
    relative = None if time.error is None else time.error / time.value
    low, high = time.interval or (0.0, 0.0)

    def figure(name: str, parts: int, meaning: str) -> Figure:
        ends = (chains * length / parts / high, chains * length / parts / low) if low else None
        error = None if relative is None else size / parts * relative
        return Figure(name, size / parts, "samples", error, ends, meaning, sides[time.side])

    return [
        figure("effective_sample_size", 1, f"of all chains together, of the slowest statistic ({which})"),
        figure("effective_sample_size_per_chain", chains, "the same, divided by the number of chains"),
    ]


def _usual_hat(time: float, length: int) -> float:
    """Returns the expected R-hat of mixed half chains: means of N/2 steps vary by 2 τ/N, of which R-hat expects 2/N."""
    return math.sqrt(1 + 2 * max(0.0, time - 1) / length)


def _meaning(name: str) -> str:
    """Describes a statistic by its name."""
    if name.startswith("axis"):
        return "of the projection on a principal axis of the data"
    return {
        "squared_norm": "of the squared distance to the mean of the data",
        "log_probability": "of log p(s'|s)",
    }[name]


def _warnings(
    verdict: tuple[float, float], slowest: Figure, time: float, length: int, every: int
) -> list[str]:
    warnings, (hat, p) = [], verdict
    if hat > _MIXED and p < _UNLIKELY:
        warnings.append(
            f"R-hat is {hat:.3f}, above {_MIXED}, and not by chance (p = {p:.1g}): chains have not mixed, each covers "
            "only a part of the law, and the autocorrelation time is a lower bound."
        )
    if length < _LONG * time:
        warnings.append(
            f"Chains are {length / time:.1f} autocorrelation times long, fewer than {_LONG}, with an R-hat of "
            f"{hat:.3f}: the estimates of both are unreliable; raise --set steps=…."
        )
    if every > 1 and slowest.side == "above":
        warnings.append(
            f"Only every {every} steps were recorded, too few for an autocorrelation time of {time:.1f} steps, which "
            "is an upper bound: raise --set frames=…."
        )
    return warnings


def _autocorrelation(values: Tensor, name: str, every: int) -> Series:
    """Returns ρ_k around the mean of all chains, with its error over chains."""
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
    """Returns the implied timescale and spectral gap of projections `(N, C, S)`.

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
            side="below",
        ),
        Figure(
            "spectral_gap",
            rate,
            "1/step",
            of_rate,
            meaning="1 - exp(-1/implied_timescale): an upper bound",
            side="above",
        ),
    ]


def _switches(rate: Tensor, length: int, meaning: str) -> Figure:
    """Returns the mean rate of chains `(C,)` of `length` steps; if 0, up to the rate missed with probability 2.5 %."""
    figure = mean_figure("switches", rate, "1/step", meaning)
    if figure.value:
        return figure
    return replace(figure, error=None, interval=(0.0, -math.log(0.025) / (len(rate) * length)))


def figures_of_classes(kinds: Tensor, num_classes: int, every: int) -> tuple[list[Figure], list[Series]]:
    """Returns the rate of switches between the classes `(N, C)` of the nearest training states, and their matrix."""
    before, after = kinds[:-1], kinds[1:]
    rate = (before != after).double().mean(0) / every
    met = torch.nn.functional.one_hot(kinds, num_classes).any(0).double().sum(1)
    note = "" if every == 1 else f", as far as records every {every} steps show them"
    figures = [
        _switches(rate, len(before) * every, f"changes of class (nearest training state) a step{note}"),
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
