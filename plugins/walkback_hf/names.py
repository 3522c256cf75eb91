"""What users type to say where images are: local paths and ids of the hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")


def is_hub_id(text: str) -> bool:
    """Whether `text` reads `owner/name`.

    >>> is_hub_id("ylecun/mnist"), is_hub_id("mnist"), is_hub_id("../mnist")
    (True, False, False)
    """
    return _HUB_ID.fullmatch(text) is not None


def local_path(text: str) -> Path:
    """The path meant by `text`; `~` is the home directory, and never an error."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises where it knows no such user


def shown(path: Path) -> str:
    """A path for messages; bytes that are no text become question marks, as no terminal can print them."""
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")


def within(folder: Path, text: str) -> Path | None:
    """The file that a table means by the path `text`: below `folder`, or none.

    What lies in a file does not decide what else is read: no path leads out of the folder, nor to the network.
    """
    if "://" in text or "\0" in text:
        return None
    place = Path(os.path.normpath(folder / text))
    inside = place.is_relative_to(os.path.normpath(folder))
    return place if inside and exists(place) and place.is_file() else None


def exists(path: Path) -> bool:
    """Whether something is at `path`; False, too, for what can be no path."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, a null character
        return False
