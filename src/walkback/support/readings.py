"""Tensors on a device as Python numbers, without waiting for the device each time."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor


@final
class Numbers:
    """Reads two one-element buffers as Python floats, only after one of them has changed and not in every walk."""

    def __init__(self) -> None:
        self._known: tuple[tuple[Tensor, Tensor], tuple[int, int], tuple[float, float]] | None = None

    def __call__(self, a: Tensor, b: Tensor) -> tuple[float, float]:
        """Returns both. In-place writes are detected by `_version`, `Module.to` by the identity of the tensors."""
        versions = a._version, b._version
        known = self._known
        if known is None or known[0][0] is not a or known[0][1] is not b or known[1] != versions:
            first, second = torch.stack([a.flatten()[0], b.flatten()[0]]).tolist()
            self._known = known = (a, b), versions, (first, second)
        return known[2]
