"""Real handwritten digits, 8×8 pixels of 17 gray levels (Alpaydin and Kaynak, 1998), shipped by scikit-learn.

Pixels v = 0..16 become states in [0, 1] by the rules of `walkback.data.pixels`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from pydantic import NonNegativeFloat
from sklearn.datasets import load_digits
from torch import Tensor
from typing_extensions import override

from walkback.data import SPLITS, Centred, Condition, DataInfo, Dataset, Labelled, Split, conditioned
from walkback.data.pixels import Binarize, GrayLevels
from walkback.errors import DataError

_HELD_OUT = 250


@final
class Digits(Dataset, Centred, Labelled):
    """1,297 digits for training, 250 for validation and 250 for test, stratified by class.

    Sorted by class (in stable order), 500 evenly spaced digits are held out, alternately for validation and test.
    """

    def __init__(
        self, *, binarize: Binarize = "none", noise: NonNegativeFloat = 0.0, condition: Condition = "none"
    ) -> None:
        """Configure the data.

        Args:
            binarize: "threshold" at half of the largest gray level, or "stochastic" with probability v / 16.
            noise: Standard deviation of Gaussian noise added to states in [0, 1]; bits/dim are then undefined.
            condition: Whether models are conditioned on the class of each digit ("label").

        Raises:
            ConfigurationError: `binarize` has another value, or noise is added to binary states.
        """
        self._grey = GrayLevels(binarize, levels=17, noise=noise)
        self._condition: Condition = condition
        self._pixels: Mapping[Split, Tensor] | None = None
        self._labels: Mapping[Split, Tensor] = {}

    @override
    def prepare(self) -> None:
        if self._pixels is None:
            digits = load_digits()
            pixels = torch.from_numpy(digits.images.astype(np.uint8)).unsqueeze(1)
            labels = torch.from_numpy(digits.target.astype(np.int64))
            rows = _split_rows(digits.target)
            self._labels = {split: labels[rows[split]] for split in SPLITS}
            self._pixels = {split: pixels[rows[split]] for split in SPLITS}

    @property
    @override
    def info(self) -> DataInfo:
        pixels = self._require()
        steps = ("held out: 500 evenly spaced of the digits sorted by class", self._grey.step)
        content = hashlib.sha256("\n".join(steps).encode())
        for split in SPLITS:
            content.update(pixels[split].numpy().tobytes())
        info = DataInfo(
            name="digits",
            shape=(1, 8, 8),
            support=self._grey.support,
            bins=self._grey.bins,
            noise=self._grey.noise,
            preprocessing=steps,
            splits={split: len(pixels[split]) for split in SPLITS},
            fingerprint=content.hexdigest()[:16],
        )
        return conditioned(info, self, self._condition)

    @override
    def examples(self, split: Split) -> Tensor:
        return self._require()[split]

    @override
    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self._grey.states(rows, generator)

    @override
    def centres(self, rows: Tensor) -> Tensor:
        return self._grey.centres(rows)

    @property
    @override
    def classes(self) -> tuple[str, ...]:
        return tuple("0123456789")

    @override
    def labels(self, split: Split) -> Tensor:
        self._require()
        return self._labels[split]

    def _require(self) -> Mapping[Split, Tensor]:
        if self._pixels is None:
            raise DataError("Got data 'digits' that is not prepared; call prepare() first.")
        return self._pixels


def _split_rows(classes: np.ndarray) -> Mapping[Split, Tensor]:
    """Returns the rows of each split in ascending order."""
    by_class = np.argsort(classes, kind="stable")
    held_out = by_class[(2 * np.arange(2 * _HELD_OUT) + 1) * len(classes) // (4 * _HELD_OUT)]
    validation, test = np.sort(held_out[::2]), np.sort(held_out[1::2])
    train = np.setdiff1d(by_class, held_out)
    rows = {"train": train, "validation": validation, "test": test}
    return {split: torch.from_numpy(rows[split]) for split in SPLITS}
