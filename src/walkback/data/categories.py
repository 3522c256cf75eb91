"""Names of the symbols in one-hot states of a table: a column in each place, its categories along the last dimension.

    (L, S)     L columns, S the largest number of categories of a column

A column with fewer than S categories has symbols without a category. Data never contain them; samples may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Categories:
    """Columns, and the categories of each.

    Attributes:
        columns: Names of the L columns.
        names: Names of the categories of each column, in the order of their symbols.
    """

    columns: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]

    @property
    def symbols(self) -> int:
        """S, at least 2."""
        return max(2, *map(len, self.names))

    def nameless(self, states: Tensor) -> int:
        """Count the symbols without a category in states `(N, L, S)`."""
        symbols = states.argmax(-1)
        return int((symbols >= symbols.new_tensor([len(names) for names in self.names])).sum())

    def columns_of(self, states: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.object_]]:
        """Return the categories of states `(N, L, S)` by column, each `(N,)`; None for symbols without a category.

        The category of entries that are not one-hot, such as probabilities, is that of the largest.
        """
        found = {}
        for name, names, symbols in zip(self.columns, self.names, states.argmax(-1).T, strict=True):
            known = np.array([*names, *[None] * (self.symbols - len(names))], dtype=object)
            found[name] = known[symbols]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types."""
        return {"columns": list(self.columns), "names": [list(names) for names in self.names]}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Categories:
        """Invert `to_dict`; raises KeyError or TypeError if `record` is not such a dictionary."""
        return cls(_texts(record["columns"]), tuple(map(_texts, record["names"])))

    def suits(self, shape: tuple[int, ...]) -> bool:
        """Return whether states of this event shape can have these names, which are different and not empty."""
        return (
            len(self.columns) == len(self.names) > 0
            and shape == (len(self.columns), self.symbols)
            and all(names and len(set(names)) == len(names) for names in (self.columns, *self.names))
        )


def _texts(items: Sequence[object]) -> tuple[str, ...]:
    if not isinstance(items, list):
        raise TypeError(f"got {type(items).__name__}, expected a list")
    return tuple(map(str, items))
