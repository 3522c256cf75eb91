"""Real handwritten digits, 8×8 pixels of 17 grey levels (Alpaydin and Kaynak, 1998), shipped by scikit-learn.

Pixels v = 0..16 become states in [0, 1]:

    x = (v + u) / 17, u ~ U[0, 1)     dequantized
    x = 1 if v ≥ 8 else 0             binarized at the middle
    x ~ Bernoulli(v / 16)             binarized at random, anew each time
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal, TypeAlias, final, get_args

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from typing_extensions import override

from walkback.data import SPLITS, DataInfo, Dataset, Split
from walkback.errors import ConfigurationError, DataError

Binarize: TypeAlias = Literal["none", "threshold", "stochastic"]

_LEVELS = 17
_HELD_OUT = 250
_STEPS: Mapping[Binarize, str] = {
    "none": "dequantized: (v + u) / 17, u ~ U[0, 1)",
    "threshold": "binarized: 1 where v >= 8",
    "stochastic": "binarized anew each time: 1 with probability v / 16",
}


@final
class Digits(Dataset):
    """1,297 digits to train on, 250 for validation and 250 for test, every class in its share.

    Of the digits sorted by class (and then as they come), 500 evenly spaced ones are held out, for validation
    and for test in turn.
    """

    def __init__(self, *, binarize: Binarize = "none") -> None:
        """Configure the data.

        Args:
            binarize: "threshold" at half ink, or "stochastic", with probability v / 16.

        Raises:
            ConfigurationError: `binarize` is none of these.
        """
        if binarize not in get_args(Binarize):
            expected = ", ".join(get_args(Binarize))
            raise ConfigurationError(f"Got data.binarize = {binarize!r}; expected one of {expected}.")
        self._binarize = binarize
        self._pixels: Mapping[Split, Tensor] | None = None

    @override
    def prepare(self) -> None:
        if self._pixels is None:
            digits = load_digits()
            pixels = torch.from_numpy(digits.images.astype(np.uint8)).unsqueeze(1)
            self._pixels = {split: pixels[rows] for split, rows in _split_rows(digits.target).items()}

    @property
    @override
    def info(self) -> DataInfo:
        pixels = self._require()
        steps = ("held out: 500 evenly spaced of the digits sorted by class", _STEPS[self._binarize])
        content = hashlib.sha256("\n".join(steps).encode())
        for split in SPLITS:
            content.update(pixels[split].numpy().tobytes())
        return DataInfo(
            name="digits",
            shape=(1, 8, 8),
            support="real" if self._binarize == "none" else "binary",
            bins=_LEVELS if self._binarize == "none" else None,
            preprocessing=steps,
            splits={split: len(pixels[split]) for split in SPLITS},
            fingerprint=content.hexdigest()[:16],
        )

    @override
    def examples(self, split: Split) -> Tensor:
        return self._require()[split]

    @override
    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        values = rows.to(generator.device).float()
        if self._binarize == "threshold":
            return (values >= 8).float()
        noise = torch.rand(values.shape, generator=generator, device=generator.device)
        if self._binarize == "stochastic":
            return (noise < values / 16).float()
        return (values + noise) / _LEVELS

    def _require(self) -> Mapping[Split, Tensor]:
        if self._pixels is None:
            raise DataError("Got data 'digits' that is not prepared; call prepare() first.")
        return self._pixels


def _split_rows(classes: np.ndarray) -> Mapping[Split, Tensor]:
    """Rows of each split, in ascending order."""
    by_class = np.argsort(classes, kind="stable")
    held_out = by_class[(2 * np.arange(2 * _HELD_OUT) + 1) * len(classes) // (4 * _HELD_OUT)]
    validation, test = np.sort(held_out[::2]), np.sort(held_out[1::2])
    train = np.setdiff1d(by_class, held_out)
    rows = {"train": train, "validation": validation, "test": test}
    return {split: torch.from_numpy(rows[split]) for split in SPLITS}
