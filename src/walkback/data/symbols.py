"""Symbols as one-hot states: integers 0 … S - 1 at any number of positions.

k → s,   s_j = [j = k]        stored (N, …) uint8 → states (N, …, S) float
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from walkback.data.categories import Categories
from walkback.data.dataset import SPLITS, DataInfo, Dataset, Split
from walkback.data.held_out import FEWEST_ROWS, HELD_OUT, random_splits
from walkback.errors import DataError

MOST_SYMBOLS = 256
"""Largest S; examples are stored as uint8."""


@dataclass(frozen=True, slots=True)
class SymbolRows:
    """Splits of symbols, with their description.

    Attributes:
        name: Name for protocols.
        symbols: Number of symbols, S.
        rows: Symbols `(N, …)`, uint8, by split.
        steps: Preprocessing steps, see `DataInfo.preprocessing`.
        categories: Names of the symbols of a table; None if they have none.
    """

    name: str
    symbols: int
    rows: Mapping[Split, Tensor]
    steps: tuple[str, ...] = ()
    categories: Categories | None = None

    @classmethod
    def split(
        cls,
        name: str,
        numbers: Tensor,
        symbols: int,
        steps: tuple[str, ...] = (),
        categories: Categories | None = None,
    ) -> SymbolRows:
        """Hold out a random tenth of symbols `(N, …)` for validation, another for testing, whatever the run's seed.

        Raises:
            DataError: There are fewer than 12.
        """
        _require_rows(numbers)
        rows = {split: numbers[part].to(torch.uint8) for split, part in random_splits(len(numbers)).items()}
        return cls(name, symbols, rows, (*steps, HELD_OUT), categories)

    @property
    def info(self) -> DataInfo:
        """Description of these data."""
        named = () if self.categories is None else (repr(self.categories),)
        content = hashlib.sha256("\n".join((*self.steps, str(self.symbols), *named)).encode())
        for split in SPLITS:
            content.update(self.rows[split].numpy().tobytes())
        return DataInfo(
            name=self.name,
            shape=(*self.rows["train"].shape[1:], self.symbols),
            support="one-hot",
            preprocessing=self.steps,
            splits={split: len(self.rows[split]) for split in SPLITS},
            fingerprint=content.hexdigest()[:16],
            categories=self.categories,
        )

    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return one-hot states `(B, …, S)`, float, of numbers `(B, …)`, on the generator's device."""
        # Not `one_hot`, which waits for the device to check its argument.
        numbers = rows.to(generator.device).long()[..., None]
        return (numbers == torch.arange(self.symbols, device=numbers.device)).float()


class SymbolDataset(Dataset):
    """Symbols in memory.

    Args:
        rows: Their splits.
    """

    def __init__(self, rows: SymbolRows) -> None:
        self._rows = rows
        self._info = rows.info  # once: its fingerprint is a hash of all rows

    @final
    @override
    def prepare(self) -> None:
        """Do nothing: the data are in memory."""

    @property
    @final
    @override
    def info(self) -> DataInfo:
        return self._info

    @final
    @override
    def examples(self, split: Split) -> Tensor:
        return self._rows.rows[split]

    @final
    @override
    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self._rows.states(rows, generator)


@final
class SymbolData(SymbolDataset):
    """Symbols in memory: a random tenth is held out for validation, another for testing.

    Args:
        numbers: Integers `(N, …)` from 0 to S - 1 with N at least 12, as an array or a tensor.
        symbols: Number of symbols, S; None takes the largest integer plus one.
        name: Name for protocols.

    Raises:
        DataError: The numbers are not integers, or out of range, or there are too few.
    """

    def __init__(
        self, numbers: Tensor | npt.NDArray[Any], symbols: int | None = None, name: str = "symbols"
    ) -> None:
        found = torch.as_tensor(numbers).cpu()
        if found.is_floating_point() or found.is_complex() or found.dtype is torch.bool:
            raise DataError(f"Got {found.dtype} as symbols, expected whole numbers from 0 up.")
        _require_rows(found)
        low, high = int(found.min()), int(found.max())
        symbols = max(2, high + 1) if symbols is None else symbols
        if low < 0 or high >= symbols or symbols > MOST_SYMBOLS:
            raise DataError(
                f"Got symbols from {low} to {high}, expected 0 to {min(symbols, MOST_SYMBOLS) - 1}: number them so."
            )
        super().__init__(SymbolRows.split(name, found, symbols))


def _require_rows(numbers: Tensor) -> None:
    if numbers.dim() < 2 or len(numbers) < FEWEST_ROWS or not numbers.numel():
        raise DataError(
            f"Got symbols of shape {tuple(numbers.shape)}, expected (N, …) with N >= {FEWEST_ROWS}: one row an example."
        )


def read_symbols(path: str, symbols: int | None) -> SymbolData:
    """Read symbols from a .npy file of integers, without unpickling anything.

    Raises:
        DataError: The file does not exist, or contains something else.
    """
    try:
        numbers = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path!r}: check the path.") from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"The file {path!r} cannot be read, expected a .npy file of whole numbers."
        ) from error
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in "iu":
        raise DataError(f"The file {path!r} holds other than whole numbers, expected integers (N, …).")
    return SymbolData(numbers.astype(np.int64), symbols, path.replace("\\", "/").rpartition("/")[2])
