"""Local sources: a folder of images, a folder of parquet files, or one parquet file.

Splits are recognised by name: images by the first folder below the root (`train/…`, `valid/…`, `test/…`),
parquet by the name of the file (`train-00000-of-00001.parquet`) or of a folder. Where nothing is called train
all files are one pool. Parquet goes before images, so that a picture beside the data does no harm; hidden
files are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from walkback.data import Split
from walkback.errors import DataError
from walkback_hf.encoded import EncodedImages, ImageFiles
from walkback_hf.names import exists
from walkback_hf.splits import split_named
from walkback_hf.tables import ParquetFiles

_IMAGES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)


def find_local(path: Path, column: str | None = None) -> Mapping[str, EncodedImages]:
    """The images at `path`, by split; a single split `all` where the files are not sorted into splits.

    Args:
        path: A folder, or a parquet file.
        column: The column of images in parquet files; None finds it.

    Raises:
        DataError: There is nothing at `path`, or nothing that can be read.
    """
    if not exists(path):
        raise DataError(f"Got no file or folder at {path}; check the path.")
    if path.is_file() and path.suffix == ".parquet":
        return {"all": ParquetFiles(path.parent, [path], column)}
    if not path.is_dir():
        raise DataError(f"Got the file {path} as data; expected a folder of images or a .parquet file.")
    files = sorted(_visible(path))
    parquet = [file for file in files if file.suffix == ".parquet"]
    if parquet:
        groups = _group(path, parquet, _split_of_parquet)
        return {split: ParquetFiles(path, members, column) for split, members in groups.items()}
    images = [file for file in files if file.suffix.lower() in _IMAGES]
    if not images:
        raise DataError(f"Got no images in {path}; expected .parquet, .png, .jpg, .webp or the like.")
    return {
        split: ImageFiles(path, members) for split, members in _group(path, images, _split_of_image).items()
    }


def _visible(root: Path) -> Iterable[Path]:
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        if not any(part.startswith(".") or part == "__MACOSX" for part in parts) and path.is_file():
            yield path


def _group(
    root: Path, files: Sequence[Path], split_of: Callable[[Path], Split | None]
) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for file in files:
        split = split_of(file.relative_to(root))
        if split is not None:
            groups.setdefault(split, []).append(file)
    return groups if "train" in groups else {"all": list(files)}


def _split_of_image(path: Path) -> Split | None:
    return split_named(path.parts[0]) if len(path.parts) > 1 else None


def _split_of_parquet(path: Path) -> Split | None:
    own = re.match(r"[A-Za-z]+(?=[-_.]|$)", path.stem)
    names = [own.group()] if own else []
    return next((split for name in (*names, *path.parts[:-1]) if (split := split_named(name))), None)
