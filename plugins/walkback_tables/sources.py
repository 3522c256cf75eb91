"""Which files are tables, without reading them: by their endings, and the header of arrays and parquet files."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import IO

from walkback.support.formats import ARROW, CSV, NPY, NPZ, PARQUET, TEXT_TABLES


def local_path(text: str) -> Path:
    """Returns the path for `text`; expands `~` to the home directory, and never raises."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises for unknown users


def ending(path: Path) -> str:
    """Returns the ending that says how a file is read; `.csv` of `x.CSV.gz`.

    >>> ending(Path("x.CSV.gz")), ending(Path("y.npy"))
    ('.csv', '.npy')
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in (".gz", ".bz2", ".xz", ".zst") and suffixes[-2] in TEXT_TABLES:
        return suffixes[-2]
    return suffixes[-1] if suffixes else ""


def component_for(source: str) -> str | None:
    """Returns "table" or "array" for an existing file that is one, else None."""
    path = local_path(source)
    kind = ending(path)
    try:
        if not path.is_file():
            return None
    except (OSError, ValueError):  # name too long, or null character
        return None
    if kind in (*TEXT_TABLES, *ARROW, CSV):
        return "table"
    if kind == PARQUET:
        return "table" if _holds_numbers(path) else None
    if kind in (NPY, NPZ):
        return "array" if _is_larger(path, kind) else "table"
    return None


def _holds_numbers(path: Path) -> bool:
    """Returns whether a parquet file has columns of numbers, and none that could hold images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        types = [field.type for field in pq.read_schema(path)]
    except (pa.ArrowException, OSError):
        return False  # a damaged file, of which the plugin of images says what is wrong
    nested = any(pa.types.is_nested(kind) or pa.types.is_binary(kind) for kind in map(_plain, types))
    return not nested and any(map(_is_number, types))


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
