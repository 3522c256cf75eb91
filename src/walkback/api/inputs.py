"""Conversion of arguments (models, data, names or instances) for jobs, and execution of jobs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sized
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from rich.console import Console
from torch import Tensor

from walkback.api.records import Trained
from walkback.configuration.overrides import assignments
from walkback.data import Dataset
from walkback.data.category_tables import CategoryData, is_categorical
from walkback.data.tables import table_of
from walkback.data.tensors import RowOptions, TableData, TensorData
from walkback.errors import ConfigurationError
from walkback.extensions.loader import chosen
from walkback.extensions.registry import Registry
from walkback.jobs import job as jobs
from walkback.jobs.inputs import DataRequest, ModelRequest, PrecisionName
from walkback.support.progress import ProgressBar

Data: TypeAlias = str | os.PathLike[str] | Dataset | Tensor | np.ndarray[Any, Any] | Sized
"""A name, path or hub id; a dataset; or rows in a tensor, an array, a DataFrame or a `datasets.Dataset`."""

Result = TypeVar("Result")
Value = TypeVar("Value")


def installed() -> Registry:
    """Return the installed plugins (only those of `WALKBACK_PLUGINS` if it is set); warns of broken ones."""
    registry = Registry.discover(chosen())
    for warning in registry.warnings():
        warnings.warn(warning, stacklevel=3)
    return registry


def _progress_bar(shown: bool) -> ProgressBar:
    """Return a progress bar for terminals and notebooks, if `shown`; warnings are raised with `warnings.warn`."""
    console, warn = Console(stderr=True, highlight=False), partial(warnings.warn, stacklevel=2)
    return ProgressBar(console, warn, shown=shown, lines=False)


def carry_out(job: jobs.Job[Result], progress: bool) -> Result:
    """Check a job, do its work, and return its result; with `progress`, shows a bar in terminals and notebooks."""
    with _progress_bar(progress) as watch:
        return jobs.carry_out(job, installed(), watch)


def model_request(
    model: Trained | str | os.PathLike[str], device: str, precision: PrecisionName = "auto"
) -> ModelRequest:
    """Return the request for a model in memory, in a file, or in the directory of a run."""
    return ModelRequest(model.loaded if isinstance(model, Trained) else Path(model), device, precision)


def data_source(data: object) -> str | Dataset | None:
    """Convert data for jobs: a name, path or hub id to text; a tensor, array or table to a dataset.

    Raises:
        ConfigurationError: The data are something else.
        DataError: The values cannot be used.
    """
    if data is None or isinstance(data, Dataset):
        return data
    if isinstance(data, str | os.PathLike):
        return os.fspath(data)
    if isinstance(data, Tensor):
        table = data.dim() == 2 and data.is_floating_point()
        return TableData(data, "tensor") if table else TensorData(data)
    if isinstance(data, np.ndarray):
        image = data.ndim > 2 or data.dtype in (np.uint8, np.bool_)
        return TensorData.of(table_of(data, "array"), RowOptions()) if image else TableData(data, "array")
    if hasattr(data, "to_pandas") or (hasattr(data, "iloc") and hasattr(data, "columns")):
        frame = data.to_pandas() if hasattr(data, "to_pandas") else data
        return CategoryData(frame) if is_categorical(frame) else TableData(data)
    raise ConfigurationError(
        f"Got a {type(data).__name__} as data, expected a name, a path, a hub id, a Dataset, a tensor or an array "
        "(N, *E), a pandas DataFrame or a datasets.Dataset."
    )


def data_request(data: object, settings: Mapping[str, Any] | None, trusted: bool) -> DataRequest:
    """Return the request for data of a model, with options if given by name; raises the errors of `data_source`."""
    return DataRequest(data_source(data), tuple(assignments(settings or {})), trusted)


def path_or_none(path: str | os.PathLike[str] | None) -> Path | None:
    """Convert a path-like to a path, and None to None.

    Raises:
        ConfigurationError: The path is empty, which would mean the current directory.
    """
    if path is not None and not os.fspath(path):
        raise ConfigurationError("Got an empty path, expected the path of a file or directory, or None.")
    return None if path is None else Path(path)


def split_choice(name: str, value: object, bases: tuple[type, ...]) -> tuple[str | None, Any]:
    """Return a component as (name, None) or (None, instance).

    Args:
        name: Name of the argument, for messages.
        value: A name, an instance of one of `bases`, or None.
        bases: Base classes of instances.

    Raises:
        ConfigurationError: The value is neither a name nor an instance.
    """
    if value is None or isinstance(value, str):
        return value, None
    if isinstance(value, bases):
        return None, value
    what = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
    expected = " or ".join(base.__name__ for base in bases)
    raise ConfigurationError(f"Got {what} as {name}, expected a name or an instance of {expected}.")


def renamed(old: str, value: Value | None, new: str, given: Value | None) -> Value | None:
    """Return the value of a renamed keyword; warns about the old name, and raises ConfigurationError for both names."""
    warn = partial(warnings.warn, category=DeprecationWarning, stacklevel=4)
    return jobs.renamed(warn, jobs.keywords, old, value, new, given)
