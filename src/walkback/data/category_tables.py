"""Tables of categories as symbols: each row one-hot `(L, S)`, see `walkback.data.categories`.

text, booleans, pandas categories    categories
whole numbers                        categories where their columns are chosen, or are all there are
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from typing_extensions import override

from walkback.data.categories import Categories
from walkback.data.dataset import DataInfo, Dataset, Standardized
from walkback.data.symbols import MOST_SYMBOLS, SymbolDataset, SymbolRows
from walkback.data.tables import columns_of_frame, position, quoted, require_present
from walkback.errors import DataError

_CATEGORICAL = ("string", "boolean", "categorical", "empty")  # the last: nothing but missing values
_WHOLE = "integer"


def is_categorical(frame: Any, columns: Sequence[str] | None = None) -> bool:
    """Return whether all columns of a DataFrame, or all of `columns` that exist, are text, booleans or categories."""
    kinds = [_kind(frame[name]) for name in frame.columns if columns is None or str(name) in columns]
    return len(frame) > 0 < len(kinds) and {*kinds} <= {*_CATEGORICAL}


@final
class CategoryData(SymbolDataset, Standardized):
    """Categories in memory: a random tenth is held out for validation, another for testing.

    Args:
        data: A DataFrame with at least 12 rows, or an object with `to_pandas()`.
        name: Name for protocols.
        columns: Columns of categories, in order; None takes all.
        like: Categories to look up values in, such as those of a model; None takes those of the data.

    Raises:
        DataError: A column has missing values, other values than categories, or too few or too many of them; or there
            are too few rows. The message names the column.
    """

    def __init__(
        self,
        data: Any,
        name: str = "categories",
        columns: Sequence[str] | None = None,
        like: Categories | None = None,
    ) -> None:
        frame = data.to_pandas() if hasattr(data, "to_pandas") else data
        frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
        columns = columns if like is None else like.columns
        chosen, note = columns_of_frame(frame, name, columns, None)
        if columns is None:
            _require_one_kind(frame, chosen, name)
        known = [None] * len(chosen) if like is None else like.names
        found = [_symbols(frame[column], name, names) for column, names in zip(chosen, known, strict=True)]
        categories = Categories(tuple(chosen), tuple(names for _, names in found))
        numbers = torch.from_numpy(np.stack([symbols for symbols, _ in found], axis=1))
        self._frame, self._name = frame, name
        steps = (note,) if note else ()
        super().__init__(SymbolRows.split(name, numbers, categories.symbols, steps, categories))

    @override
    def standardized_as(self, trained_on: DataInfo) -> Dataset:
        wanted = trained_on.categories
        if wanted is None or wanted == self.info.categories:
            return self
        return CategoryData(self._frame, self._name, like=wanted)


def _kind(series: Any) -> str:
    """Return what a column contains, in the words of `pandas.api.types.infer_dtype`."""
    import pandas as pd

    return str(pd.api.types.infer_dtype(series, skipna=True))


def _require_one_kind(frame: Any, columns: Sequence[str], place: str) -> None:
    """Refuse columns of whole numbers among others: whether they are categories is the user's choice."""
    whole = [column for column in columns if _kind(frame[column]) == _WHOLE]
    if whole and len(whole) < len(columns):
        raise DataError(
            f"Column {quoted(whole[0])} of {place} holds whole numbers, and other columns do not: choose the columns "
            "of categories with data.columns, and with it those whose numbers are categories."
        )


def _symbols(series: Any, place: str, known: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the symbols of a column, `(N,)`, and the names of its categories."""
    import pandas as pd

    column = quoted(series.name)
    require_present(series, str(series.name), place)
    kind = _kind(series)
    if kind not in (*_CATEGORICAL, _WHOLE):
        raise DataError(
            f"Column {column} of {place} holds {kind} values, expected text, booleans or whole numbers: choose columns "
            "of one kind with data.columns."
        )
    declared = pd.Categorical(series)  # in the order of its categories, or sorted
    names = tuple(map(str, declared.categories))
    if len(set(names)) != len(names):
        raise DataError(f"Two categories in column {column} of {place} have the same name: rename one.")
    if known is None and not 2 <= len(names) <= MOST_SYMBOLS:
        raise DataError(
            f"Column {column} of {place} has {len(names):,} different values, expected 2 to {MOST_SYMBOLS} categories: "
            "choose other columns with data.columns."
        )
    wanted = names if known is None else known
    seen = [names[code] for code in np.unique(declared.codes)]
    strange = [name for name in seen if name not in wanted]
    if strange:
        raise DataError(
            f"Column {column} of {place} has the category {quoted(strange[0])}, which the training data do not have: "
            "leave out its rows."
        )
    numbers = np.array([position(name, wanted, place) if name in seen else 0 for name in names])
    return numbers[declared.codes].astype(np.uint8), tuple(wanted)
