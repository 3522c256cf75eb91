"""Means with standard errors from independent values, e.g. one per chain or per example.

    x̄ = 1/n Σ x_i        error² = Σ (x_i - x̄)² / (n (n - 1))        95 %: x̄ ± t_{n-1} error

Correlated values (the steps of one chain) are first averaged into one value. No autocorrelation has to be modeled,
because the variance between chains includes it. The ratio of two means has the error of the linearized ratio (delta
method) and Fieller's interval, which is refused if the denominator is not clearly different from 0.

A share of n values has an error even if all of them agree and their variance is 0:

    p = k / n        error² = p′ (1 - p′) / n,  p′ = (k + ½) / (n + 1)        95 %: Clopper and Pearson

A quantity with two bounds, a ≤ x ≤ b, is estimated by the midpoint, with an error that covers the bias:

    x̂ = (a + b) / 2        error² = var(x̂) + (b - a)² / 4        95 %: from the lower end of a's to the upper end of b's

Times on a shared machine have long tails, so they are summarized by the median:

    m = median x_i        error = √(π/2) σ̂ / √n,  σ̂ = 1.4826 median |x_i - m|        95 %: order statistics of x_i
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, final

from scipy.stats import beta, binom
from scipy.stats import t as student_t
from torch import Tensor

from walkback.data import SPLITS, DataInfo, Dataset, Split
from walkback.errors import ConfigurationError, WalkbackError
from walkback.report import FEWEST as FEWEST
from walkback.report import Figure

Side: TypeAlias = Literal["above", "below"] | None
"""See `walkback.report.Figure`."""

_NORMAL = 1.4826  # standard deviation of a normal law over its median absolute deviation


@final
class NotFiniteValuesError(WalkbackError):
    """Values to average are not finite."""


def require_enough(num: int, what: str, option: str) -> None:
    """Reject a standard error from too few independent values, before they are computed.

    Args:
        num: Number of values there would be.
        what: What they are, e.g. "chains".
        option: Option to raise, e.g. "--set chains=…".

    Raises:
        ConfigurationError: There are fewer than `FEWEST`.
    """
    if num < FEWEST:
        raise ConfigurationError(
            f"Got {num} {what}, expected at least {FEWEST} for a standard error: raise {option}."
        )


def require_error_of_mean(
    dataset: Dataset, split: Split, limit: int, option: str, choice: str | None
) -> None:
    """Reject the error of a mean over too few examples, before anything is computed.

    Args:
        dataset: A prepared dataset.
        split: The split whose first examples are taken.
        limit: Largest number of examples.
        option: Option that sets the limit, e.g. "--limit".
        choice: Option that chooses the split, e.g. "--split"; None if there is none.

    Raises:
        ConfigurationError: There are fewer than `FEWEST`; the message says how to get more.
    """
    if limit < FEWEST:
        raise ConfigurationError(
            f"Got {option} = {limit}, expected at least {FEWEST} examples for a standard error: raise {option}."
        )
    num = len(dataset.examples(split))
    if num >= FEWEST:
        return
    others = [name for name in SPLITS if name != split and len(dataset.examples(name)) >= FEWEST]
    ways = [f"choose another split ({choice} {' or '.join(others)})"] if choice and others else []
    raise ConfigurationError(
        f"Got {num} example{'s' * (num != 1)} in the {split} split of {dataset.info.name}, expected at least {FEWEST} "
        f"for a standard error: {' or '.join([*ways, f'give more data, or a {split} split of its own'])}."
    )


def mean_figure(
    name: str, values: Tensor, unit: str, meaning: str = "", *, scale: float = 1.0, side: Side = None
) -> Figure:
    """Return the mean of independent values `(n,)`, times `scale` > 0, with its error and Student's interval.

    Raises:
        WalkbackError: There are fewer than `FEWEST` values, or one is not finite.
    """
    rows = _checked(name, values) * scale
    mean = rows.mean().item()
    figure = _figure(name, mean, rows.std().item() / math.sqrt(len(rows)), len(rows), unit, meaning)
    return replace(figure, side=side)


def nll_figures(name: str, nats: Tensor, info: DataInfo, meaning: str, *, side: Side = None) -> list[Figure]:
    """Return the mean of negative log-likelihoods `(N,)` in nats, and as `name_bits` in bits/dim for quantized data.

    Args:
        name: Name of the figure.
        nats: -log p of states. The figure is of their values in the units of the data: `info.log_volume` is added.
        info: Description of the data.
        meaning: What the figure is.
        side: See `walkback.report.Figure`.

    Raises:
        WalkbackError: As `mean_figure`.
    """
    figures = [mean_figure(name, nats.double() + info.log_volume, "nats", meaning, side=side)]
    zero = info.bits_per_dimension(0.0)
    if zero is not None:
        slope = 1 / (info.space.size * math.log(2))
        figures.append(mean_figure(f"{name}_bits", nats * slope + zero, "bits/dim", meaning, side=side))
    return figures


def share_figure(name: str, hits: Tensor, meaning: str = "") -> Figure:
    """Return the share of independent hits `(n,)`, bool, in %; the error is positive even if all of them agree.

    Raises:
        WalkbackError: There are fewer than `FEWEST`.
    """
    num, count = len(hits), int(hits.sum())
    _refuse_few(num, name)
    # Half a hit and half a miss more, so that unanimous hits do not look exactly known.
    middle = (count + 0.5) / (num + 1)
    low = float(beta.ppf(0.025, count, num - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, num - count)) if count < num else 1.0
    error = math.sqrt(middle * (1 - middle) / num)
    return Figure(name, 100 * count / num, "%", 100 * error, (100 * low, 100 * high), meaning)


def bracket_figure(name: str, low: Tensor, high: Tensor, unit: str, meaning: str = "") -> Figure:
    """Estimate a mean from pairs `(n,)` whose expectations are a lower and an upper bound on it.

    The bias of the midpoint is at most half the width. The error includes it, so it bounds the root mean squared error.

    Raises:
        WalkbackError: There are fewer than `FEWEST` pairs, or one is not finite.
    """
    below, above = (mean_figure(name, values, unit) for values in (low, high))
    middle = mean_figure(name, (low.double() + high.double()) / 2, unit, meaning)
    ends = [*(below.interval or ()), *(above.interval or ())]
    error = math.hypot(middle.error or 0.0, (above.value - below.value) / 2)
    return replace(middle, error=error, interval=(min(ends), max(ends)))


def ratio_figure(
    name: str, above: Tensor, below: Tensor, unit: str, meaning: str = "", *, scale: float = 1.0
) -> Figure:
    """Return mean(above) / mean(below) × scale > 0 for pairs `(n,)`, with the error of the linearized ratio.

    The interval is Fieller's: all ratios r for which mean(above) - r mean(below) does not differ significantly from 0.

    Raises:
        WalkbackError: There are fewer than `FEWEST` pairs, one is not finite, or the denominator does not differ
            significantly from 0, so the ratio is undetermined.
    """
    top, bottom = _checked(name, above), _checked(name, below)
    num, mean = len(top), bottom.mean().item()
    over, under = (
        top / math.sqrt(num),
        bottom / math.sqrt(num),
    )  # the variances of these are those of the means
    squared = float(student_t.ppf(0.975, num - 1)) ** 2
    room = mean**2 - squared * under.var().item()
    if room <= 0:
        raise WalkbackError(
            f"{name} is undefined: its denominator, {mean:.4g} ± {under.std().item():.2g}, does not differ "
            "significantly from 0."
        )
    ratio = top.mean().item() / mean
    error = ((over - ratio * under) / mean).std().item()
    # The ends are the roots of room r² - 2 cross r + rest. The covariance enters because both means come from the
    # same rows; `room` > 0 makes the set of ratios an interval and not the outside of one.
    covariance = float(((over - over.mean()) * (under - under.mean())).sum()) / (num - 1)
    cross = top.mean().item() * mean - squared * covariance
    rest = top.mean().item() ** 2 - squared * over.var().item()
    half = math.sqrt(max(0.0, cross**2 - room * rest))
    interval = scale * (cross - half) / room, scale * (cross + half) / room
    return Figure(name, ratio * scale, unit, error * scale, interval, meaning)


def median_figure(
    name: str, values: Sequence[float], unit: str, meaning: str = "", *, scale: float = 1.0
) -> Figure:
    """Return the median of independent values, times `scale` > 0, with its error and an interval of order statistics.

    There is no error with fewer than `FEWEST` values, and no interval with fewer than 6: even the one from the smallest
    to the largest value would contain the median with less than 95 % probability.
    """
    rows = sorted(scale * value for value in values)
    middle = statistics.median(rows)
    error = None
    if len(rows) >= FEWEST:
        deviation = _NORMAL * statistics.median(abs(value - middle) for value in rows)
        error = math.sqrt(math.pi / 2 / len(rows)) * deviation
    # The number of values below the median is binomial: the largest rank with P(fewer than `rank` below) < 0.025.
    rank = int(binom.ppf(0.025, len(rows), 0.5))
    interval = (rows[rank - 1], rows[-rank]) if rank else None
    return Figure(name, middle, unit, error, interval, meaning)


def _figure(name: str, mean: float, error: float, num: int, unit: str, meaning: str) -> Figure:
    half = float(student_t.ppf(0.975, num - 1)) * error
    return Figure(name, mean, unit, error, (mean - half, mean + half), meaning)


def _refuse_few(num: int, name: str) -> None:
    if num < FEWEST:
        raise WalkbackError(
            f"{num} independent values of {name} are too few for a standard error: at least {FEWEST} are needed."
        )


def _checked(name: str, values: Tensor) -> Tensor:
    _refuse_few(len(values), name)
    rows = values.detach().double().cpu()
    if not bool(rows.isfinite().all()):
        count = int((~rows.isfinite()).sum())
        raise NotFiniteValuesError(
            f"{count} of {len(rows)} values of {name} are not finite: the operator diverges, or its kernel has no "
            "density."
        )
    return rows
