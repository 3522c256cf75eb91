"""Statistics of a batch over the rows of all processes (`run.sync_batch_norm`), so that batch norm normalizes alike.

total(x) = Σ_ranks x_rank        backward: the same sum of gradients
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor


class BatchStatistics(ABC):
    """Capability of a module that normalizes by statistics of the rows of a batch."""

    @abstractmethod
    def synchronize(self) -> None:
        """Take statistics in training over the rows of all processes from now on."""


def total(values: Tensor) -> Tensor:
    """Return the sum of a tensor over processes, which call this and its backward pass together."""
    summed: Tensor = _Total.apply(values)  # type: ignore[no-untyped-call]
    return summed


@final
class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(values: Tensor) -> Tensor:
    found = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(found)
    return found
