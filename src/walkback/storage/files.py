"""Atomic writes and digests of files: a file is either complete or absent.

    temporary file in the same directory → write → fsync → rename over the old file → fsync the directory

A crash, a kill or a full disk at any point leaves the old file as it was. An exception also removes the
temporary file; after a kill it stays behind. Writers lock their temporary file, so the next one in the same directory
knows which are abandoned, and removes these (`remove_abandoned`).
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
    """Check that writing a file would not destroy what it is made from.

    Args:
        path: The file that is written.
        inputs: Files that are read, and folders.

    Raises:
        ConfigurationError: It is one of the files, under any name, or exists in one of the folders.
    """
    for source in inputs:
        with contextlib.suppress(OSError, RuntimeError):  # what cannot be looked at is refused elsewhere
            real = path.resolve()
            same = path.samefile(source) if path.exists() and source.exists() else real == source.resolve()
            if same or (source.is_dir() and path.exists() and real.is_relative_to(source.resolve())):
                raise ConfigurationError(
                    f"Got {path} to write to, which belongs to the input {source}: choose another name."
                )


def require_target(
    path: Path, endings: Collection[str], *, overwrite: bool = False, of_checkpoint: bool = False
) -> None:
    """Check, before any work, that a file can be written at the end of it.

    Args:
        path: The file.
        endings: Those that its name may have, as `.png`.
        overwrite: Whether a file that is there may be replaced.
        of_checkpoint: Whether it is a checkpoint that is written: nothing else replaces one.

    Raises:
        ConfigurationError: The ending is another, the file exists (unless `overwrite`), is a checkpoint or no regular
            file, or its directory does not exist or cannot be written to.
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
    """Refuse a path that the system does not look up, and a link to nowhere; others may exist or not.

    Raises:
        ConfigurationError: It is too long, in a directory that may not be entered, or a link to what does not exist.
    """
    try:
        dangling = path.is_symlink() and not path.exists()
        path.stat()
    except FileNotFoundError:
        dangling = path.is_symlink()
    except NotADirectoryError:
        return  # which the checks of parents tell
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = _REASONS.get(number or 0, getattr(error, "strerror", None) or str(error))
        raise ConfigurationError(f"Got the path {shortened(str(path), 100)}, but {reason}.") from error
    if dangling:
        raise ConfigurationError(
            f"Got the path {path}, which is a link to {path.readlink()}, which does not exist; choose another path."
        )


def _kind_of(path: Path) -> object:
    """What a file of walkback says it is; None for any other."""
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
            # Data must reach the disk before the rename does: a crash could otherwise leave an empty file.
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
            file.close()  # after the rename, because it gives up the lock
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
    """Create a file and lock it until it is closed; the kernel gives up the lock of a process that is killed."""
    while True:
        file = temporary.open("xb")
        _lock(file, wait=True)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # between creation and lock, another writer has taken it for abandoned


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Lock a file against other writers; returns whether it is locked now."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # another writer has it, or the file system has no locks
        return False
    return True


def remove_abandoned(directory: Path) -> None:
    """Remove what killed writers left in `directory`, to which others may be writing."""
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
    """Replace `path` by what `write` puts into the file that it is given.

    Raises:
        WalkbackError: The file cannot be written; an old one is still intact.
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
    """SHA-256 of a file's content, in hexadecimal; raises OSError, or ConfigurationError if it is no regular file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
