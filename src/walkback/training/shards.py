"""Tensors that are divided among processes (`run.shard`): whole ones for files, and parts of whole ones.

Files contain whole tensors, so that a run can be resumed with another number of processes, divided or not.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, not a copy; the tensor itself if it is not divided."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with the parts of all processes, which call this together; itself if it is not divided."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_on_main(tensors: Mapping[str, Tensor], is_main: bool) -> dict[str, Tensor]:
    """Return whole tensors, divided ones on the CPU, in the process that writes; an empty dictionary in others."""
    found = {}
    for name, tensor in tensors.items():
        entire = whole(tensor)  # by all processes, one tensor at a time: together they may not fit one device
        if is_main:
            found[name] = entire.cpu() if isinstance(tensor, DTensor) else entire
    return found


def divided_like(references: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Divide those tensors whose namesakes in `references` are divided; every process has all of `tensors`."""
    return {name: _like(references.get(name), tensor) for name, tensor in tensors.items()}


def _like(reference: Tensor | None, tensor: Tensor) -> Tensor:
    if not isinstance(reference, DTensor) or reference.shape != tensor.shape:
        return tensor  # loading it reports the difference
    return distribute_tensor(tensor, reference.device_mesh, reference.placements, src_data_rank=None)
