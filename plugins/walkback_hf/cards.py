"""Splits declared in the README.md of a hub dataset; they take precedence over names, as in `datasets`.

configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from walkback.errors import DataError
from walkback_hf.names import shown
from walkback_hf.sorting import Sorting, sort_by_split

_CARD = "README.md"
_MOST_CHARACTERS = 1 << 18
_MAGIC = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def sort_as_declared(root: Path, files: Sequence[Path]) -> Sorting | None:
    """Sorts files as the data card of a folder declares; returns None if there is no card, or it declares no files.

    Args:
        root: The folder.
        files: Relative to it, in order.

    Raises:
        DataError: The card has several configurations and no default, or names files elsewhere.
    """
    configs = _configs(root)
    if not configs:
        return None
    default = [
        name
        for name, config in configs.items()
        if len(configs) == 1 or name == "default" or config.get("default")
    ]
    if len(default) != 1:
        raise DataError(
            f"Got several configurations in {shown(root / _CARD)} ({', '.join(configs):.300}); give the folder of one, "
            "or write `default: true` under one of them there."
        )
    config = configs[default[0]]
    if config.get("data_files") is None:
        return _below(files, str(config["data_dir"]), root) if config.get("data_dir") else None
    groups = _matched(files, config["data_files"], root)
    used = {file for group in groups.values() for file in group}
    left_out = tuple(file for file in files if file not in used)
    if not used:
        raise DataError(
            f"Got a data card that names no file that is there, {shown(root / _CARD)}; correct its data_files."
        )
    return Sorting(groups, left_out, (f"splits by {_CARD}, configuration {default[0]}",))


def _configs(root: Path) -> Mapping[str, Mapping[str, Any]]:
    """Returns the configurations that a card declares, as `datasets` reads it."""
    path = root / _CARD
    text = _beginning(path)
    head = re.match(r"---\s*\n(.*?\n)---", text, re.DOTALL)
    if head is None and text.startswith("---") and len(text) >= _MOST_CHARACTERS:
        raise DataError(
            f"Got a data card whose head is longer than {_MOST_CHARACTERS:,} characters, {shown(path)}; shorten or "
            "remove it."
        )
    if head is None or not re.search(r"^configs\s*:", head.group(1), re.MULTILINE):
        return {}
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    try:
        return dict(MetadataConfigs.from_dataset_card_data(DatasetCard(head.group()).data))
    except Exception as error:  # from YAML, or from the checks in `datasets`
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"Got a data card that cannot be read, {shown(path)} ({reason:.300}); correct or remove it."
        ) from error


def _beginning(path: Path) -> str:
    """Returns the first characters of a card; nothing if there is none."""
    if not path.is_file():  # nor a pipe or a device, whose end may never come
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_MOST_CHARACTERS)


def _below(files: Sequence[Path], folder: str, root: Path) -> Sorting:
    inside = [file for file in files if file.is_relative_to(folder)]
    found = sort_by_split(inside, shown(root / folder))
    outside = tuple(file for file in files if not file.is_relative_to(folder))
    return Sorting(
        found.groups, (*found.left_out, *outside), (f"data_dir of {_CARD}", *found.steps), found.deciding
    )


def _matched(files: Sequence[Path], declared: Any, root: Path) -> dict[str, tuple[Path, ...]]:
    from datasets.data_files import sanitize_patterns

    groups: dict[str, tuple[Path, ...]] = {}
    taken: set[Path] = set()
    for split, patterns in sanitize_patterns(declared).items():
        elsewhere = [
            str(pattern) for pattern in patterns if "://" in str(pattern) or Path(str(pattern)).is_absolute()
        ]
        if elsewhere:
            raise DataError(
                f"Got a data card that names files elsewhere, {shown(root / _CARD)} ({elsewhere[0]:.200}); put them "
                "into the folder."
            )
        wanted = re.compile("|".join(_translated(str(pattern)) for pattern in patterns))
        groups[split] = tuple(
            file for file in files if file not in taken and wanted.fullmatch(file.as_posix())
        )
        taken.update(groups[split])
    return {split: group for split, group in groups.items() if group}


def _translated(pattern: str) -> str:
    """Translates a glob pattern to a regular expression."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", pattern.removeprefix("./"))
    return "".join(
        _MAGIC.get(piece, piece if piece.startswith("[") else re.escape(piece)) for piece in pieces
    )
