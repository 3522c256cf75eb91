"""Data sets in memory."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from walkback.data import DataInfo, Dataset, Split
from walkback.state import Support


@final
class InMemory(Dataset):
    """The same examples `(N, *E)` in every split, used as they are."""

    def __init__(self, rows: Tensor, support: Support = "real") -> None:
        self._rows = rows
        self._support: Support = support

    def prepare(self) -> None:
        """Nothing to do."""

    @property
    def info(self) -> DataInfo:
        return DataInfo("in-memory", tuple(self._rows.shape[1:]), self._support)

    def examples(self, split: Split) -> Tensor:
        return self._rows

    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return rows
