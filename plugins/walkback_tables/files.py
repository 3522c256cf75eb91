"""Readers: a file as a DataFrame or an ndarray, by pandas, pyarrow and NumPy; nothing is unpickled."""

from __future__ import annotations

import csv
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.io.common import get_handle
from pyarrow import feather, ipc

from walkback.errors import DataError
from walkback.support.formats import ARROW, CSV, NPY, NPZ, PARQUET, TEXT_TABLES
from walkback.support.text import one_line, printable
from walkback_tables.paths import ending

_SEPARATORS = ",;\t|"
_DECIMAL_COMMA = ";"


def read_file(path: Path, array: str | None = None) -> Any:
    """Returns the content of a file as a DataFrame or an ndarray.

    Args:
        path: The file; its ending says how it is read.
        array: Name of the array in a `.npz` file with several.

    Raises:
        DataError: There is no such file, it is damaged, or not of a known kind.
    """
    if not path.is_file():
        raise DataError(f"There is no file {printable(str(path))}: check the path.")
    kind = ending(path)
    if kind not in _READERS:
        expected = ", ".join(_READERS)
        raise DataError(f"{printable(path.name)} is no table that can be read, expected one of {expected}.")
    if array is not None and kind != NPZ:
        raise DataError(f"data.array = {array!r} has no effect on {printable(path.name)}: leave it out.")
    try:
        return _READERS[kind](path) if kind != NPZ else _read_npz(path, array)
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path.name)} is not text in UTF-8: convert it.") from error
    except (pd.errors.EmptyDataError, EOFError) as error:
        raise DataError(
            f"{printable(path.name)} is empty: give a file with a row for each example."
        ) from error
    except MemoryError as error:
        raise DataError(f"{printable(path.name)} is too large for the memory of this machine.") from error
    except Exception as error:  # of pandas, pyarrow, NumPy and zipfile, on arbitrary files
        raise DataError(
            f"{printable(path.name)} cannot be read ({one_line(error)}): write it again."
        ) from error


def first_rows(path: Path) -> pd.DataFrame:
    """Returns the first 1,000 rows of separated values; raises as pandas does, or DataError."""
    return _read_text(path, 1000)


def _read_text(path: Path, rows: int | None = None) -> pd.DataFrame:
    """Reads separated values: separator, header, and decimal commas are found in the first rows."""
    first, second = _first_rows(path)
    separator = "\t" if ending(path) == ".tsv" else _separator(first)
    head, row = (next(csv.reader([line], delimiter=separator)) for line in (first, second or first))
    if second and len(head) != len(row):
        raise DataError(
            f"{printable(path.name)} has {len(head)} names in its first row and {len(row)} values in the second: "
            "write as many in each row."
        )
    comma = separator == _DECIMAL_COMMA and any("," in value for value in row)
    without = all(_is_number(value.replace(",", ".") if comma else value) for value in head)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # columns of mixed types are refused by name later
            frame = pd.read_csv(
                path,
                sep=separator,
                header=None if without else 0,
                decimal="," if comma else ".",
                index_col=False,
                nrows=rows,
                skipinitialspace=True,
                low_memory=False,
                encoding="utf-8-sig",
            )
    except pd.errors.ParserError as error:
        raise DataError(
            f"{printable(path.name)} has rows of different lengths ({_ragged(error)}): write as many values in each "
            "row."
        ) from error
    if not without and len({*head}) != len(head):
        twice = next(name for name in head if head.count(name) > 1)
        raise DataError(
            f"{printable(path.name)} has {head.count(twice)} columns called {printable(twice)!r}: rename them."
        )
    return frame.set_axis([f"x{index}" for index in range(frame.shape[1])], axis=1) if without else frame


def _ragged(error: Exception) -> str:
    """Returns which row is longer, in the words of pandas: "Expected 2 fields in line 7, saw 3"."""
    return one_line(error).rpartition("error: ")[2]


def _first_rows(path: Path) -> tuple[str, str]:
    """Returns the first two lines that are not blank; the second may be empty."""
    with get_handle(path, "r", encoding="utf-8-sig", compression="infer") as opened:
        lines = (line.strip("\r\n") for line in opened.handle)
        found = [
            line for line, _ in zip((line for line in lines if str(line).strip()), range(2), strict=False)
        ]
    if not found:
        raise EOFError
    return str(found[0]), str(found[1]) if len(found) > 1 else ""


def _separator(line: str) -> str:
    """Returns the most frequent separator of a line, a comma if there is none."""
    counts = {mark: len(next(csv.reader([line], delimiter=mark))) for mark in _SEPARATORS}
    if max(counts.values()) == 1 and len(line.split()) > 1:
        return " "
    if counts[";"] > 1:  # before commas, which may be decimal
        return ";"
    return max(counts, key=counts.__getitem__)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path, engine="pyarrow")


def _read_arrow(path: Path) -> pd.DataFrame:
    """Reads both of Arrow's formats: `datasets` writes streams, pyarrow and pandas files."""
    try:
        frame: pd.DataFrame = feather.read_table(path).to_pandas()
    except pa.ArrowInvalid:
        with pa.memory_map(str(path)) as source:
            frame = ipc.open_stream(source).read_all().to_pandas()
    return frame


def _read_npy(path: Path) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
    except ValueError as error:  # NumPy's words advise unpickling, which runs code from the file
        raise DataError(
            f"{printable(path.name)} is cut short, or no array of numbers: write it again with numpy.save."
        ) from error
    return found


def _read_npz(path: Path, array: str | None) -> np.ndarray:
    if not zipfile.is_zipfile(path):
        raise DataError(f"{printable(path.name)} is no .npz archive: write it again with numpy.savez.")
    with np.load(path, allow_pickle=False) as archive:
        names = archive.files
        listing = ", ".join(map(printable, names)) or "none"
        if array is None and len(names) != 1:
            raise DataError(
                f"{printable(path.name)} has {len(names)} arrays ({listing}): choose one with data.array."
            )
        name = names[0] if array is None else array
        if name not in names:
            raise DataError(f"{printable(path.name)} has no array {name!r}: it has {listing}.")
        found: np.ndarray = archive[name]
        return found


_READERS: Mapping[str, Callable[[Path], Any]] = {
    **dict.fromkeys((CSV, *TEXT_TABLES), _read_text),
    PARQUET: _read_parquet,
    **dict.fromkeys(ARROW, _read_arrow),
    NPY: _read_npy,
    NPZ: lambda path: _read_npz(path, None),
}
