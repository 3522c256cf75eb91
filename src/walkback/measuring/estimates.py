"""Means with errors, from values that are independent of one another: of chains, of examples.

    x̄ = 1/n Σ x_i        error² = Σ (x_i - x̄)² / (n (n - 1))        95 %: x̄ ± t_{n-1} error

What is correlated (the steps of one chain) is first averaged into one value, so no autocorrelation has to be modelled:
the scatter between chains has it in it. The ratio of two means has the error of the linearized ratio (delta method).

Times on a machine that others use have long tails, so of them the median is given:

    m = median x_i        error = √(π/2) σ̂ / √n,  σ̂ = 1.4826 median |x_i - m|        95 %: order statistics of x_i
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy.stats import binom
from scipy.stats import t as student_t
from torch import Tensor

from walkback.data import DataInfo
from walkback.errors import WalkbackError
from walkback.report import Figure

FEWEST = 4
"""Independent values below which a standard error is not given."""

_NORMAL = 1.4826  # standard deviation of a normal law over its median absolute deviation


def require_enough(num: int, what: str, option: str) -> None:
    """Refuse a standard error from too few independent values.

    Args:
        num: How many there are.
        what: Of what, e.g. "chains".
        option: What to raise, e.g. "--set chains=…".

    Raises:
        WalkbackError: There are fewer than `FEWEST`.
    """
    if num < FEWEST:
        raise WalkbackError(
            f"Got {num} {what}, expected at least {FEWEST} for a standard error: raise {option}."
        )


def mean_figure(name: str, values: Tensor, unit: str, meaning: str = "", *, scale: float = 1.0) -> Figure:
    """The mean of independent values `(n,)`, times `scale`, with its error and Student's interval.

    Raises:
        WalkbackError: There are fewer than `FEWEST` values, or one is not finite.
    """
    rows = _checked(name, values) * scale
    mean = rows.mean().item()
    return _figure(name, mean, rows.std().item() / math.sqrt(len(rows)), len(rows), unit, meaning)


def nll_figures(name: str, nats: Tensor, info: DataInfo, meaning: str) -> list[Figure]:
    """The mean of negative log-likelihoods `(N,)` in nats; and in bits/dim, as `name_bits`, where the data have such.

    Raises:
        WalkbackError: As `mean_figure`.
    """
    figures = [mean_figure(name, nats, "nats", meaning)]
    zero = info.bits_per_dimension(0.0)
    if zero is not None:
        slope = 1 / (info.space.size * math.log(2))
        figures.append(mean_figure(f"{name}_bits", nats * slope + zero, "bits/dim", meaning))
    return figures


def ratio_figure(
    name: str, above: Tensor, below: Tensor, unit: str, meaning: str = "", *, scale: float = 1.0
) -> Figure:
    """mean(above) / mean(below) × scale for pairs `(n,)`, with the error of the linearized ratio.

    Raises:
        WalkbackError: There are fewer than `FEWEST` pairs, one is not finite, or the lower mean is 0.
    """
    top, bottom = _checked(name, above), _checked(name, below)
    mean = bottom.mean().item()
    if mean == 0:
        raise WalkbackError(
            f"Got a mean of 0 to divide by in {name}, expected another: the ratio is undefined."
        )
    ratio = top.mean().item() / mean
    error = ((top - ratio * bottom) / mean).std().item() / math.sqrt(len(top))
    return _figure(name, ratio * scale, error * abs(scale), len(top), unit, meaning)


def median_figure(
    name: str, values: Sequence[float], unit: str, meaning: str = "", *, scale: float = 1.0
) -> Figure:
    """The median of independent values, times `scale` > 0, with its error and the interval between two of the values.

    Fewer than `FEWEST` values have no error, and fewer than 6 no interval: even their ends would not hold 95 %.
    """
    rows = sorted(scale * value for value in values)
    middle = statistics.median(rows)
    error = None
    if len(rows) >= FEWEST:
        deviation = _NORMAL * statistics.median(abs(value - middle) for value in rows)
        error = math.sqrt(math.pi / 2 / len(rows)) * deviation
    rank = int(
        binom.ppf(0.025, len(rows), 0.5)
    )  # the largest with P(fewer values than that below the median) < 0.025
    interval = (rows[rank - 1], rows[-rank]) if rank else None
    return Figure(name, middle, unit, error, interval, meaning)


def _figure(name: str, mean: float, error: float, num: int, unit: str, meaning: str) -> Figure:
    half = float(student_t.ppf(0.975, num - 1)) * error
    return Figure(name, mean, unit, error, (mean - half, mean + half), meaning)


def _checked(name: str, values: Tensor) -> Tensor:
    require_enough(len(values), f"independent values of {name}", "their number")
    rows = values.detach().double().cpu()
    if not bool(rows.isfinite().all()):
        count = int((~rows.isfinite()).sum())
        raise WalkbackError(
            f"Got {count} of {len(rows)} values of {name} that are not finite, expected finite log-densities: "
            "the operator diverges, or its kernel has no density."
        )
    return rows
