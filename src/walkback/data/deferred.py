"""Datasets that `prepare` makes: a file that is read, or a law that is drawn from."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic, TypeVar, final

import torch
from torch import Tensor
from typing_extensions import override

from walkback.data.dataset import DataInfo, Dataset, Split
from walkback.errors import DataError

D = TypeVar("D", bound=Dataset)


class Deferred(Dataset, Generic[D]):
    """A dataset that is another one, in memory, once it is prepared.

    Args:
        name: Name for messages.
    """

    def __init__(self, name: str) -> None:
        self._called = name
        self._found: D | None = None

    @abstractmethod
    def read(self) -> D:
        """Make the dataset in memory; called once. Raises as `Dataset.prepare`."""

    @final
    @override
    def prepare(self) -> None:
        if self._found is None:
            self._found = self.read()

    @property
    @final
    def prepared(self) -> bool:
        """Whether the dataset in memory is there."""
        return self._found is not None

    @property
    @final
    def found(self) -> D:
        """The dataset in memory; raises DataError before `prepare`."""
        if self._found is None:
            raise DataError(f"Got data {self._called!r} that is not prepared; call prepare() first.")
        return self._found

    @property
    @final
    @override
    def info(self) -> DataInfo:
        return self.found.info

    @final
    @override
    def examples(self, split: Split) -> Tensor:
        return self.found.examples(split)

    @final
    @override
    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self.found.states(rows, generator)
