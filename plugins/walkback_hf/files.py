"""Folders of image files: their splits, and their classes from the names of folders or from metadata files.

`metadata.csv`, `.jsonl` or `.parquet` next to images lists the ones to use, in the column `file_name`; `datasets` reads
it.
"""

from __future__ import annotations

import gc
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from walkback.errors import DataError
from walkback_hf.encoded import EncodedImages, ImageFiles, Labels
from walkback_hf.names import shown, within
from walkback_hf.sorting import Sorting

METADATA = frozenset(("metadata.csv", "metadata.jsonl", "metadata.parquet"))
_NO_CLASSES = (
    "expected a folder for each class, all at one depth, or parquet with a column of the type ClassLabel"
)


def image_files(root: Path, sorting: Sorting, column: str | None) -> dict[str, EncodedImages]:
    """Returns the images of a folder by split.

    Args:
        root: The folder.
        sorting: Its images and metadata files, relative to it.
        column: The column to use if metadata refer to files in several; `image` is called `file_name` there.

    Raises:
        DataError: Metadata cannot be read, or refer to missing files.
    """
    groups = {
        split: [file for file in files if file.name not in METADATA]
        for split, files in sorting.groups.items()
    }
    metadata = {
        split: [file for file in files if file.name in METADATA] for split, files in sorting.groups.items()
    }
    if any(metadata.values()):
        return {
            split: _listed(root, split, metadata[split], column) if metadata[split] else _plain(root, files)
            for split, files in groups.items()
        }
    labels = _folder_classes(groups, sorting.deciding or {})
    return {
        split: ImageFiles(root, [root / file for file in files], labels.get(split, _NO_CLASSES))
        for split, files in groups.items()
    }


def _plain(root: Path, files: Sequence[Path]) -> ImageFiles:
    return ImageFiles(root, [root / file for file in files], "which other splits have metadata for")


def _folder_classes(groups: Mapping[str, Sequence[Path]], deciding: Mapping[Path, Path]) -> dict[str, Labels]:
    """Returns the names of the folders that hold the images, if there are several and all are at the same depth.

    A folder that denotes a split is not a class.
    """
    files = [file for group in groups.values() for file in group]
    names = tuple(sorted({file.parent.name for file in files}))
    depths = {len(file.parts) for file in files}
    if len(names) < 2 or len(depths) != 1 or any(deciding.get(file) == file.parent for file in files):
        return {}
    number = {name: position for position, name in enumerate(names)}
    return {
        split: Labels(
            tuple(shown(Path(name)) for name in names), np.array([number[f.parent.name] for f in group])
        )
        for split, group in groups.items()
    }


def _listed(root: Path, split: str, metadata: Sequence[Path], column: str | None) -> ImageFiles:
    """Returns the images that metadata files list, with their classes if these are a ClassLabel."""
    place = ", ".join(shown(file) for file in metadata)
    try:
        rows, features = _read_metadata(root, split, metadata)
    except Exception as error:  # from pandas, pyarrow and `datasets`, on arbitrary bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"Got metadata that cannot be read, {place} ({reason:.300}); correct or remove it."
        ) from error
    chosen = _image_feature(features, column, place)
    paths = []
    for number, row in enumerate(rows):
        item = row.get(chosen)
        named = os.path.relpath(item["path"], root) if isinstance(item, Mapping) and item.get("path") else ""
        path = within(root, named)
        if path is None:
            what = f"a file that is not there, {shown(Path(named))}" if named else "no file"
            raise DataError(f"Got a row that names {what}, {place}, row {number}; correct or remove it.")
        paths.append(path)
    return ImageFiles(root, paths, _metadata_classes(features, rows, place))


def _read_metadata(root: Path, split: str, metadata: Sequence[Path]) -> tuple[list[dict[str, Any]], Any]:
    """Returns the rows of metadata files as `datasets` reads them, with images as paths, and their features."""
    import datasets
    from datasets.data_files import DataFilesDict, DataFilesList
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    files = [str(root / file) for file in metadata]
    # Names given as lists are not glob patterns. Modification times are unnecessary, as nothing is cached.
    listed = DataFilesDict({"train": DataFilesList(files, [("",)] * len(files))})
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # `datasets` opens a CSV without closing it
        stream = ImageFolder(cache_dir=scratch, data_files=listed).as_streaming_dataset(split="train")
        features = dict(stream.features)
        for name, feature in features.items():
            if isinstance(feature, datasets.Image):
                stream = stream.cast_column(name, datasets.Image(decode=False))
        rows = list(stream)
        del stream
        gc.collect()
        return rows, features


def _image_feature(features: Mapping[str, Any], column: str | None, place: str) -> str:
    import datasets

    fitting = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    chosen = (
        column if column is not None else "image" if "image" in fitting or len(fitting) != 1 else fitting[0]
    )
    if chosen not in fitting:
        found = ", ".join(fitting) or "none"
        raise DataError(
            f"Got metadata without a column of files for {chosen!r}, {place} (found {found}); expected a column "
            f"{'file_name' if chosen == 'image' else chosen + '_file_name'}."
        )
    return chosen


def _metadata_classes(
    features: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], place: str
) -> Labels | str:
    import datasets

    marked = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    chosen = marked[0] if len(marked) == 1 else "label"
    if chosen not in marked:
        return f"expected a column of the type ClassLabel in {place}, which only metadata.parquet can have"
    numbers = np.array([-1 if row[chosen] is None else int(row[chosen]) for row in rows], dtype=np.int64)
    return Labels(tuple(features[chosen].names), numbers)


def unlisted(root: Path, splits: Mapping[str, EncodedImages], files: Iterable[Path]) -> list[Path]:
    """Returns images that no row of metadata refers to."""
    used = {path for images in splits.values() if isinstance(images, ImageFiles) for path in images.paths}
    return [file for file in files if root / file not in used]


def kinds(files: Iterable[Path]) -> str:
    """Describes the number of files of each type: `3 .txt, 1 without suffix`."""
    counts = Counter(file.suffix.lower() or "without suffix" for file in files)
    return ", ".join(f"{count:,} {shown(Path(kind))}" for kind, count in counts.most_common(4)) + (
        ", …" if len(counts) > 4 else ""
    )
