"""The directory of a run, used by one trainer at a time.

config.toml          the fully resolved configuration
metrics.jsonl        one record per line
checkpoints/         see `walkback.storage.store`
samples/*.png
final.safetensors    the trained model
result.json          how the run ended, see `walkback.storage.outcome`
.lock                locked while a process trains, and names it
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Self, final

from filelock import FileLock, Timeout

from walkback.errors import CheckpointError, ConfigurationError, WalkbackError
from walkback.storage.description import read_description
from walkback.storage.files import TEMPORARY, remove_abandoned, require_path, write_bytes, writing_to
from walkback.storage.outcome import RESULT_FILE
from walkback.storage.store import FINAL, CheckpointStore

_LOCK = ".lock"


@final
class RunDirectory:
    """A run directory, locked for this process until `close`, the end of the `with` block or of the process.

    Use `create`, `create_next` or `open`. Temporary files of killed processes are removed.

    Attributes:
        path: The directory.
        checkpoints: Its checkpoints.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self.checkpoints = CheckpointStore(path / "checkpoints")
        self._lock = lock
        self._locked = _identity(path / _LOCK)
        for directory in (path, self.checkpoints.directory, path / "samples"):
            with writing_to(directory):
                directory.mkdir(exist_ok=True)
                remove_abandoned(directory)

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Start a new run in `path`, which must be absent or empty.

        Raises:
            ConfigurationError: `path` is not empty, or another process is using it.
            WalkbackError: The directory cannot be created.
        """
        require_free(path)
        with writing_to(path):
            path.mkdir(parents=True, exist_ok=True)
        lock = _acquire(path)
        try:
            require_free(path)  # again: until now another process may have trained there, from start to end
        except ConfigurationError:
            lock.release()
            raise
        return cls(path, lock)

    @classmethod
    def create_next(cls, stem: Path) -> RunDirectory:
        """Start a new run in `stem`, or in `stem-2`, `stem-3`, … if it exists.

        Runs started at the same time get different directories.

        Raises:
            WalkbackError: The directory cannot be created.
        """
        path = _make_next(stem)
        return cls(path, _acquire(path))

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Resume the run in `path`.

        Raises:
            ConfigurationError: `path` is not a run directory, or another process is using it.
        """
        require_run_directory(path)
        return cls(path, _acquire(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock (idempotent)."""
        self._lock.release()

    def require_held(self) -> None:
        """Check that this process still holds the lock, which is lost if someone deletes its file.

        Raises:
            WalkbackError: The lock file was removed or replaced.
        """
        found = _identity(self.path / _LOCK)
        if found is None or found != self._locked:
            raise WalkbackError(
                f"{self.path / _LOCK} was removed while this process was training there, so another process may be "
                f"using the directory: nothing more is written; resume with --resume {self.path} once it is free."
            )

    @property
    def config(self) -> Path:
        """Path of the configuration."""
        return self.path / "config.toml"

    @property
    def final(self) -> Path:
        """Path of the trained model."""
        return self.path / FINAL

    def set_aside_after(self, step: int) -> Path | None:
        """Move everything after `step` to `checkpoints/superseded`, or `superseded-2`, …, for a run that goes back.

        This comprises checkpoints, the trained model, and a copy of `metrics.jsonl`, which the run will truncate.

        Returns:
            The directory; None if there is nothing after `step`.

        Raises:
            WalkbackError: A file cannot be moved.
        """
        root = self.checkpoints.directory
        final_is_later = self.final.exists() and _walks_of(self.final) > step
        result = self.path / RESULT_FILE
        if not (self.checkpoints.has_later(step) or final_is_later):
            return None
        place, metrics = root / "superseded", self.path / "metrics.jsonl"
        with writing_to(place):
            place = _make_next(root / "superseded")
            if metrics.exists():
                write_bytes(place / metrics.name, metrics.read_bytes())
            if final_is_later:
                self.final.rename(place / self.final.name)
            if result.exists():
                result.rename(place / result.name)
        self.checkpoints.move_after(step, place)
        return place

    def sample(self, name: str) -> Path:
        """Return the path of a picture, e.g. `samples/step-100.png` for "step-100"."""
        return self.path / "samples" / f"{name}.png"


def default_stem(operator: str, data: str, root: Path = Path("runs")) -> Path:
    """Return `runs/<operator>-<data>`, the directory of a run for which the user names none.

    >>> default_stem("gaussian-conv", "ylecun/mnist").as_posix()
    'runs/gaussian-conv-ylecun-mnist'
    """
    name = re.sub(r"[^\w.-]+", "-", f"{operator}-{data}").strip("-.")
    return root / (name[:60] or "run")


def require_run_directory(path: Path) -> None:
    """Raise ConfigurationError unless `path` is a run directory."""
    if not (path / "config.toml").is_file():
        raise ConfigurationError(
            f"Got {path}, expected a run directory with a config.toml; "
            f"start a run there by `walkback run --out {path}`."
        )


def require_free(path: Path) -> None:
    """Check that a run directory is free, without changing anything.

    Empty directories and a lock, which a run killed at its start leaves behind, are ignored.

    Raises:
        ConfigurationError: `path` is not empty, or is a file.
    """
    require_path(path)
    with writing_to(path):
        # The nearest existing ancestor decides whether the directory can be created.
        found = next(place for place in (path, *path.absolute().parents) if place.exists())
        if not found.is_dir():
            what = "which" if found == path else f"but {found}"
            raise ConfigurationError(f"Got {path} as run directory, {what} is a file; choose another --out.")
        if any(map(_is_content, path.rglob("*"))):
            raise ConfigurationError(
                f"Got the run directory {path}, which is not empty; go on with it by --resume {path}, "
                "or choose another --out."
            )


def _is_content(entry: Path) -> bool:
    return not (entry.is_dir() or entry.name == _LOCK or entry.match(TEMPORARY))


def is_locked(path: Path) -> bool:
    """Return whether a process is working in the run directory `path`, without writing or waiting.

    The kernel releases the lock of a process that has died. On systems without such locks (Windows, some file systems),
    the result is False.
    """
    try:
        import fcntl

        descriptor = os.open(path / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (ImportError, AttributeError, OSError):
        return False
    try:
        # A shared lock, so that simultaneous listings do not mistake one another for a trainer. A run that starts
        # within these microseconds waits for it, see `_acquire`.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def newest(stem: Path) -> Path | None:
    """Return the run directory that was started last among `stem`, `stem-2`, …; None if there is none."""
    numbered = re.compile(re.escape(stem.name) + r"(-\d+)?")
    found = [
        path.parent for path in stem.parent.glob("*/config.toml") if numbered.fullmatch(path.parent.name)
    ]
    return max(found, key=lambda path: (path / "config.toml").stat().st_mtime, default=None)


def _make_next(stem: Path) -> Path:
    """Create the first of `stem`, `stem-2`, … that does not exist, and return its path."""
    path, number = stem, 1
    with writing_to(stem):
        stem.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                # mkdir is atomic: testing for existence first would let two runs take the same directory.
                path.mkdir()
            except FileExistsError:
                number += 1
                path = stem.with_name(f"{stem.name}-{number}")
            else:
                return path


def _walks_of(model: Path) -> float:
    """Return the number of walks of a saved model; infinity if the file does not state it."""
    try:
        return read_description(model).progress.get("walks", math.inf)
    except CheckpointError:
        return math.inf


def _identity(file: Path) -> tuple[int, int] | None:
    """Return device and inode of a file, which are unique while it exists; None if there is no file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _acquire(path: Path) -> FileLock:
    """Lock a directory for this process; the kernel releases the lock however the process ends."""
    file = path / _LOCK
    if file.is_symlink():
        raise ConfigurationError(f"{file} is a symbolic link, expected the lock of the run: remove it.")
    # Not thread-local: the lock belongs to the process, and another thread may release it.
    # The timeout is for `is_locked`, which holds the lock for an instant.
    lock = FileLock(file, timeout=0.2, thread_local=False)
    with writing_to(file):
        try:
            lock.acquire()
        except Timeout as error:
            with file.open("rb") as held:
                holder = held.read(20).decode("ascii", "replace").strip() or "of unknown number"
            raise ConfigurationError(
                f"Got the run directory {path}, in which process {holder} is working; "
                "wait for it, stop it, or choose another --out."
            ) from error
        file.write_text(f"{os.getpid()}\n")
    return lock
