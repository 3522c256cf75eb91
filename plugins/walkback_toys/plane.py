"""2-D datasets: real-valued points in the plane, float32 `(N, 2)`, without gray levels.

Every dataset is centered and scaled so that, in the population, the variances of its two axes average `scale`² (root
mean square standard deviation `scale`, by default 1), noise included. Lengths in options refer to the final, scaled
data.
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from walkback.data import SPLITS, Condition, DataInfo, Dataset, Split, conditioned
from walkback.errors import ConfigurationError, DataError

Points: TypeAlias = npt.NDArray[np.float64]

_MOST_POINTS = 10_000_000
"""Largest number of points of a split; they are held in memory."""


@dataclass(frozen=True, slots=True)
class PlaneOptions:
    """Number of points (for training; for validation and test each) and their seed."""

    num: int
    num_held_out: int
    seed: int

    def __post_init__(self) -> None:
        for name, value in (("num", self.num), ("num_held_out", self.num_held_out)):
            if not 1 <= value <= _MOST_POINTS:
                raise ConfigurationError(f"Got data.{name} = {value}; expected 1 to {_MOST_POINTS:,} points.")
        if self.seed < 0:
            raise ConfigurationError(f"Got data.seed = {self.seed}; expected 0 or more.")

    def count(self, split: Split) -> int:
        """Returns the number of points of a split."""
        return self.num if split == "train" else self.num_held_out

    def rng(self, split: Split) -> np.random.Generator:
        """Returns the generator for the points of a split, a new one for each call."""
        seeds = np.random.SeedSequence(self.seed).spawn(len(SPLITS))
        return np.random.default_rng(seeds[SPLITS.index(split)])


class PlaneDataset(Dataset):
    """Points drawn from a density in the plane."""

    def __init__(
        self,
        name: str,
        options: PlaneOptions,
        steps: tuple[str, ...],
        noise: float,
        condition: Condition = "none",
    ) -> None:
        """Describes the data, with the standard deviation of their noise per axis; `prepare` draws the points."""
        self._name = name
        self._condition: Condition = condition
        self._options = options
        self._steps = steps
        self._smoothed = noise
        self._points: Mapping[Split, Tensor] | None = None

    @abstractmethod
    def draw(self, count: int, rng: np.random.Generator) -> Points:
        """Draws independent points `(count, 2)`."""

    @override
    def prepare(self) -> None:
        if self._points is None:
            self._points = {
                split: torch.from_numpy(
                    self.draw(self._options.count(split), self._options.rng(split)).astype(np.float32)
                )
                for split in SPLITS
            }

    @property
    @override
    def info(self) -> DataInfo:
        points = self._require()
        content = hashlib.sha256("\n".join(self._steps).encode())
        for split in SPLITS:
            content.update(points[split].numpy().tobytes())
        info = DataInfo(
            name=self._name,
            shape=(2,),
            preprocessing=self._steps,
            noise=self._smoothed,
            splits={split: len(points[split]) for split in SPLITS},
            fingerprint=content.hexdigest()[:16],
        )
        return conditioned(info, self, self._condition)

    @override
    def examples(self, split: Split) -> Tensor:
        return self._require()[split]

    @override
    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return rows.to(generator.device)

    def _require(self) -> Mapping[Split, Tensor]:
        if self._points is None:
            raise DataError(f"Got data {self._name!r} that is not prepared; call prepare() first.")
        return self._points


def figure_scale(scale: float, name: str, noise: float) -> float:
    """Returns the root mean square standard deviation that a figure needs to have `scale` after noise is added.

    Args:
        scale: Root mean square standard deviation of the data.
        name: Name of the option that holds `noise`.
        noise: Standard deviation of the noise, per axis.

    Raises:
        ConfigurationError: The noise is not below the scale.
    """
    if not 0 <= noise < scale:
        raise ConfigurationError(
            f"Got data.{name} = {noise:g} and data.scale = {scale:g}; expected 0 ≤ {name} < scale."
        )
    return math.sqrt(scale**2 - noise**2)
