"""A cache of decoded pixels on disk, keyed by a hash of what they were decoded from.

An entry is a `.npy` file of uint8 followed by the SHA-256 of that file, so an incomplete or damaged entry is detected
and not used. Entries never change and may be deleted at any time. They are stored in `$WALKBACK_CACHE`,
`$XDG_CACHE_HOME/walkback` or `~/.cache/walkback`, in this order.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from walkback.errors import DataError, WalkbackError
from walkback.storage.files import atomic_file
from walkback_hf.decode import Pixels

_DIGEST_SIZE = hashlib.sha256().digest_size


class StoredPixels(NamedTuple):
    """Pixels `(N, C, H, W)`, memory-mapped from the cache if possible, and their SHA-256 (hex)."""

    pixels: Pixels
    digest: str


def cache_directory() -> Path:
    """Returns the directory of decoded pixels."""
    if own := os.environ.get("WALKBACK_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "walkback"


def cached_pixels(key: str, shape: tuple[int, ...], decode: Callable[[], Iterable[Pixels]]) -> StoredPixels:
    """Returns the pixels stored under `key`; decodes and stores them if they are missing or damaged.

    If the cache is not writable (read-only, full), a warning is issued and the pixels stay in memory.

    Args:
        key: Identifies the content and the transform; hex digits.
        shape: `(N, C, H, W)`.
        decode: Yields the pixels in batches along N; called only when needed.

    Raises:
        DataError: Whatever `decode` raises.
    """
    path = cache_directory() / "pixels" / f"{key}.npy"
    found = _load(path, shape)
    if found is None:
        try:
            _store(path, shape, decode())
            found = _load(path, shape)
        except DataError:
            raise
        except (OSError, WalkbackError) as error:
            reason = error if isinstance(error, OSError) else error.__cause__ or error
            warnings.warn(
                f"Cannot keep decoded images in {path.parent} ({getattr(reason, 'strerror', None) or reason}), so they "
                "stay in memory; set WALKBACK_CACHE to a folder that can be written to keep them.",
                stacklevel=2,
            )
    return _in_memory(shape, decode()) if found is None else found


def _load(path: Path, shape: tuple[int, ...]) -> StoredPixels | None:
    """Maps the entry copy-on-write: torch requires writable memory, and writes must never reach the file."""
    try:
        content = np.memmap(path, dtype=np.uint8, mode="r")
        digest = hashlib.sha256(content[:-_DIGEST_SIZE].data).digest()
        if digest != content[-_DIGEST_SIZE:].tobytes():
            return None
        pixels = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError):  # missing, empty, or no array
        return None
    return StoredPixels(pixels, digest.hex()) if pixels.shape == shape else None


def _store(path: Path, shape: tuple[int, ...], batches: Iterable[Pixels]) -> None:
    """Writes an entry: readers and concurrent writers see either the whole one or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        digest = hashlib.sha256()
        for data in chain([_header(shape)], (batch.tobytes() for batch in batches)):
            digest.update(data)
            file.write(data)
        file.write(digest.digest())


def _in_memory(shape: tuple[int, ...], batches: Iterable[Pixels]) -> StoredPixels:
    pixels = np.empty(shape, np.uint8)
    start = 0
    for batch in batches:
        pixels[start : start + len(batch)] = batch
        start += len(batch)
    return StoredPixels(pixels, hashlib.sha256(_header(shape) + pixels.tobytes()).hexdigest())


def _header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()
