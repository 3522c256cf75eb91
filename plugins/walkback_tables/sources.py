"""Which files are tables: by their endings, the headers of arrays and columns, and the first rows of text."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from walkback.support.formats import ARROW, CSV, NPY, NPZ, PARQUET, TEXT_TABLES
from walkback_tables.paths import ending, local_path


def component_for(source: str) -> str | None:
    """Returns "table", "categories" or "array" for an existing file that is one, else None.

    A file is one of categories if none of its columns (in text, of its first 1,000 rows) holds numbers.
    """
    path = local_path(source)
    kind = ending(path)
    try:
        if not path.is_file():
            return None
    except (OSError, ValueError):  # name too long, or null character
        return None
    if kind in (*TEXT_TABLES, CSV):
        return "categories" if _is_text(path) else "table"
    if kind in ARROW:
        return _kind_of_columns(_types_in_arrow, path) or "table"
    if kind == PARQUET:
        return _kind_of_columns(_types_in_parquet, path)
    if kind in (NPY, NPZ):
        return "array" if _is_larger(path, kind) else "table"
    return None


def _is_text(path: Path) -> bool:
    """Returns whether the first rows of separated values are categories; False if the file is damaged."""
    from walkback.data.category_tables import is_categorical
    from walkback_tables.files import first_rows

    try:
        return is_categorical(first_rows(path))
    except Exception:  # pandas raises many kinds for damaged files; reading says what is wrong
        return False


def _kind_of_columns(types_in: Callable[[Path], list[object]], path: Path) -> str | None:
    """Returns "categories" for text and booleans, "table" if there are numbers; None if some could hold images."""
    import pyarrow as pa

    try:
        types = [_plain(kind) for kind in types_in(path)]
    except (pa.ArrowException, OSError):
        return None  # a damaged file; reading says what is wrong
    if any(pa.types.is_nested(kind) or pa.types.is_binary(kind) for kind in types):
        return None
    named = (pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean)
    if types and all(any(test(kind) for test in named) for kind in types):
        return "categories"
    return "table" if any(map(_is_number, types)) else None


def _types_in_parquet(path: Path) -> list[object]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).types)


def _types_in_arrow(path: Path) -> list[object]:
    """Returns the types of either of Arrow's formats, or of none, which has no columns."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        try:
            return list(pa.ipc.open_file(source).schema.types)
        except pa.ArrowInvalid:
            source.seek(0)
            return list(pa.ipc.open_stream(source).schema.types)


def _plain(kind: object) -> object:
    """Returns the type of a column's values, which may be stored as numbers of a dictionary."""
    import pyarrow as pa

    return getattr(kind, "value_type", kind) if pa.types.is_dictionary(kind) else kind


def _is_number(kind: object) -> bool:
    import pyarrow as pa

    return any(
        test(kind)
        for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    )


def _is_larger(path: Path, kind: str) -> bool:
    """Returns whether rows of an array are more than a list of numbers; False if the file is damaged."""
    try:
        if kind == NPY:
            with path.open("rb") as file:
                return _rank(file) > 2
        with zipfile.ZipFile(path) as archive:
            ranks = [_rank(archive.open(name)) for name in archive.namelist()]
        return max(ranks, default=0) > 2
    except Exception:  # zipfile and numpy raise many kinds for damaged files; reading says what is wrong
        return False


def _rank(file: IO[bytes]) -> int:
    import numpy as np

    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, _, dtype = read(file)
    # Gray levels and bits of any shape are images, whose rows are not standardized.
    return 3 if dtype.kind == "b" or dtype.str == "|u1" else len(shape)
