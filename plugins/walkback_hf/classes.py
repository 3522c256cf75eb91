"""Classes of images: the ClassLabel column of a table, and the names of the classes from its metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from walkback.errors import DataError
from walkback_hf.encoded import Labels, Rows

_USUAL_NAME = "label"


class ClassColumn(NamedTuple):
    """A column of class numbers: its name, and the names of the classes by number."""

    name: str
    classes: tuple[str, ...]


def class_column(schema: Any, place: str) -> ClassColumn:
    """Returns the column that holds classes: the one of type ClassLabel, or the one called `label` if there are
    several.

    Args:
        schema: The `pyarrow.Schema` of the table; its metadata define the meaning of an integer column.
        place: Description of the table for messages.

    Raises:
        DataError: There is none, or the choice is ambiguous.
    """
    marked = {name: names for name in schema.names if (names := _class_names(schema.metadata, name))}
    chosen = next(iter(marked)) if len(marked) == 1 else _USUAL_NAME
    if chosen not in marked:
        raise DataError(
            f"Got images without labels in {place}, expected a column of the type ClassLabel"
            + (f" called {_USUAL_NAME!r}, found {', '.join(marked)}." if marked else ".")
        )
    return ClassColumn(chosen, marked[chosen])


def labels_in(column: Any, classes: tuple[str, ...], rows: Rows, place: str) -> Labels:
    """Returns the classes of some rows of a column; rows with -1 or null, as `datasets` writes them, have no class.

    Args:
        column: A `pyarrow.ChunkedArray` of integers.
        classes: The names of the classes.
        rows: Rows to read; others are not checked.
        place: Description of the table for messages.

    Raises:
        DataError: The column does not hold integers, or a number is not a class.
    """
    if not pa.types.is_integer(column.type):
        raise DataError(f"Got classes of the type {column.type} in {place}, expected integers.")
    try:
        numbers = np.asarray(column.cast(pa.int64()).fill_null(-1).to_numpy(), dtype=np.int64)[rows]
    except (pa.ArrowException, IndexError) as error:  # beyond 64 bits, or fewer rows than the file says
        raise DataError(f"Got classes that cannot be read in {place} ({error}); replace the file.") from error
    wrong = np.flatnonzero((numbers < -1) | (numbers >= len(classes)))
    if wrong.size:
        raise DataError(
            f"Got a row of the class {numbers[wrong[0]]}, {place}, row {rows[wrong[0]]}; expected a number from 0 to "
            f"{len(classes) - 1}, or -1 for a row without a class."
        )
    return Labels(classes, numbers)


def joined(parts: Sequence[Labels], place: str) -> Labels:
    """Concatenates the labels of consecutive files.

    Raises:
        DataError: The files name their classes differently.
    """
    if any(part.classes != parts[0].classes for part in parts):
        raise DataError(f"Got files that name their classes differently, {place}; expected the same in all.")
    return Labels(parts[0].classes, np.concatenate([part.numbers for part in parts]))


def _class_names(metadata: Any, name: str) -> tuple[str, ...]:
    """Returns the names of the classes of a column, from metadata that `datasets` writes; empty without any."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][name]
        names = feature["names"] if feature["_type"] == "ClassLabel" else ()
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    whole = isinstance(names, list) and all(isinstance(text, str) for text in names)
    return tuple(names) if whole else ()
