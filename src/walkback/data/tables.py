"""Tables: columns of numbers, and optionally one of classes, checked before training.

DataFrame, ndarray or `datasets.Dataset` → `Table`: values `(N, *E)`, names of columns, which of them contain integers,
and classes. Errors name the column that cannot be used because it contains text, missing values or the like.
"""

from __future__ import annotations

import decimal
import hashlib
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from walkback.errors import DataError
from walkback.support.text import nearest, printable

_MOST_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Table:
    """Values with names.

    Attributes:
        values: `(N, *E)` on the CPU: float64, uint8 (gray levels), or bool (binary states).
        name: Name for messages and protocols.
        columns: Names of the columns of `(N, D)`; empty if they have none.
        whole: Whether each column contains integers; a single flag if it is for all entries.
        classes: Names of the classes; empty if there are none.
        labels: Class of each row, `(N,)`, int64.
        note: A note on omitted columns, for the description of the data; empty if there are none.
    """

    values: Tensor
    name: str
    columns: tuple[str, ...] = ()
    whole: tuple[bool, ...] = (False,)
    classes: tuple[str, ...] = ()
    labels: Tensor | None = None
    note: str = ""

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of the columns, or `x0`, `x1`, … if they have none."""
        return self.columns or tuple(f"x{index}" for index in range(self.values.shape[1]))

    def chosen(self, columns: Sequence[str]) -> Table:
        """Return the table with these columns, in this order.

        Raises:
            DataError: A column does not exist or is named twice.
        """
        if self.values.dim() != 2:
            raise DataError(
                f"{self.name} has rows of shape {tuple(self.values.shape[1:])}, which have no columns to choose: leave "
                "out data.columns."
            )
        indices = [position(name, self.shown, self.name) for name in columns]
        if not indices or len(set(indices)) != len(indices):
            raise DataError(f"Got data.columns = {list(columns)}, expected different columns, at least one.")
        whole = self.whole if len(self.whole) > 1 else self.whole * self.values.shape[1]
        names = tuple(self.columns[index] for index in indices) if self.columns else ()
        flags = tuple(whole[index] for index in indices)
        return replace(self, values=self.values[:, indices], columns=names, whole=flags)

    def digest(self) -> str:
        """Return a hash of names and values."""
        content = hashlib.sha256(repr((self.columns, self.whole, tuple(self.values.shape))).encode())
        content.update(self.values.contiguous().numpy().tobytes())
        return content.hexdigest()


def position(name: str, names: Sequence[str], place: str) -> int:
    """Return the index of a column by its name; raises DataError, which lists the columns, if there is none."""
    if name not in names:
        listing = ", ".join(map(quoted, names[:20])) + (", …" if len(names) > 20 else "")
        raise DataError(f"{place} has no column {quoted(name)}{nearest(name, names)}: it has {listing}.")
    return list(names).index(name)


def table_of(data: Any, name: str, columns: Sequence[str] | None = None, label: str | None = None) -> Table:
    """Convert an array, a tensor, or a table of pandas or `datasets`.

    Args:
        data: ndarray or tensor `(N, *E)` or `(N,)`; or a DataFrame, Series or `datasets.Dataset`.
        name: Name for messages and protocols.
        columns: Columns of numbers, in order; None takes all except the label.
        label: Column of classes.

    Raises:
        DataError: The data are none of these, or their values cannot be used; the message names the column.
    """
    if isinstance(data, Tensor):
        return _of_tensor(data, name, columns, label)
    if hasattr(data, "to_frame"):  # a Series
        data = data.to_frame()
    features: Any = {}
    if hasattr(data, "to_pandas"):
        features, data = getattr(data, "features", None) or {}, data.to_pandas()
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        return _of_frame(data, name, columns, label, getattr(features.get(label), "names", None))
    array = np.ma.filled(data, np.nan) if isinstance(data, np.ma.MaskedArray) else np.asarray(data)
    if array.dtype.names:
        import pandas as pd

        return _of_frame(pd.DataFrame.from_records(array), name, columns, label)
    return _of_array(array, name, columns, label)


def _of_tensor(data: Tensor, name: str, columns: Sequence[str] | None, label: str | None) -> Table:
    if data.is_complex():
        raise DataError(f"Got {name} of {data.dtype} as data, expected real numbers.")
    rows = data.detach().to("cpu")
    return _of_array((rows.double() if rows.is_floating_point() else rows).numpy(), name, columns, label)


def _of_array(array: np.ndarray, name: str, columns: Sequence[str] | None, label: str | None) -> Table:
    if array.dtype.kind not in "fiub":
        kind = "text or objects" if array.dtype.kind in "OUS" else str(array.dtype)
        raise DataError(f"Got {name} of {kind} as data, expected an array of numbers.")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim == 0 or not array.size:
        raise DataError(
            f"Got {name} of shape {array.shape} as data, expected (N, *E) with a row for each example."
        )
    levels = array.dtype in (np.uint8, np.bool_)
    # Copy: torch cannot share the memory of reversed or read-only arrays, or of arrays in another byte order.
    values = torch.from_numpy(np.array(array, dtype=array.dtype.type if levels else np.float64, order="C"))
    table = Table(values, name, whole=(array.dtype.kind in "iu" and not levels,))
    if label is None:
        return _checked(table if columns is None else table.chosen(columns))
    index = position(label, table.shown, name)
    columns = [other for other in table.shown if other != label] if columns is None else columns
    if label in columns:
        raise DataError(
            f"Column {quoted(label)} is both the label and in data.columns: leave it out of one of them."
        )
    classes, labels = class_numbers(values[:, index].numpy(), label, name)
    return replace(_checked(table.chosen(columns)), classes=classes, labels=labels)


def _of_frame(
    frame: Any,
    name: str,
    columns: Sequence[str] | None,
    label: str | None,
    classes: Sequence[str] | None = None,
) -> Table:
    frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    columns, note = columns_of_frame(frame, name, columns, label)
    found = [_numbers(frame[column], column, name) for column in columns]
    table = Table(
        values=torch.from_numpy(np.stack([values for values, _ in found], axis=1)),
        name=name,
        columns=tuple(columns),
        whole=tuple(whole for _, whole in found),
        note=note,
    )
    if label is not None:
        names_of, numbers_of = class_numbers(frame[label].to_numpy(), label, name, classes)
        table = replace(table, classes=names_of, labels=numbers_of)
    return _checked(table)


def columns_of_frame(
    frame: Any, name: str, columns: Sequence[str] | None, label: str | None
) -> tuple[Sequence[str], str]:
    """Return the requested columns of a frame, all but the label if None, and a note on an omitted column."""
    names = list(frame.columns)
    for column in names:
        if names.count(column) > 1:
            raise DataError(f"{name} has {names.count(column)} columns called {quoted(column)}: rename them.")
    note = ""
    if label is not None:
        position(label, names, name)
    if columns is None:
        columns = [column for column in names if column != label]
        if len(columns) > 1 and _is_row_number(frame, columns[0]):
            columns, note = columns[1:], "left out: a column of row numbers without a name"
    if label in columns:
        raise DataError(
            f"Column {quoted(label)} is both the label and in data.columns: leave it out of one of them."
        )
    if not columns or len(set(columns)) != len(columns):
        raise DataError(f"{name}: got the columns {list(columns)}, expected different ones, at least one.")
    for column in columns:
        position(column, names, name)
    if not len(frame):
        raise DataError(f"{name} has columns but no rows: give a table with at least 12.")
    return columns, note


def _is_row_number(frame: Any, column: str) -> bool:
    """Return whether a column is the index that pandas writes: it has no name and counts the rows."""
    if not (column.startswith("Unnamed: ") or column == "" or column == "__index_level_0__"):
        return False
    values = frame[column].to_numpy()
    return values.dtype.kind in "iu" and bool((np.diff(values) == 1).all())


def require_present(series: Any, column: str, place: str) -> None:
    """Raise DataError if values of a column are missing."""
    missing = series.isna().to_numpy()
    count = int(missing.sum())
    if count:
        raise DataError(
            f"Column {quoted(column)} of {place} has {count:,} missing value{'s' * (count > 1)} (the first in "
            f"row {int(missing.argmax()) + 1:,}): remove these rows, or leave the column out with data.columns."
        )


def _numbers(series: Any, column: str, place: str) -> tuple[np.ndarray, bool]:
    """Return the values of a column as float64, and whether it contains integers."""
    require_present(series, column, place)
    kind = getattr(series.dtype, "kind", "O")
    if kind in "mM":
        raise DataError(
            f"Column {quoted(column)} of {place} holds dates or times: convert it to a number, or leave it out with "
            "data.columns."
        )
    if kind not in "biuf":
        wrong = [(row, item) for row, item in enumerate(series) if not _is_number(item)]
        if wrong or kind == "c":
            # Report a word among numbers (stored as text) rather than the first of these numbers.
            words = ((row, item) for row, item in wrong if not _reads_as_number(item))
            row, item = next(words, (wrong or [(0, series.iloc[0])])[0])
            raise DataError(
                f"Column {quoted(column)} of {place} does not contain numbers only: row {row + 1:,} holds "
                f"{quoted(str(item))}. Choose columns of one kind, numbers or categories, with data.columns, or make "
                "it the classes with data.label."
            )
    return series.to_numpy().astype(np.float64), kind in "biu"


def _is_number(item: object) -> bool:
    return isinstance(item, numbers.Real | decimal.Decimal)


def _reads_as_number(item: object) -> bool:
    try:
        float(str(item))
    except ValueError:
        return False
    return True


def class_numbers(
    values: np.ndarray, label: str, place: str, classes: Sequence[str] | None = None
) -> tuple[tuple[str, ...], Tensor]:
    """Return the names of classes and the class of each row, -1 if it is missing.

    Args:
        values: A column of integers, booleans or text.
        label: Name of the column.
        place: Name of the table, for messages.
        classes: Names of the classes by number, if the table has them.

    Raises:
        DataError: The column contains other numbers, a single class, or too many classes.
    """
    import pandas as pd

    series = pd.Series(values)
    if series.dtype.kind == "f" and not bool((series.dropna() % 1 == 0).all()):
        raise DataError(
            f"Column {quoted(label)} of {place} cannot be the label, because it holds numbers with fractions: name a "
            "column of classes."
        )
    if series.dtype.kind == "f":
        series = series.astype("Int64")
    if classes is not None:
        labels = np.array(series.fillna(-1), dtype=np.int64)
        if len(labels) and not (labels.min() >= -1 and labels.max() < len(classes)):
            raise DataError(f"Column {quoted(label)} of {place} has numbers that are no classes: rewrite it.")
        return tuple(classes), torch.from_numpy(labels)
    numbers_of, found = pd.factorize(series, sort=True)
    if not 2 <= len(found) <= _MOST_CLASSES:
        raise DataError(
            f"Column {quoted(label)} of {place} has {len(found):,} different values, expected 2 to {_MOST_CLASSES:,} "
            "classes: name another column with data.label."
        )
    return tuple(str(item) for item in found), torch.from_numpy(numbers_of.astype(np.int64))


def _checked(table: Table) -> Table:
    """Return the table; raises DataError if values are not finite."""
    if not table.values.is_floating_point():
        return table
    bad = ~table.values.isfinite()
    if bool(bad.any()):
        rows = bad.flatten(1).any(1)
        count, row = int(rows.sum()), int(rows.to(torch.uint8).argmax())
        where = ""
        if table.values.dim() == 2:
            where = f" in column {quoted(table.shown[int(bad[row].to(torch.uint8).argmax())])}"
        raise DataError(
            f"{table.name} contains NaN or infinity in {count:,} row{'s' * (count > 1)} (the first is row {row + 1:,}"
            f"{where}): remove these rows, or choose other columns with data.columns."
        )
    return table


def quoted(name: object) -> str:
    """Quote and truncate an untrusted name for messages."""
    text = printable(str(name))
    return f"'{text[:60]}{'…' if len(text) > 60 else ''}'"
