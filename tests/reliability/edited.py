"""Checkpoints of a tiny run, and copies of them with other values in their header and tensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tests.program import run

TINIEST = (
    *("--set", "operator.network.hidden=8", "--set", "samples.num=2", "--set", "samples.chains=2"),
    *("--set", "samples.chain_steps=1", "--set", "samples.chain_every=1"),
)

_EMPTY = "0" * 64
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def checkpoint(directory: Path, *options: str) -> Path:
    """The checkpoint of a run of two walks."""
    done = run(directory, *TINIEST, *options, steps=2)
    assert done.code == 0, done.err
    return directory / "final.safetensors"


def edited(
    source: Path,
    target: Path,
    values: Mapping[str, Any] | None = None,
    tensors: Mapping[str, tuple[Any, str]] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Path:
    """A copy of a checkpoint, written as any program could.

    Args:
        source: A whole checkpoint.
        target: Where the copy is written.
        values: New values of the document by path, with dots or slashes.
        tensors: A value that fills a tensor, and its type, by name.
        shapes: Other shapes of the same size, by name.
    """
    content = source.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    document = json.loads(header.pop("__metadata__")["walkback"])
    for path, value in (values or {}).items():
        *above, last = path.split("/" if "/" in path else ".")
        table = document
        for step in above:
            table = table[step]
        table[last] = value
    if "sha256" in document:
        document["sha256"] = _EMPTY
    parts = {name: data[slice(*entry["data_offsets"])] for name, entry in header.items()}
    for name, (value, dtype) in (tensors or {}).items():
        filled = np.full(header[name]["shape"], value, np.float64)
        with np.errstate(all="ignore"):
            parts[name] = filled.astype(_NUMPY[dtype]).tobytes()
        header[name]["dtype"] = dtype
    for name, shape in (shapes or {}).items():
        header[name]["shape"] = list(shape)
    offset = 0
    for name, part in parts.items():
        header[name]["data_offsets"] = [offset, offset + len(part)]
        offset += len(part)
    header["__metadata__"] = {
        "walkback": json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    content = len(text).to_bytes(8, "little") + text + b"".join(parts.values())
    # Whoever changes a file can change its digest too: that is how the checks behind it are reached.
    target.write_bytes(content.replace(_EMPTY.encode(), hashlib.sha256(content).hexdigest().encode(), 1))
    return target
