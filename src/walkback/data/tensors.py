"""Arrays and tables as datasets: rows in a fixed random order, a tenth for validation and a tenth for testing.

float, int    states s = (x - m) / d with the moments of the training split, see `walkback.data.standardization`
bool          binary states
uint8         gray levels v = 0 … 255, dequantized: (v + u) / 256, u ~ U[0, 1); if all are 0 or 1: (v + u) / 2

From a file or an object to a figure in the units of the data::

    file, DataFrame, … → tables.Table → RowData.examples (standardized) → states → operator → states → DataInfo.values
                                          DataInfo.standardized → checkpoint          -log p(s) + DataInfo.log_volume
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeAlias, final

import torch
from torch import Tensor
from typing_extensions import override

from walkback.data.dataset import (
    Centred,
    Condition,
    DataInfo,
    Dataset,
    Labelled,
    Split,
    Standardized,
    conditioned,
)
from walkback.data.densities import require_density
from walkback.data.held_out import FEWEST_ROWS, HELD_OUT, random_splits
from walkback.data.pixels import GrayLevels
from walkback.data.standardization import Standardization
from walkback.data.tables import Table, table_of
from walkback.data.transforms import require_inside, transforms_of
from walkback.errors import DataError

Standardize: TypeAlias = Literal["auto", "none"]
"""Whether real values are standardized."""

_CHANNELS = (1, 3, 4)  # gray, color, color with transparency


@dataclass(frozen=True, slots=True)
class RowOptions:
    """Options of the conversion of rows to states.

    Attributes:
        standardize: "auto" standardizes real values; "none" uses them as states.
        condition: Whether models are conditioned on the class of each row.
        like: Moments of other data, to use instead of those of the training rows.
        given: Whether to use `like`, even if it is None.
        transform: Transform of all columns, or of some by name, see `walkback.data.transforms`.
    """

    standardize: Standardize = "auto"
    condition: Condition = "none"
    like: Standardization | None = None
    given: bool = False
    transform: str | Mapping[str, str] = "none"


class RowData(Dataset, Centred, Labelled, Standardized):
    """Rows of a table in memory. Splits do not depend on the run's seed.

    Args:
        table: A table with at least 12 rows.
        options: Options of the conversion to states.

    Raises:
        DataError: There are too few rows, they have no density, or they seem to be images with their channels last.
    """

    def __init__(self, table: Table, options: RowOptions) -> None:
        values = table.values
        if len(values) < FEWEST_ROWS:
            rows = f"{len(values)} row{'s' * (len(values) != 1)}"
            raise DataError(
                f"{table.name} has {rows} (shape {tuple(values.shape)}), expected (N, *E) with N >= {FEWEST_ROWS}: a "
                "tenth each is held out for validation and test."
            )
        _require_channels_first(values)
        self._table = table
        self._options = options
        self._grey = (
            GrayLevels(levels=256 if int(values.max()) > 1 else 2) if values.dtype is torch.uint8 else None
        )
        self._rows = random_splits(len(values))
        self._standardized = self._fitted()
        self._examples = {split: self._stored(values[rows]) for split, rows in self._rows.items()}
        self._info = conditioned(self._describe(), self, options.condition)

    def _fitted(self) -> Standardization | None:
        values, options = self._table.values, self._options
        transforms = transforms_of(options.transform, self._table)
        plain = options.standardize == "none" or not values.is_floating_point()
        if plain and any(found.kind != "none" for found in transforms):
            raise DataError(
                f"Got a transform of {self._table.name}, whose values are not standardized: leave out data.transform."
            )
        if options.given or plain:
            return options.like
        train = replace(self._table, values=values[self._rows["train"]])
        require_density(train)
        by_column = values.dim() == 2
        whole = self._table.whole
        whole = whole * values.shape[1] if by_column and len(whole) == 1 else whole
        require_inside(transforms, self._table)
        return Standardization.fitted(
            train.values, self._table.columns, whole, by_column=by_column, transforms=transforms
        )

    def _stored(self, values: Tensor) -> Tensor:
        if not values.is_floating_point():
            return values.to(torch.uint8)
        if self._standardized is not None:
            require_inside(self._standardized.transforms, self._table)
        return values.float() if self._standardized is None else self._standardized.states(values)

    @override
    def prepare(self) -> None:
        """Do nothing: the data are in memory."""

    @property
    @override
    def info(self) -> DataInfo:
        return self._info

    @override
    def standardized_as(self, trained_on: DataInfo) -> RowData:
        wanted = trained_on.standardized
        if trained_on.support != "real" or not self._table.values.is_floating_point():
            return self
        if self._standardized == wanted:
            return self
        if (
            wanted is not None
            and not wanted.suits(tuple(self._table.values.shape[1:]))
            and not wanted.columns
        ):
            return self  # another shape, which is refused when shapes are compared
        table = self._table
        if wanted is not None and wanted.columns and table.columns:
            table = table.chosen(wanted.columns)
        return type(self).of(table, replace(self._options, like=wanted, given=True))

    @classmethod
    def of(cls, table: Table, options: RowOptions) -> Self:
        """Return the rows of a table as a dataset of this class."""
        made = cls.__new__(cls)
        RowData.__init__(made, table, options)
        return made

    def _describe(self) -> DataInfo:
        table, fit = self._table, self._standardized
        steps = [table.note, HELD_OUT]
        if self._grey is not None:
            steps.append(self._grey.step)
        if fit is not None and fit.transforms:
            names = table.shown if len(fit.transforms) > 1 or table.values.dim() == 2 else ("all values",)
            changed = zip(names, fit.transforms, strict=True)
            steps.append(f"transformed: {', '.join(f'{n} by {f}' for n, f in changed if f.kind != 'none')}")
        if fit is not None:
            each = "each column" if len(fit.mean) > 1 else "all values"
            steps.append(f"standardized: {each} less the mean of training, over the deviation")
        if fit is not None and any(fit.whole):
            steps.append("whole numbers dequantized: x + u, u ~ U[-1/2, 1/2)")
        steps = [step for step in steps if step]
        content = hashlib.sha256("\n".join((*steps, str(table.values.dtype), table.digest())).encode())
        return DataInfo(
            name=table.name,
            shape=tuple(table.values.shape[1:]),
            support="binary" if table.values.dtype is torch.bool else "real",
            bins=None if self._grey is None else self._grey.bins,
            preprocessing=tuple(steps),
            splits={split: len(rows) for split, rows in self._rows.items()},
            fingerprint=content.hexdigest()[:16],
            standardized=fit,
        )

    @override
    def examples(self, split: Split) -> Tensor:
        return self._examples[split]

    @override
    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        if self._grey is not None:
            return self._grey.states(rows, generator)
        states = rows.to(generator.device).float()
        return states if self._standardized is None else self._standardized.dequantized(states, generator)

    @override
    def centres(self, rows: Tensor) -> Tensor:
        return rows.float() if self._grey is None else self._grey.centres(rows)

    @property
    @override
    def classes(self) -> tuple[str, ...]:
        if not self._table.classes:
            raise DataError(f"{self._table.name} has no classes: name a column of them with data.label.")
        return self._table.classes

    @override
    def labels(self, split: Split) -> Tensor:
        if self._table.labels is None:
            raise DataError(f"{self._table.name} has no classes: name a column of them with data.label.")
        return self._table.labels[self._rows[split]]


@final
class TensorData(RowData):
    """Examples `(N, *E)` in memory.

    Args:
        rows: At least 12 finite examples, which are copied to the CPU.
        name: Name for protocols.
        standardize: "auto" standardizes floats; "none" uses them as states.

    Raises:
        DataError: There are too few rows, they have no event dimension, an unsupported type or values that are not
            finite, or they seem to be images with their channels last.
    """

    def __init__(self, rows: Tensor, name: str = "tensor", standardize: Standardize = "auto") -> None:
        if rows.dim() < 2 or len(rows) < FEWEST_ROWS or not rows.numel():
            raise DataError(
                f"Got a tensor of shape {tuple(rows.shape)} as data, expected (N, *E) with N >= {FEWEST_ROWS}."
            )
        super().__init__(table_of(rows, name), RowOptions(standardize))


@final
class TableData(RowData):
    """Columns of numbers `(N, D)` in memory, from an array or a table of pandas or `datasets`.

    Args:
        data: See `walkback.data.tables.table_of`.
        name: Name for protocols.
        columns: Columns of numbers, in order; None takes all except the label.
        label: Column of classes.
        condition: Whether models are conditioned on the class of each row.
        transform: Transform of all columns, or of some by name: "log", "logit(0, 100)", "asinh", see
            `walkback.data.transforms`.

    Raises:
        DataError: The values cannot be used; the message names the column.
        ConfigurationError: A transform does not exist.
    """

    def __init__(
        self,
        data: object,
        name: str = "table",
        columns: tuple[str, ...] | None = None,
        label: str | None = None,
        condition: Condition = "none",
        transform: str | Mapping[str, str] = "none",
    ) -> None:
        options = RowOptions(condition=condition, transform=transform)
        super().__init__(table_of(data, name, columns, label), options)


def _require_channels_first(rows: Tensor) -> None:
    """Reject `(N, H, W, C)`, which would silently be interpreted as H channels of W × C pixels."""
    if rows.dim() != 4 or rows.shape[1] in _CHANNELS or rows.shape[3] not in _CHANNELS:
        return
    wide = min(rows.shape[1:3]) > rows.shape[3]
    if wide and (not rows.is_floating_point() or _like_pixels(rows)):
        raise DataError(
            f"Got a tensor of shape {tuple(rows.shape)} as data, which look like images with their channels last, "
            "expected (N, C, H, W): pass data.permute(0, 3, 1, 2), or data.flatten(1) if they are no images."
        )


def _like_pixels(rows: Tensor) -> bool:
    """Return whether floats look like pixels: in [0, 1], nearly filling [-1, 1], or integers up to 255."""
    low, high = float(rows.min()), float(rows.max())
    if low >= -1 and high <= 1:
        return low >= 0 or min(-low, high) > 0.9
    return low >= 0 and high <= 255 and bool((rows == rows.round()).all())
