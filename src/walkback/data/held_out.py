"""Splits of data that come without any: a random tenth for validation, another for test."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from walkback.data.dataset import SPLITS, Split
from walkback.report import FEWEST
from walkback.support.seeding import generator

FEWEST_ROWS = 3 * FEWEST
"""Smallest number of rows: `FEWEST` in each split, for standard errors."""

HELD_OUT = "held out: a random tenth for validation, another for test"
"""The preprocessing step, see `DataInfo.preprocessing`."""


def random_splits(count: int) -> Mapping[Split, Tensor]:
    """Return the rows of each split of `count` rows, in random order that does not depend on the run's seed."""
    order = torch.randperm(count, generator=generator("cpu", 0, "tensor-splits"))
    held_out = max(FEWEST, count // 10)
    parts = torch.split(order, [count - 2 * held_out, held_out, held_out])
    return dict(zip(SPLITS, parts, strict=True))
