"""A tensor as a data set: its rows, shuffled once and for all, a tenth for validation and a tenth for test.

float     states as they are
bool      binary states
uint8     grey levels v = 0 … 255, dequantized: (v + u) / 256, u ~ U[0, 1)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from walkback.data import SPLITS, Centred, DataInfo, Dataset, Split
from walkback.errors import DataError
from walkback.measuring.estimates import FEWEST
from walkback.pixels import GreyLevels
from walkback.support.seeding import generator

_FEWEST = 3 * FEWEST  # so many in each split, which a standard error needs


@final
class TensorData(Dataset, Centred):
    """Examples `(N, *E)` in memory. Splits do not depend on the run's seed.

    Args:
        rows: At least 12 examples, finite; copied to the CPU.
        name: For protocols.

    Raises:
        DataError: They are too few, have no event dimension, are of another type, or not finite.
    """

    def __init__(self, rows: Tensor, name: str = "tensor") -> None:
        if rows.dim() < 2 or len(rows) < _FEWEST or not rows.numel():
            raise DataError(
                f"Got a tensor of shape {tuple(rows.shape)} as data, expected (N, *E) with N >= {_FEWEST}."
            )
        if not (rows.is_floating_point() or rows.dtype in (torch.bool, torch.uint8)):
            raise DataError(f"Got a tensor of {rows.dtype} as data, expected floats, uint8 or bool.")
        if not bool(rows.isfinite().all()):
            raise DataError("Got a tensor with NaN or infinity as data, expected finite numbers.")
        stored = rows.detach().to("cpu")
        stored = stored.float() if stored.is_floating_point() else stored.to(torch.uint8)
        self._name = name
        self._binary = rows.dtype is torch.bool
        self._grey = GreyLevels() if rows.dtype is torch.uint8 else None
        order = torch.randperm(len(stored), generator=generator("cpu", 0, "tensor-splits"))
        held_out = max(FEWEST, len(stored) // 10)
        parts = torch.split(order, [len(stored) - 2 * held_out, held_out, held_out])
        self._examples: Mapping[Split, Tensor] = {
            split: stored[part] for split, part in zip(SPLITS, parts, strict=True)
        }
        self._info = self._describe()

    @override
    def prepare(self) -> None:
        """Nothing to do."""

    @property
    @override
    def info(self) -> DataInfo:
        return self._info

    def _describe(self) -> DataInfo:
        split = "held out: a random tenth for validation, another for test"
        steps = (split,) if self._grey is None else (split, self._grey.step)
        content = hashlib.sha256("\n".join((*steps, str(self._binary))).encode())
        for rows in self._examples.values():
            content.update(str(tuple(rows.shape)).encode())
            content.update(rows.contiguous().numpy().tobytes())
        return DataInfo(
            name=self._name,
            shape=tuple(self._examples["train"].shape[1:]),
            support="binary" if self._binary else "real",
            bins=None if self._grey is None else self._grey.bins,
            preprocessing=steps,
            splits={split: len(rows) for split, rows in self._examples.items()},
            fingerprint=content.hexdigest()[:16],
        )

    @override
    def examples(self, split: Split) -> Tensor:
        return self._examples[split]

    @override
    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        if self._grey is not None:
            return self._grey.states(rows, generator)
        return rows.to(generator.device).float()

    @override
    def centres(self, rows: Tensor) -> Tensor:
        return rows.float() if self._grey is None else self._grey.centres(rows)
