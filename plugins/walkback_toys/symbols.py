"""Symbols in a .npy file of whole numbers."""

from __future__ import annotations

from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from walkback.data import DataInfo, Dataset, Split
from walkback.data.symbols import MOST_SYMBOLS, SymbolData, read_symbols
from walkback.errors import ConfigurationError, DataError


@final
class SymbolFile(Dataset):
    """Whole numbers `(N, …)` from a .npy file, as one-hot states `(…, S)`.

    Args:
        path: The file, required.
        symbols: S; None takes the largest number and one.

    Raises:
        ConfigurationError: There is no path.
    """

    def __init__(
        self, *, path: str = "", symbols: Annotated[int, Field(ge=2, le=MOST_SYMBOLS)] | None = None
    ) -> None:
        if not path:
            raise ConfigurationError("data.path is empty: give the .npy file of the symbols.")
        self._path, self._symbols = path, symbols
        self._found: SymbolData | None = None

    @override
    def prepare(self) -> None:
        if self._found is None:
            self._found = read_symbols(self._path, self._symbols)

    @property
    @override
    def info(self) -> DataInfo:
        return self._require().info

    @override
    def examples(self, split: Split) -> Tensor:
        return self._require().examples(split)

    @override
    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self._require().states(rows, generator)

    def _require(self) -> SymbolData:
        if self._found is None:
            raise DataError("Got data 'symbols' that are not prepared; call prepare() first.")
        return self._found
