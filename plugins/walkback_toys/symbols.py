"""Symbols in a .npy file of whole numbers."""

from __future__ import annotations

from typing import Annotated, final

from pydantic import Field
from typing_extensions import override

from walkback.data.deferred import Deferred
from walkback.data.symbols import MOST_SYMBOLS, SymbolData, read_symbols
from walkback.errors import ConfigurationError


@final
class SymbolFile(Deferred[SymbolData]):
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
        super().__init__("symbols")
        self._path, self._symbols = path, symbols

    @override
    def read(self) -> SymbolData:
        return read_symbols(self._path, self._symbols)
