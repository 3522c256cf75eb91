"""Local sources: a folder of images or parquet files, or saved by `datasets`; or one parquet file.

Finds what `datasets.load_dataset` finds at a path, by the rules of `sorting`, and reports what is ignored. Parquet
files with images take precedence over image files, so that a stray picture next to the data does no harm.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from walkback.errors import DataError
from walkback.support import formats
from walkback_hf.cards import sort_as_declared
from walkback_hf.columns import TABLE_ADVICE, holds_images
from walkback_hf.encoded import Found
from walkback_hf.files import METADATA, image_files, kinds, unlisted
from walkback_hf.names import exists, shown
from walkback_hf.saved import find_saved, is_saved
from walkback_hf.sorting import Sorting, sort_by_split
from walkback_hf.tables import ParquetFiles
from walkback_hf.walk import Tree, walk

_IMAGES = frozenset((*formats.DATASET_IMAGES, *formats.FOREIGN_IMAGES))
_ARCHIVES = frozenset(formats.ARCHIVES)
_TABLES = frozenset(formats.TABLES) - {".txt"}  # a text file beside images is more likely a note than a table


def find_local(path: Path, column: str | None = None) -> Found:
    """Returns the images at `path` by split; a single split `all` if no name denotes one.

    Args:
        path: A folder, or a parquet file.
        column: The column of images in tables; None finds it automatically.

    Raises:
        DataError: There is nothing at `path`, or nothing readable.
    """
    if not exists(path):
        raise DataError(f"Got no file or folder at {shown(path)}; check the path.")
    path = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would replace links that users know
    if not path.is_dir():
        return _find_file(path, column)
    if is_saved(path):
        return find_saved(path, column)
    tree = walk(path)
    parquet = [
        file for file in tree.files if file.suffix.lower() == formats.PARQUET and file.name not in METADATA
    ]
    images = [file for file in tree.files if file.suffix.lower() in _IMAGES]
    if parquet and (not images or any(_has_images(path / file) for file in parquet)):
        return _find_parquet(tree, parquet, images, column)
    if not images:
        raise DataError(_no_images(tree))
    return _find_images(tree, images, column)


def _find_file(path: Path, column: str | None) -> Found:
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError(f"Got {shown(path)} as data, which is no regular file; expected a folder or a file.")
    if suffix == formats.PARQUET:
        return Found({"all": ParquetFiles(path.parent, [path], column)})
    advice = "expected a folder of images or a .parquet file"
    if suffix in _TABLES:
        advice = TABLE_ADVICE
    elif suffix in _ARCHIVES:
        advice = "unpack it, and give the folder"
    elif suffix in _IMAGES:
        advice = "give the folder of images that it lies in"
    raise DataError(f"Got the file {shown(path)} as data; {advice}.")


def _sorted(tree: Tree, files: Sequence[Path]) -> Sorting:
    return sort_as_declared(tree.root, files) or sort_by_split(files, shown(tree.root))


def _find_parquet(tree: Tree, parquet: Sequence[Path], images: Sequence[Path], column: str | None) -> Found:
    sorting = _sorted(tree, parquet)
    splits = {
        split: ParquetFiles(tree.root, [tree.root / file for file in files], column)
        for split, files in sorting.groups.items()
    }
    named = {place for source in splits.values() for place in source.named_files()} if images else set()
    unnamed = [file for file in images if tree.root / file not in named]
    beside = [f"{len(unnamed):,} image files beside parquet that no row names"] if unnamed else []
    used = {file for files in sorting.groups.values() for file in files}
    return Found(splits, *_told(tree, sorting, used | set(images), beside))


def _find_images(tree: Tree, images: Sequence[Path], column: str | None) -> Found:
    known = set(images)
    sorting = _sorted(tree, [file for file in tree.files if file in known or file.name in METADATA])
    splits = image_files(tree.root, sorting, column)
    claimed = [file for files in sorting.groups.values() for file in files if file in known]
    unused = unlisted(tree.root, splits, claimed)
    missed = [f"{len(unused):,} images that no metadata list, such as {shown(unused[0])}"] if unused else []
    used = {file for files in sorting.groups.values() for file in files}
    return Found(splits, *_told(tree, sorting, used, missed))


def _told(tree: Tree, sorting: Sorting, used: set[Path], missed: Sequence[str]) -> tuple[str, str]:
    """Returns the note, and the description of what is left out."""
    unclaimed = sorting.left_out
    rest = [file for file in tree.files if file not in used and file not in set(unclaimed)]
    archives = [file for file in rest if file.suffix.lower() in _ARCHIVES]
    left_out = list(missed)
    if unclaimed:
        left_out.append(f"{len(unclaimed):,} files whose names say no split, such as {shown(unclaimed[0])}")
    if archives:
        left_out.append(f"{len(archives):,} archives, such as {shown(archives[0])}: unpack them to read them")
    others = [file for file in rest if file not in set(archives)]
    alone = [*left_out, *([f"files of other kinds ({kinds(others)})"] if others else [])]
    if tree.hidden:
        alone.append(f"{tree.hidden:,} hidden")
    found = kinds(file for files in sorting.groups.values() for file in files)
    how = list(sorting.steps or ("no name says a split",))
    if tree.links:
        how.append(f"{tree.links:,} links to folders followed")
    note = f"found {found}; {'; '.join(how)}" + (f"; left alone: {', '.join(alone)}" if alone else "")
    return note, "; ".join(left_out)


def _has_images(path: Path) -> bool:
    """Returns whether a table has a column of images; also True for a damaged file: reading it will fail."""
    try:
        with pq.ParquetFile(path) as file:
            return any(holds_images(field.type) for field in file.schema_arrow)
    except (pa.ArrowException, OSError):
        return True


def _no_images(tree: Tree) -> str:
    root = shown(tree.root)
    archives = [file for file in tree.files if file.suffix.lower() in _ARCHIVES]
    tables = [file for file in tree.files if file.suffix.lower() in _TABLES]
    if archives:
        return f"Got no images in {root}, only archives such as {shown(archives[0])}; unpack them."
    if tables:
        return f"Got no images in {root}, but {shown(tables[0])}; {TABLE_ADVICE}."
    beside = f" beside {kinds(tree.files)}" if tree.files else ""
    hidden = f" ({tree.hidden:,} hidden)" if tree.hidden else ""
    return f"Got no images in {root}{beside}{hidden}; expected .parquet, .png, .jpg, .webp or the like."
