"""Extensions of the files that walkback reads and writes, in lower case, with the dot; imports nothing.

This is the only table. A new format needs its extension here, and a reader or writer where it is used:
`pictures.starts` and `pictures.inpainted` read, `pictures.frames` and `pictures.inpainted` write, and the
plugin of image folders decodes datasets.
"""

from __future__ import annotations

from collections.abc import Iterable

PNG, GIF, NPZ, SAFETENSORS = ".png", ".gif", ".npz", ".safetensors"
NPY, CSV, PARQUET = ".npy", ".csv", ".parquet"

PICTURES = (PNG, ".jpg", ".jpeg")
"""Single images that serve as a mask or as the start of a chain."""

STATES = (NPZ, SAFETENSORS)
"""Files that store states exactly."""

VALUES = (CSV, NPY, PARQUET)
"""Samples for other programs: numbers in the units of the data, without the protocol."""

CHAINS = (PNG, GIF, *STATES, *VALUES)
"""Formats of samples and chains."""

INPAINTED = (PNG, *STATES)
"""Formats of inpainted images."""

DATASET_IMAGES = (
    *(PNG, ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", GIF, ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Images of a dataset."""

FOREIGN_IMAGES = (
    *(".jp2", ".j2k", ".jpc", ".jpx", ".tga", ".ico", ".icns", ".pcx", ".psd", ".eps", ".ps", ".dds", ".xbm"),
    *(".sgi", ".ras", ".fits", ".avif", ".heic", ".heif"),
)
"""Images that `datasets` recognizes and walkback does not decode: rejected by name rather than ignored."""

TEXT_TABLES = (CSV, ".tsv", ".txt")
"""Separated values, which may be compressed (`.csv.gz`)."""

ARROW = (".arrow", ".feather")
"""Tables in Arrow's formats."""

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
"""Archives, which must be unpacked."""

TABLES = (
    *(NPY, NPZ, *TEXT_TABLES, ".json", ".jsonl", ".h5", ".hdf5", ".mat", ".pt", ".pth", SAFETENSORS),
    *ARROW,
)
"""Tables and arrays that are not images."""

DATA_PATHS = (PARQUET, *ARROW, *DATASET_IMAGES, NPY, NPZ, *TEXT_TABLES, ".zip", ".gz")
"""Extensions that mark a data source as a path, even if there is no such file, and not as a name or a hub id."""


def listed(endings: Iterable[str]) -> str:
    """Format extensions for use in a sentence.

    >>> listed(INPAINTED)
    '.png, .npz or .safetensors'
    """
    *most, last = endings
    return f"{', '.join(most)} or {last}" if most else last
