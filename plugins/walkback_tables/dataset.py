"""A table or an array in a file as a dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, final

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from walkback.data import Centred, Condition, DataInfo, Dataset, Labelled, Split, Standardized
from walkback.data.category_tables import is_categorical
from walkback.data.deferred import Deferred
from walkback.data.tables import table_of
from walkback.data.tensors import RowData, RowOptions, Standardize, TableData
from walkback.errors import ConfigurationError, DataError
from walkback.support.text import printable
from walkback_tables.categories import CategoryFile
from walkback_tables.files import read_file
from walkback_tables.paths import local_path


@final
class TableFile(Deferred[RowData], Centred, Labelled, Standardized):
    """Rows of a .csv, .tsv, .parquet, .arrow, .npy or .npz file."""

    def __init__(
        self,
        *,
        path: str = "",
        columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None,
        label: str | None = None,
        condition: Condition = "none",
        standardize: Standardize = "auto",
        array: str | None = None,
        transform: str | dict[str, str] = "none",
    ) -> None:
        """Initializes the dataset; nothing is read before `prepare`.

        Args:
            path: The file, required.
            columns: Names of the columns to learn, in order; None takes all but the label. Columns without names are
                x0, x1, ….
            label: Column of classes, of text or whole numbers.
            condition: Whether a model is told the class of each row ("label").
            standardize: "auto" learns real values less their mean, over their deviation; "none" as they are.
            array: Name of the array in a .npz file with several.
            transform: Of values with bounds or heavy tails, for all columns or by the name of each: "log", "log(a)",
                "logit", "logit(a, b)" or "asinh".

        Raises:
            ConfigurationError: There is no path, or a model is to be told classes without a label.
        """
        if not path:
            raise ConfigurationError("data.path is empty: give the file of the table.")
        if condition == "label" and label is None:
            raise ConfigurationError("data.condition = 'label' needs the column of classes: set data.label.")
        self._path = local_path(path)
        super().__init__(self._path.name)
        self._columns: Sequence[str] | None = columns
        self._label = label
        self._array = array
        self._options = RowOptions(standardize, condition, transform=transform)
        self._trained_on: DataInfo | None = None

    @override
    def read(self) -> RowData:
        content, name = (
            read_file(self._path, self._array),
            os.fsencode(self._path.name).decode("utf-8", "replace"),
        )
        columns, options = self._columns, self._options
        if self._trained_on is not None:
            wanted = self._trained_on.standardized
            named = hasattr(content, "iloc") and wanted is not None and wanted.columns
            columns = wanted.columns if wanted is not None and named and columns is None else columns
        if self._label is None and hasattr(content, "iloc") and is_categorical(content, columns):
            raise DataError(
                f"The columns of {printable(name)} are categories: learn them with --data categories and "
                f"--set data.path={printable(str(self._path))}."
            )
        table = table_of(content, name, columns, self._label)
        if self._trained_on is None or not table.values.is_floating_point():
            return TableData.of(table, options)
        plain = TableData.of(table, RowOptions("none", options.condition))
        return plain.standardized_as(self._trained_on)

    @override
    def standardized_as(self, trained_on: DataInfo) -> Dataset:
        if self.prepared:
            return self.found.standardized_as(trained_on)
        self._trained_on = trained_on
        if trained_on.categories is None:
            return self
        return CategoryFile(path=str(self._path), columns=trained_on.categories.columns).standardized_as(
            trained_on
        )

    @override
    def centres(self, rows: Tensor) -> Tensor:
        return self.found.centres(rows)

    @property
    @override
    def classes(self) -> tuple[str, ...]:
        return self.found.classes

    @override
    def labels(self, split: Split) -> Tensor:
        return self.found.labels(split)
