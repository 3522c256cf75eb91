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


def exists(path: Path) -> bool:
    """Whether something is at `path`; False, too, for what can be no path."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, a null character
        return False
