"""Splits of files by the names of their folders or their own, as in `datasets`.

A name denotes a split if it contains a word of `ALIASES` delimited by `-`, `.`, `_`, a space or a digit, or ends with
the name of a folder: `train`, `val2017`, `my-test`, `train_01.png`. If any folder denotes a split, folders decide;
otherwise file names do. Parquet files may also be in a folder `data` as `SPLIT-00000-of-00001.parquet`, for any split.

There are three differences from `datasets`: case is ignored; a file that two folders claim is in one split, not in
both; a folder `validate` next to train is the validation split, rather than ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from walkback.data import Split
from walkback.errors import DataError
from walkback_hf.names import shown
from walkback_hf.splits import ALIASES, split_named

_SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}.*\..*", re.ASCII)
_EDGE = r"[-._ 0-9]"


@dataclass(frozen=True, slots=True)
class Sorting:
    """Files by split.

    Attributes:
        groups: Files by split; all of them under `all` if no name denotes one.
        left_out: Files that no split claims, although a split claims others.
        steps: Description of how the split was found.
        deciding: The folder that determines the split of a file, if one does.
    """

    groups: Mapping[str, tuple[Path, ...]]
    left_out: tuple[Path, ...] = ()
    steps: tuple[str, ...] = ()
    deciding: Mapping[Path, Path] | None = None


def sort_by_split(files: Sequence[Path], source: str) -> Sorting:
    """Sorts files, given relative to their source, into splits by name.

    Args:
        files: Files in order; the order is kept.
        source: Name of the source for messages.

    Raises:
        DataError: Some of the files are held out by name, and none of the others is named train.
    """
    if any(_shard(file) for file in files):
        found = _collect(files, {file: name for file in files if (name := _shard(file))}, "file names")
    elif any(_folders(file) for file in files):
        found = _by_folder(files)
    else:
        found = _collect(
            files, {file: split for file in files if (split := _said(file.name, "file"))}, "file names"
        )
    if not found.groups:
        return Sorting({"all": tuple(files)})
    _require_train(found, source)
    return _with_validate(found)


def _shard(file: Path) -> str | None:
    """Returns the split in the name `data/SPLIT-00000-of-00001.parquet`."""
    match = _SHARD.fullmatch(file.name) if file.parts[:-1] == ("data",) else None
    return match.group(1) if match else None


def _said(name: str, kind: str, words: Mapping[Split, tuple[str, ...]] = ALIASES) -> Split | None:
    """Returns the split that the name of a folder or file denotes; None if it denotes none, or two."""
    end = f"(?:{_EDGE}|$)" if kind == "folder" else _EDGE
    said = [
        split
        for split, aliases in words.items()
        if re.search(f"(?:^|{_EDGE})(?:{'|'.join(aliases)}){end}", name, re.IGNORECASE)
    ]
    return said[0] if len(said) == 1 else None


def _folders(file: Path) -> list[tuple[Split, Path]]:
    """Returns the folders above a file that denote a split, starting with the outermost."""
    parts = file.parts[:-1]
    found = ((_said(part, "folder"), Path(*parts[: depth + 1])) for depth, part in enumerate(parts))
    return [(split, folder) for split, folder in found if split is not None]


def _by_folder(files: Sequence[Path]) -> Sorting:
    """Sorts by the outermost folder that denotes a split, or the innermost if that finds no train and test."""
    said = {file: found for file in files if (found := _folders(file))}
    claimed = [file for file, found in said.items() if len({split for split, _ in found}) > 1]
    outer, inner = (_chosen(files, said, which) for which in (0, -1))
    if not claimed:
        return inner
    chosen, word = (outer, "outer") if len(outer.groups) > 1 and "train" in outer.groups else (inner, "inner")
    step = f"where two folders say a split, as of {shown(claimed[0])}, the {word} one decides"
    return Sorting(chosen.groups, chosen.left_out, (*chosen.steps, step), chosen.deciding)


def _chosen(files: Sequence[Path], said: Mapping[Path, list[tuple[Split, Path]]], which: int) -> Sorting:
    found = _collect(files, {file: folders[which][0] for file, folders in said.items()}, "folders")
    deciding = {file: folders[which][1] for file, folders in said.items()}
    return Sorting(found.groups, found.left_out, found.steps, deciding)


def _collect(files: Sequence[Path], split_of: Mapping[Path, str], how: str) -> Sorting:
    groups: dict[str, list[Path]] = {}
    for file in files:
        if file in split_of:
            groups.setdefault(split_of[file], []).append(file)
    left_out = tuple(file for file in files if file not in split_of)
    return Sorting({name: tuple(group) for name, group in groups.items()}, left_out, (f"splits by {how}",))


def _require_train(found: Sorting, source: str) -> None:
    """Checks that training data were neither held out nor excluded from a split only by their name."""
    if any(split_named(name) == "train" for name in found.groups) or not found.left_out:
        return
    examples = ", ".join(f"{name} ({shown(group[0])})" for name, group in found.groups.items())
    raise DataError(
        f"Got files called {examples} in {source} and {len(found.left_out):,} others, such as "
        f"{shown(found.left_out[0])}, of which none is called train; expected train, validation and test in the names "
        "of folders or files, or in none."
    )


def _with_validate(found: Sorting) -> Sorting:
    """Uses files named `validate` as the validation split if train has none next to it."""
    if "train" not in found.groups or "validation" in found.groups:
        return found
    taken = tuple(file for file in found.left_out if _says_validate(file))
    if not taken:
        return found
    groups = {**found.groups, "validation": taken}
    left_out = tuple(file for file in found.left_out if file not in set(taken))
    deciding = {**(found.deciding or {}), **{file: file.parent for file in taken}}
    return Sorting(groups, left_out, (*found.steps, "validate taken for validation"), deciding)


def _says_validate(file: Path) -> bool:
    words: Mapping[Split, tuple[str, ...]] = {"validation": ("validate",)}
    above = any(_said(part, "folder", words) for part in file.parts[:-1])
    return above or _said(file.name, "file", words) is not None
