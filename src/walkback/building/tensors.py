"""A tensor as a dataset: its rows in a fixed random order, a tenth for validation and a tenth for testing.

float     states as they are
bool      binary states
uint8     gray levels v = 0 … 255, dequantized: (v + u) / 256, u ~ U[0, 1); of 0 and 1 alone, two levels: (v + u) / 2
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from walkback.data import SPLITS, Centred, DataInfo, Dataset, Split
from walkback.data.pixels import GrayLevels
from walkback.errors import DataError
from walkback.report import FEWEST
from walkback.support.seeding import generator

_CHANNELS = (1, 3, 4)  # of images: gray, color, color with transparency
_FEWEST = 3 * FEWEST  # so many in each split, which a standard error needs


@final
class TensorData(Dataset, Centred):
    """Examples `(N, *E)` in memory. Splits do not depend on the run's seed.

    Args:
        rows: At least 12 examples, finite; copied to the CPU.
        name: For protocols.

    Raises:
        DataError: They are too few, have no event dimension, are of another type, not finite, or seem to be images
            whose channels are last.
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
        _require_channels_first(rows)
        stored = rows.detach().to("cpu")
        stored = stored.float() if stored.is_floating_point() else stored.to(torch.uint8)
        self._name = name
        self._binary = rows.dtype is torch.bool
        self._grey = (
            GrayLevels(levels=256 if int(stored.max()) > 1 else 2) if rows.dtype is torch.uint8 else None
        )
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


def _require_channels_first(rows: Tensor) -> None:
    """Reject `(N, H, W, C)`, which would silently be interpreted as H channels of W × C pixels."""
    if rows.dim() != 4 or rows.shape[1] in _CHANNELS or rows.shape[3] not in _CHANNELS:
        return
    wide = min(rows.shape[1:3]) > rows.shape[3]
    if wide and (not rows.is_floating_point() or _like_pixels(rows)):
        raise DataError(
            f"Got a tensor of shape {tuple(rows.shape)} as data, which look like images with their channels last, "
            "expected (N, C, H, W): pass data.permute(0, 3, 1, 2), or data.flatten(1) if they are no images."
        )


def _like_pixels(rows: Tensor) -> bool:
    """Whether floats lie as pixels do: in [0, 1], in [-1, 1] with either end near, or whole numbers up to 255."""
    low, high = float(rows.min()), float(rows.max())
    if low >= -1 and high <= 1:
        return low >= 0 or min(-low, high) > 0.9
    return low >= 0 and high <= 255 and bool((rows == rows.round()).all())
