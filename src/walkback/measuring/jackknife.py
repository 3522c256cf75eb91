"""Standard errors of statistics of whole sets: the delete-a-group jackknife.

    error² = (G - 1) / G Σ_g (θ_g - θ̄)²        θ_g: the statistic without the g-th of G groups

Row i is in group i mod G.

Leaving out the g-th groups of two sets together gives the error of a statistic of both. A bootstrap is not suitable: it
draws rows twice, and statistics of nearest neighbors or covariances mistake duplicates for structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from walkback.errors import WalkbackError

GROUPS = 10

FEWEST_ROWS = 4 * GROUPS
"""Number of rows below which there is no error estimate."""


def jackknife(
    measure: Callable[[Tensor], Sequence[float]], num: int, groups: int | None = GROUPS
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return statistics of `num` exchangeable rows, and their standard errors.

    Args:
        measure: Computes the statistics of the rows with the given ascending indices `(n,)`.
        num: Number of rows; their order must not carry information.
        groups: G; None leaves out one row at a time.

    Raises:
        WalkbackError: There are fewer than four rows per group.
    """
    if groups is not None and num < 4 * groups:
        raise WalkbackError(f"{num} examples are too few for an error estimate: give at least {4 * groups}.")
    count = groups or num
    rows = torch.arange(num)
    left = [tuple(measure(rows[rows % count != group])) for group in range(count)]
    columns = list(zip(*left, strict=True))
    return tuple(measure(rows)), tuple(_error(column) for column in columns)


def _error(values: Sequence[float]) -> float:
    count = len(values)
    mean = math.fsum(values) / count
    return math.sqrt((count - 1) / count * math.fsum((value - mean) ** 2 for value in values))
