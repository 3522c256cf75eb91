"""Locations of images as users type them: local paths and hub ids."""

from __future__ import annotations

import os
import re
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")


def is_hub_id(text: str) -> bool:
    """Returns whether `text` has the form `owner/name`.

    >>> is_hub_id("ylecun/mnist"), is_hub_id("mnist"), is_hub_id("../mnist")
    (True, False, False)
    """
    return _HUB_ID.fullmatch(text) is not None


def local_path(text: str) -> Path:
    """Returns the path for `text`; expands `~` to the home directory, and never raises."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises for unknown users


def shown(path: Path) -> str:
    """Formats a path for messages; undecodable bytes become question marks, as terminals cannot print them."""
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")


def within(folder: Path, text: str) -> Path | None:
    """Returns the file that a table refers to by the path `text`, if it is below `folder`; otherwise None.

    The content of a file must not decide what else is read: no path leads out of the folder or to the network.
    """
    if "://" in text or "\0" in text:
        return None
    place = Path(os.path.normpath(folder / text))
    inside = place.is_relative_to(os.path.normpath(folder))
    return place if inside and exists(place) and place.is_file() else None


def exists(path: Path) -> bool:
    """Returns whether something exists at `path`; also False for invalid paths."""
    try:
        return path.exists()
    except (OSError, ValueError):  # name too long, or null character
        return False
