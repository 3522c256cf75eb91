"""Assignment of the files and rows of a source to train, validation and test.

Splits provided by the source keep their rows. Missing ones are cut off deterministically:

- validation or test missing: the last tenth of train, at most 5,000 examples;
- both missing, or no splits at all: each gets one example in twenty, evenly spaced, so that files sorted by class are
cut fairly (90/5/5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from walkback.data import SPLITS, Split
from walkback.errors import DataError
from walkback_hf.encoded import Rows

ALIASES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_MOST_HELD_OUT = 5000


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """The name of the source's split and its rows for each split; `steps` describes what was cut."""

    rows: Mapping[Split, tuple[str, Rows]]
    steps: tuple[str, ...]


def split_named(text: str) -> Split | None:
    """Returns the split that a source calls `text`.

    >>> split_named("Valid"), split_named("extra")
    ('validation', None)
    """
    for split, names in ALIASES.items():
        if text.lower() in names:
            return split
    return None


def plan_splits(counts: Mapping[str, int], source: str, places: Mapping[str, str]) -> SplitPlan:
    """Assigns the rows of a source's splits to train, validation and test; no row is used twice.

    Args:
        counts: Number of examples by the source's own split names; others (`extra`) are ignored.
        source: Name of the source for messages.
        places: The files of each split, for messages.

    Raises:
        DataError: A split is empty or too small to be cut, or there is none to train on.
    """
    names = {split: name for name in reversed(list(counts)) if (split := split_named(name)) is not None}
    if "train" not in names:
        if len(counts) != 1:
            found = ", ".join(counts) or "none"
            raise DataError(
                f"Got no train split in {source}; expected train or a single split, found {found}."
            )
        names = {"train": next(iter(counts))}
    for name in names.values():
        if counts[name] == 0:
            raise DataError(
                f"Got an empty split, {name} of {source} ({places[name]}); expected at least one image."
            )
    return _cut(names, counts[names["train"]], counts, source)


def _cut(names: Mapping[Split, str], count: int, counts: Mapping[str, int], source: str) -> SplitPlan:
    missing = [split for split in SPLITS if split not in names]
    if count <= len(missing):
        words = " and ".join(missing)
        raise DataError(f"Got {count} training image(s) in {source}, too few to cut off {words}; add images.")
    train = names["train"]
    rows = {split: (name, np.arange(counts[name])) for split, name in names.items()}
    steps: tuple[str, ...] = ()
    if len(missing) == 1:
        held_out = max(1, min(_MOST_HELD_OUT, count // 10))
        rows["train"] = (train, np.arange(count - held_out))
        rows[missing[0]] = (train, np.arange(count - held_out, count))
        steps = (f"{missing[0]}: the last {held_out:,} examples of {train}",)
    elif missing:
        held_out = max(1, count // 20)
        rows = {split: (train, part) for split, part in zip(SPLITS, spread(count, held_out), strict=True)}
        steps = (f"validation and test: {held_out:,} evenly spaced examples of {train} each",)
    return SplitPlan({split: rows[split] for split in SPLITS}, steps)


def spread(count: int, held_out: int) -> tuple[Rows, Rows, Rows]:
    """Returns rows for train, validation and test: 2·held_out evenly spaced rows go to validation and test in turn.

    >>> [rows.tolist() for rows in spread(8, 1)]
    [[0, 1, 3, 4, 5, 7], [2], [6]]
    """
    positions = (2 * np.arange(2 * held_out) + 1) * count // (4 * held_out)
    return np.setdiff1d(np.arange(count), positions), positions[::2], positions[1::2]
