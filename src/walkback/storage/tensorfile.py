"""Tensors on disk, in the safetensors format: written atomically, read only after every check of the header.

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
from walkback.storage.files import write_bytes
from walkback.storage.tensorheader import DTYPES, Header, encode_metadata, opened, parse_header

_STORABLE = {name for name, _ in DTYPES.values()}


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and a JSON document to one file, atomically; equal content gives equal bytes.

    Tensors that share memory are stored separately, and come back that way.

    Raises:
        WalkbackError: The file cannot be written, or a tensor's type cannot be stored.
    """
    copies = {name: _copy(name, tensor) for name, tensor in tensors.items()}
    write_bytes(path, safetensors.torch.save(copies, encode_metadata(metadata)))


def read_tensors(
    path: Path, device: str | torch.device = "cpu", accept: Callable[[Header], object] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata document of a file.

    Args:
        path: The file.
        device: Of the tensors.
        accept: Called with the header before any tensor is read; refuses it by raising an exception.

    Raises:
        CheckpointError: The file cannot be read, or is anything but a whole file of this format.
    """
    with opened(path) as file:
        header = parse_header(file)
        if accept is not None:
            accept(header)
        file.seek(0)
        tensors = safetensors.torch.load(file.read())
    return {name: tensor.to(device) for name, tensor in tensors.items()}, dict(header.metadata)


def _copy(name: str, tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU: the format has neither strides nor shared memory."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in _STORABLE:
        raise WalkbackError(f"Got tensor {name!r} of type {dtype}, which cannot be stored; convert it first.")
    return tensor.detach().to("cpu", copy=True).contiguous()
