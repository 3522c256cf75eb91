"""Arrays in `.npz` archives that `numpy.load(path)` reads without pickle."""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt


def member(name: str) -> zipfile.ZipInfo:
    """Return an archive member without a timestamp, so that equal arrays give equal files."""
    return zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))


def add_array(archive: zipfile.ZipFile, name: str, array: npt.NDArray[Any]) -> None:
    """Add a complete array of any size to an archive."""
    with archive.open(member(name), "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
