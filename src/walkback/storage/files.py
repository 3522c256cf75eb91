"""Atomic writes and digests of files: a file is either complete or absent.

    temporary file in the same directory → write → fsync → rename over the old file → fsync the directory

A crash, a kill or a full disk at any point leaves the old file unchanged. An exception also removes the temporary file;
a kill leaves it behind. Writers lock their temporary files, so the next writer in the same directory can recognize and
remove abandoned ones (`remove_abandoned`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from walkback.errors import CheckpointError, ConfigurationError, WalkbackError, shortened
from walkback.storage.migrations import CHECKPOINT, TRAINING_STATE
from walkback.storage.tensorheader import read_metadata
from walkback.support.textfile import open_regular

TEMPORARY = ".walkback-*.tmp"
"""Pattern of the names of temporary files."""

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space or write elsewhere",
    errno.EFBIG: "the file would be larger than the limit set for this process; raise it or write elsewhere",
    errno.EACCES: "there is no permission to write there; choose another place",
    errno.EPERM: "there is no permission to write there; choose another place",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOENT: "its directory does not exist; make it first",
    errno.ENOTDIR: "its parent is not a directory; choose another place",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
    errno.ELOOP: "it is a link that leads to itself; choose another place",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine; close some",
    errno.EEXIST: "there is a file of that name; choose another place",
}


def require_apart(path: Path, inputs: Iterable[Path]) -> None:
    """Check that writing a file does not destroy its own inputs.

    Args:
        path: The file to write.
        inputs: Files and folders to read.

    Raises:
        ConfigurationError: The file is one of the inputs, under any name, or an existing file in one of the folders.
    """
    for source in inputs:
        with contextlib.suppress(OSError, RuntimeError):  # unreadable paths are refused elsewhere
            real = path.resolve()
            same = path.samefile(source) if path.exists() and source.exists() else real == source.resolve()
            if same or (source.is_dir() and path.exists() and real.is_relative_to(source.resolve())):
                raise ConfigurationError(
                    f"Got {path} to write to, which belongs to the input {source}: choose another name."
                )


def require_target(
    path: Path, endings: Collection[str], *, overwrite: bool = False, of_checkpoint: bool = False
) -> None:
    """Check, before any work, that a file can be written at its end.

    Args:
        path: The file.
        endings: Allowed extensions, such as `.png`.
        overwrite: Whether an existing file may be replaced.
        of_checkpoint: Whether the file will be a checkpoint: only a checkpoint may replace a checkpoint.

    Raises:
        ConfigurationError: The extension is not allowed, the file exists (unless `overwrite`), is a checkpoint or not a
            regular file, or its directory does not exist or is not writable.
    """
    require_path(path)
    if path.suffix.lower() not in endings:
        raise ConfigurationError(
            f"Got {path} to write to, expected a name that ends in {', '.join(endings)}."
        )
    if path.exists() and not overwrite:
        raise ConfigurationError(
            f"Got {path} to write to, which exists; choose another name, or overwrite it (--force, overwrite=True)."
        )
    replaced = _kind_of(path) if overwrite else None
    if replaced == TRAINING_STATE.name or (replaced == CHECKPOINT.name and not of_checkpoint):
        raise ConfigurationError(
            f"Got {path} to write to, which is a {replaced}: choose another name, or remove it first."
        )
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"Got {path} to write to, which is not a regular file; choose another name.")
    if not path.parent.is_dir():
        raise ConfigurationError(f"Got {path} to write to, whose directory does not exist; make it first.")
    if not os.access(path.parent, os.W_OK):
        raise ConfigurationError(f"Got {path} to write to, but {_REASONS[errno.EACCES]}.")


def require_path(path: Path) -> None:
    """Check that the system can look up a path, which need not exist.

    Raises:
        ConfigurationError: The path is too long, in a directory that may not be entered, or a broken link.
    """
    try:
        dangling = path.is_symlink() and not path.exists()
        path.stat()
    except FileNotFoundError:
        dangling = path.is_symlink()
    except NotADirectoryError:
        return  # reported by the checks of the parent directories
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = _REASONS.get(number or 0, getattr(error, "strerror", None) or str(error))
        raise ConfigurationError(f"Got the path {shortened(str(path), 100)}, but {reason}.") from error
    if dangling:
        raise ConfigurationError(
            f"Got the path {path}, which is a link to {path.readlink()}, which does not exist; choose another path."
        )


def _kind_of(path: Path) -> object:
    """Return the kind of a tensor file of walkback; None for other files."""
    try:
        return read_metadata(path).get("kind")
    except CheckpointError:
        return None


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn operating system errors in the block into one sentence that names `path`.

    Raises:
        WalkbackError: The block raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise WalkbackError(f"Could not write {path}: {reason}.") from error


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` if the block succeeds, and is removed if it fails.

    The mode of the file follows the umask. An existing `path` must be a regular file, so that a device or directory
    is never replaced.

    Raises:
        WalkbackError: The file cannot be written. Errors raised by the block pass unchanged.
    """
    if path.exists() and not path.is_file():
        raise WalkbackError(
            f"Could not write {path}: it exists and is not a regular file; choose another name."
        )
    remove_abandoned(path.parent)
    # In the same directory, because a rename is atomic only within one file system.
    temporary = path.parent / TEMPORARY.replace("*", secrets.token_hex(8))
    file: BinaryIO | None = None
    try:
        with writing_to(path):
            file = _open_locked(temporary)
        yield file
        with writing_to(path):
            # The data must reach the disk before the rename does: otherwise, a crash could leave an empty file.
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
            file.close()  # after the rename, because closing releases the lock
    except BaseException:  # signals included
        with contextlib.suppress(OSError):  # closing flushes, which fails again on a full disk
            if file is not None:
                file.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    with writing_to(path):
        _sync_directory(path.parent)


def _open_locked(temporary: Path) -> BinaryIO:
    """Create a file and lock it until it is closed; the kernel releases the lock of a killed process."""
    while True:
        file = temporary.open("xb")
        _lock(file, wait=True)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # between creation and lock, another writer considered it abandoned and removed it


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Lock a file against other writers; returns whether that succeeded."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # another writer holds the lock, or the file system does not support locks
        return False
    return True


def remove_abandoned(directory: Path) -> None:
    """Remove temporary files of killed writers from `directory`, to which others may be writing."""
    for temporary in directory.glob(TEMPORARY):
        with contextlib.suppress(OSError), temporary.open("rb") as file:
            if _lock(file, wait=False):
                temporary.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    """Make a rename inside `directory` durable across a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems do not support it
            raise
    finally:
        os.close(descriptor)


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace `path` by the content that `write` writes to a file object.

    Raises:
        WalkbackError: The file cannot be written; the old one is intact.
    """
    with writing_to(path), atomic_file(path) as file:
        write(file)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` atomically."""
    write_atomic(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8 atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replace `path` by `document` as sorted, indented JSON atomically; NaN and infinity raise ValueError."""
    text = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        OSError: The file cannot be read.
        ConfigurationError: It is not a regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
