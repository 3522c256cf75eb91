"""The files below a folder: links are followed, and unreadable entries are rejected by name.

Hidden files and folders (`.name`) and folders named `__name`, such as `__MACOSX`, are ignored, as in `datasets`; they
are counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from walkback.errors import DataError
from walkback.support.formats import DATASET_IMAGES, PARQUET
from walkback_hf.names import shown

_DATA = frozenset((PARQUET, *DATASET_IMAGES))


@dataclass(frozen=True, slots=True)
class Tree:
    """Files below a folder.

    Attributes:
        root: The folder.
        files: Its visible files, relative to it, folder by folder in the order of their names.
        hidden: Number of entries ignored because of their names.
        links: Number of folders that are links and were followed.
    """

    root: Path
    files: tuple[Path, ...]
    hidden: int
    links: int


def walk(root: Path) -> Tree:
    """Lists the files below `root`; links to folders and files are followed.

    Raises:
        DataError: A folder cannot be read, a link is broken or circular, or a folder occurs twice.
    """
    files: list[Path] = []
    hidden = links = 0
    seen: dict[tuple[int, int], Path] = {}
    folders = [Path()]
    while folders:
        folder = folders.pop()
        _enter(root, folder, seen)
        for entry in _entries(root, folder):
            name = folder / entry.name
            is_folder = _is_folder(entry, name)
            if entry.name.startswith(".") or (is_folder and entry.name.startswith("__")):
                hidden += 1
            elif is_folder:
                folders.append(name)
                links += entry.is_symlink()
            elif _is_file(entry, name):
                files.append(name)
    return Tree(root, tuple(sorted(files)), hidden, links)


def _enter(root: Path, folder: Path, seen: dict[tuple[int, int], Path]) -> None:
    """Records a visited folder; images read twice could end up in two splits."""
    try:
        status = (root / folder).stat()
    except OSError as error:
        raise _unreadable(root, folder, error) from error
    before = seen.setdefault((status.st_dev, status.st_ino), folder)
    if before != folder:
        raise DataError(
            f"Got the folder {_name(root, before)} a second time, as {_name(root, folder)}; remove the link."
        )


def _entries(root: Path, folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(root / folder) as entries:
            yield from entries
    except OSError as error:
        raise _unreadable(root, folder, error) from error


def _unreadable(root: Path, folder: Path, error: OSError) -> DataError:
    return DataError(
        f"Got a folder that cannot be read, {_name(root, folder)} ({error.strerror}); make it readable or take "
        "it away."
    )


def _is_folder(entry: os.DirEntry[str], name: Path) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        raise DataError(
            f"Got a link that cannot be followed, {shown(name)} ({error.strerror}); remove it."
        ) from error


def _is_file(entry: os.DirEntry[str], name: Path) -> bool:
    """Returns whether the entry is a file; rejects broken links, and pipes or devices named like data."""
    try:
        if entry.is_file():
            return True
    except OSError as error:
        raise DataError(
            f"Got a link that cannot be followed, {shown(name)} ({error.strerror}); remove it."
        ) from error
    if entry.is_symlink() and not Path(entry.path).exists():
        raise DataError(f"Got a link that leads nowhere, {shown(name)}; remove it, or put its target there.")
    if name.suffix.lower() in _DATA:
        raise DataError(f"Got something that is no file, {shown(name)}; expected an image or parquet.")
    return False


def _name(root: Path, folder: Path) -> str:
    return shown(folder if folder.parts else root)
