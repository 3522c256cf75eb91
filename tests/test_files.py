"""Atomic writes: the old file or the new one, never anything between, and one sentence when it fails."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from walkback.errors import WalkbackError
from walkback.storage.files import (
    atomic_file,
    remove_abandoned,
    sha256,
    write_atomic,
    write_bytes,
    write_json,
    write_text,
)

OLD, NEW = b"old" * 100, b"new" * 1000

KILLED = """
import os, signal, sys
from pathlib import Path
from walkback.storage.files import write_atomic

def die(*_): os.kill(os.getpid(), signal.SIGKILL)

def at_call(number, real):
    calls = iter(range(1, 100))
    return lambda *arguments: die() if next(calls) == number else real(*arguments)

point = sys.argv[2]
if point == "sync-file": os.fsync = at_call(1, os.fsync)
if point == "rename": os.replace = die
if point == "sync-directory": os.fsync = at_call(2, os.fsync)

def write(file):
    file.write(b"new" * 500)
    if point == "write": die()
    file.write(b"new" * 500)

write_atomic(Path(sys.argv[1]), write)
"""

FULL = """
import resource, sys
from pathlib import Path
from walkback.errors import WalkbackError
from walkback.storage.files import write_bytes

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes(Path(sys.argv[1]), bytes(100_000))
except WalkbackError as error:
    print(error)
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with old content, alone in its directory."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


def only(path: Path) -> bool:
    """Whether `path` is all that its directory holds."""
    return list(path.parent.iterdir()) == [path]


def test_the_file_is_replaced(path: Path) -> None:
    write_bytes(path, NEW)
    assert path.read_bytes() == NEW
    assert only(path)


@pytest.mark.parametrize("point", ["write", "sync-file", "rename"])
def test_a_kill_before_the_rename_leaves_the_old_file(path: Path, point: str) -> None:
    assert run(KILLED, str(path), point).returncode == -signal.SIGKILL
    assert path.read_bytes() == OLD


def test_a_kill_after_the_rename_leaves_the_new_file(path: Path) -> None:
    assert run(KILLED, str(path), "sync-directory").returncode == -signal.SIGKILL
    assert path.read_bytes() == NEW
    assert only(path)


def test_what_a_kill_leaves_is_found_and_removed(path: Path) -> None:
    run(KILLED, str(path), "rename")
    assert not only(path)
    remove_abandoned(path.parent)
    assert only(path)


def test_a_full_disk_leaves_the_old_file_and_no_debris(path: Path) -> None:
    done = run(FULL, str(path))
    assert done.stdout.startswith(f"Could not write {path}: ")
    assert "limit" in done.stdout
    assert path.read_bytes() == OLD
    assert only(path)


def test_an_exception_of_the_writer_passes_and_leaves_the_old_file(path: Path) -> None:
    def write(file: object) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        write_atomic(path, write)
    assert path.read_bytes() == OLD
    assert only(path)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_the_reason_is_said_in_one_sentence(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WalkbackError, match=words) as caught:
        write_bytes(path, NEW)
    assert str(path) in str(caught.value)
    assert str(caught.value).count(".") == str(path).count(".") + 1
    assert path.read_bytes() == OLD
    assert only(path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(WalkbackError, match="its directory does not exist"):
        write_text(tmp_path / "missing" / "file", "text")


def test_what_is_no_regular_file_is_never_renamed_over(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target in (tmp_path, pipe, Path("/dev/null")):
        with pytest.raises(WalkbackError, match="not a regular file"):
            write_bytes(target, NEW)
    assert pipe.is_fifo()


def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", NEW)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_the_temporary_file_is_in_the_same_directory(path: Path) -> None:
    with atomic_file(path) as file:
        assert Path(file.name).parent == path.parent


def test_json_is_sorted_and_ends_with_a_newline(path: Path) -> None:
    write_json(path, {"b": [1], "a": "σ"})
    assert path.read_text(encoding="utf-8") == '{\n  "a": "σ",\n  "b": [\n    1\n  ]\n}\n'


def test_json_holds_no_nan(path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert path.read_bytes() == OLD


def test_the_digest_is_that_of_the_content(path: Path) -> None:
    assert sha256(path) == hashlib.sha256(OLD).hexdigest()
