"""Paths of files, and the endings that say how they are read."""

from __future__ import annotations

import os
from pathlib import Path

from walkback.support.formats import TEXT_TABLES


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
