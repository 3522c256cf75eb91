"""Tensors on disk in the safetensors format: written atomically, and read only after checking the header.

The safetensors package parses bytes in memory: with its memory-mapped reader, a file that is truncated later would
kill the process. Input that the package accepts but should not (duplicate keys, huge headers, overflowing shapes) is
rejected first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.storage.files import write_atomic
from walkback.storage.migrations import FileKind
from walkback.storage.tensorheader import (
    DTYPES,
    Header,
    Malformed,
    encode_metadata,
    opened,
    parse_header,
    require_intact,
    sealed,
    unsealed,
)

_STORABLE = {name for name, _ in DTYPES.values()}


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors, a JSON document and a digest of both to one file, atomically; equal content gives equal bytes.

    Tensors that share memory are stored separately, and no longer share it when they are read.

    Raises:
        WalkbackError: The file cannot be written, or a tensor's type cannot be stored.
    """
    copies = {name: _copy(name, tensor) for name, tensor in tensors.items()}
    pieces = sealed(safetensors.torch.save(copies, encode_metadata(unsealed(metadata))))
    write_atomic(path, lambda file: file.writelines(pieces))


def read_tensors(
    path: Path,
    device: str | torch.device = "cpu",
    *,
    kind: FileKind | None = None,
    accept: Callable[[Header], object] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the metadata document of a file, after verifying its digest.

    Args:
        path: The file.
        device: Device of the tensors.
        kind: Kind of the file, which determines from which format on a digest is required; None never requires one.
        accept: Called with the header before any tensor is created; may reject it by raising an exception.

    Raises:
        CheckpointError: The file cannot be read, is damaged, or is not of this format.
    """
    with opened(path) as file:
        header = parse_header(file)
        if header.digest is None and kind is not None and kind.requires_digest(header.metadata):
            raise Malformed("has no digest: it is damaged, or was changed after it was written")
        file.seek(0)
        content = file.read()
        if header.digest is not None:
            require_intact(content, header.digest)
        if accept is not None:
            accept(header)
        tensors = safetensors.torch.load(content)
    return {name: tensor.to(device) for name, tensor in tensors.items()}, dict(header.metadata)


def _copy(name: str, tensor: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU: the format has neither strides nor shared memory."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in _STORABLE:
        raise WalkbackError(f"Got tensor {name!r} of type {dtype}, which cannot be stored; convert it first.")
    return tensor.detach().to("cpu", copy=True).contiguous()
