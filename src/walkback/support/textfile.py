"""Files that are not trusted: small texts such as recipes, configurations and manifests; other regular files."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from walkback.errors import ConfigurationError

MOST_BYTES = 2**20
"""Largest text file to read. A recipe has a few thousand bytes."""


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Return the text of a regular file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        most: Maximum size in bytes.

    Raises:
        ConfigurationError: The file does not exist, cannot be read, is larger, is not regular, or is not in UTF-8.
    """
    try:
        return _read(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not a text file in UTF-8: convert it.") from error
    except FileNotFoundError as error:
        raise ConfigurationError(f"There is no file {path}.") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{path} cannot be read: {reason}.") from error


def _read(path: Path, most: int) -> bytes:
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ConfigurationError(f"{path} is larger than {most:,} bytes, expected a small text file.")
    return content


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading: a named pipe would block until there is a writer, and a device may never end.

    Raises:
        ConfigurationError: It is not a regular file.
        OSError: It cannot be opened.
    """
    return open(path, "rb", opener=_without_waiting)


def _without_waiting(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise ConfigurationError(f"{path} cannot be read: it is not a regular file.")
