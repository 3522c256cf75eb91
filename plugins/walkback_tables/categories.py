"""Columns of categories in a file as a dataset of symbols."""

from __future__ import annotations

import os
from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from walkback.data import DataInfo, Dataset, Split, Standardized
from walkback.data.category_tables import CategoryData
from walkback.errors import ConfigurationError, DataError
from walkback_tables.files import read_file
from walkback_tables.paths import local_path


@final
class CategoryFile(Dataset, Standardized):
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
        self._trained_on: DataInfo | None = None
        self._found: CategoryData | None = None

    @override
    def prepare(self) -> None:
        if self._found is not None:
            return
        content = read_file(self._path)
        name = os.fsencode(self._path.name).decode("utf-8", "replace")
        if not hasattr(content, "iloc"):
            raise DataError(
                f"{name} is an array without columns: whole numbers are read by --data symbols, from .npy."
            )
        like = None if self._trained_on is None else self._trained_on.categories
        self._found = CategoryData(content, name, self._columns, like)

    @override
    def standardized_as(self, trained_on: DataInfo) -> Dataset:
        if self._found is not None:
            return self._found.standardized_as(trained_on)
        self._trained_on = trained_on
        return self

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

    def _require(self) -> CategoryData:
        if self._found is None:
            raise DataError(f"Got data {self._path.name!r} that are not prepared; call prepare() first.")
        return self._found
