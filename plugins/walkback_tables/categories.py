"""Columns of categories in a file as a dataset of symbols."""

from __future__ import annotations

import os
from typing import Annotated, final

from pydantic import Field
from typing_extensions import override

from walkback.data import DataInfo, Dataset, Standardized
from walkback.data.category_tables import CategoryData
from walkback.data.deferred import Deferred
from walkback.errors import ConfigurationError, DataError
from walkback_tables.files import read_file
from walkback_tables.paths import local_path


@final
class CategoryFile(Deferred[CategoryData], Standardized):
    """Rows of a .csv, .tsv, .parquet or .arrow file, as one-hot states `(L, S)`.

    Args:
        path: The file, required.
        columns: Names of the columns to learn, in order; None takes all. Columns of whole numbers among others are
            categories only if they are named here.

    Raises:
        ConfigurationError: There is no path.
    """

    def __init__(
        self, *, path: str = "", columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    ) -> None:
        if not path:
            raise ConfigurationError("data.path is empty: give the file of the table.")
        self._path, self._columns = local_path(path), columns
        super().__init__(self._path.name)
        self._trained_on: DataInfo | None = None

    @override
    def read(self) -> CategoryData:
        content = read_file(self._path)
        name = os.fsencode(self._path.name).decode("utf-8", "replace")
        if not hasattr(content, "iloc"):
            raise DataError(
                f"{name} is an array without columns: whole numbers are read by --data symbols, from .npy."
            )
        like = None if self._trained_on is None else self._trained_on.categories
        return CategoryData(content, name, self._columns, like)

    @override
    def standardized_as(self, trained_on: DataInfo) -> Dataset:
        if self.prepared:
            return self.found.standardized_as(trained_on)
        self._trained_on = trained_on
        return self
