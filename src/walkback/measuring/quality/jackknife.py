"""Standard errors of statistics of whole sets: the delete-a-group jackknife.

    error² = (G - 1) / G Σ_g (θ_g - θ̄)²        θ_g: the statistic without the g-th of G groups

Two sets that lose their g-th groups together give the error of a statistic of both. A bootstrap would draw rows twice,
and what rests on nearest neighbours or on covariances takes a double for structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from walkback.errors import WalkbackError

GROUPS = 10

FEWEST_ROWS = 4 * GROUPS
"""Rows below which there is no error."""


def jackknife(
    measure: Callable[[Tensor], Sequence[float]], num: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Values of statistics of `num` exchangeable rows, and their standard errors.

    Args:
        measure: The statistics of the rows of an index `(n,)`, ascending.
        num: How many rows there are, in no order.

    Raises:
        WalkbackError: There are fewer than four rows a group.
    """
    if num < FEWEST_ROWS:
        raise WalkbackError(
            f"Got {num} examples, expected at least {FEWEST_ROWS} for errors: raise their number."
        )
    rows = torch.arange(num)
    left = [tuple(measure(rows[rows % GROUPS != group])) for group in range(GROUPS)]
    columns = list(zip(*left, strict=True))
    return tuple(measure(rows)), tuple(_error(column) for column in columns)


def _error(values: Sequence[float]) -> float:
    mean = math.fsum(values) / GROUPS
    return math.sqrt((GROUPS - 1) / GROUPS * math.fsum((value - mean) ** 2 for value in values))
