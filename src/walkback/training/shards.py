"""Tensors that are divided among processes (`run.shard`): whole ones for files, and parts of whole ones.

Files contain whole tensors, so that a run can be resumed with another number of processes, divided or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_divided(tensor: Tensor) -> TypeGuard[DTensor]:
    """Return whether processes hold parts of a tensor."""
    from torch.distributed.tensor import DTensor  # takes half a second, which checks of a run should not cost

    return isinstance(tensor, DTensor)


def part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, not a copy; the tensor itself if it is not divided."""
    return tensor.to_local() if is_divided(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with the parts of all processes, which call this together; itself if it is not divided."""
    return tensor.full_tensor() if is_divided(tensor) else tensor


def whole_on_main(tensors: Mapping[str, Tensor], is_main: bool) -> dict[str, Tensor]:
    """Return whole tensors, divided ones on the CPU, in the process that writes; an empty dictionary in others."""
    found = {}
    # One tensor at a time, because together they may not fit one device; and in the same order by all processes, which
    # that of moments read from a file is not.
    for name, tensor in sorted(tensors.items()):
        entire = whole(tensor)
        if is_main:
            found[name] = entire.cpu() if is_divided(tensor) else entire
    return found


def divided_like(references: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Divide those tensors whose namesakes in `references` are divided; every process has all of `tensors`."""
    return {name: _like(references.get(name), tensor) for name, tensor in tensors.items()}


def _like(reference: Tensor | None, tensor: Tensor) -> Tensor:
    from torch.distributed.tensor import distribute_tensor

    if reference is None or not is_divided(reference) or reference.shape != tensor.shape:
        return tensor  # loading it reports the difference
    return distribute_tensor(tensor, reference.device_mesh, reference.placements, src_data_rank=None)
