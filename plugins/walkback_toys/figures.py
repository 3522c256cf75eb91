"""2-D datasets: a Swiss roll, a circle, a mixture of Gaussians."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, final, get_args

import numpy as np
import numpy.typing as npt
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from typing_extensions import override

from walkback.data import Condition, Labelled, Split
from walkback.errors import ConfigurationError
from walkback_toys.plane import PlaneDataset, PlaneOptions, Points, figure_scale

_Arrangement: TypeAlias = Literal["ring", "grid"]

_MOST_MODES = 10_000


@final
class SwissRoll(PlaneDataset):
    """The spiral (t cos t, t sin t), t ~ U(3π/2, 9π/2), of scikit-learn's `make_swiss_roll`, with noise."""

    def __init__(
        self,
        *,
        noise: NonNegativeFloat = 0.05,
        scale: PositiveFloat = 1.0,
        num: PositiveInt = 10_000,
        num_held_out: PositiveInt = 2_000,
        seed: NonNegativeInt = 0,
    ) -> None:
        """Initializes the dataset.

        Args:
            noise: Standard deviation of the noise, across and along the spiral.
            scale: Root mean square standard deviation of the axes, noise included.
            num: Number of training points.
            num_held_out: Number of validation points, and of test points.
            seed: Seed of all points.

        Raises:
            ConfigurationError: `noise` is not below `scale`, or an option is out of range.
        """
        figure = figure_scale(scale, "noise", noise)
        steps = (f"swiss roll scaled to {scale:g} per axis", f"Gaussian noise of {noise:g}")
        super().__init__("swiss-roll", PlaneOptions(num, num_held_out, seed), steps, noise)
        self._noise = noise
        # E[t cos t] = 2 and E[t sin t] = 2 / 3π; the sum of the two variances is E[t²] minus the squares of these.
        low, high = 1.5 * math.pi, 4.5 * math.pi
        self._range = (low, high)
        self._centre = np.array([2.0, 2 / (3 * math.pi)])
        second_moment = (high**3 - low**3) / (3 * (high - low))
        self._factor = figure / math.sqrt((second_moment - float(self._centre @ self._centre)) / 2)

    @override
    def draw(self, count: int, rng: np.random.Generator) -> Points:
        t = rng.uniform(*self._range, size=count)
        spiral = t[:, None] * np.stack((np.cos(t), np.sin(t)), axis=1)
        points: Points = self._factor * (spiral - self._centre)
        return points + self._noise * rng.standard_normal((count, 2))


@final
class Circle(PlaneDataset):
    """A circle around 0 with Gaussian noise."""

    def __init__(
        self,
        *,
        noise: NonNegativeFloat = 0.05,
        scale: PositiveFloat = 1.0,
        num: PositiveInt = 10_000,
        num_held_out: PositiveInt = 2_000,
        seed: NonNegativeInt = 0,
    ) -> None:
        """Initializes the dataset.

        Args:
            noise: Standard deviation of the noise, per axis.
            scale: Root mean square standard deviation of the axes: radius² = 2 (scale² - noise²).
            num: Number of training points.
            num_held_out: Number of validation points, and of test points.
            seed: Seed of all points.

        Raises:
            ConfigurationError: `noise` is not below `scale`, or an option is out of range.
        """
        self._radius = math.sqrt(2) * figure_scale(scale, "noise", noise)
        steps = (f"circle of radius {self._radius:g}", f"Gaussian noise of {noise:g}")
        super().__init__("circle", PlaneOptions(num, num_held_out, seed), steps, noise)
        self._noise = noise

    @property
    def radius(self) -> float:
        """Returns the radius of the circle."""
        return self._radius

    @override
    def draw(self, count: int, rng: np.random.Generator) -> Points:
        angle = rng.uniform(0, 2 * math.pi, size=count)
        circle = self._radius * np.stack((np.cos(angle), np.sin(angle)), axis=1)
        return circle + self._noise * rng.standard_normal((count, 2))


@final
class Mog(PlaneDataset, Labelled):
    """A mixture of equally likely Gaussians with centers on a ring or a square grid; the modes are the classes."""

    def __init__(
        self,
        *,
        modes: PositiveInt = 8,
        arrangement: _Arrangement = "ring",
        std: PositiveFloat = 0.05,
        scale: PositiveFloat = 1.0,
        num: PositiveInt = 10_000,
        num_held_out: PositiveInt = 2_000,
        seed: NonNegativeInt = 0,
        condition: Condition = "none",
    ) -> None:
        """Initializes the dataset.

        Args:
            modes: Number of Gaussians, at least 2; a square number for a grid.
            arrangement: Whether the centers lie on a "ring" or on a "grid".
            std: Standard deviation of each Gaussian, per axis.
            scale: Root mean square standard deviation of the axes of the whole mixture.
            num: Number of training points.
            num_held_out: Number of validation points, and of test points.
            seed: Seed of all points.
            condition: Whether models are conditioned on the Gaussian that each point is drawn from ("label").

        Raises:
            ConfigurationError: `std` is not below `scale`, or an option is out of range.
        """
        unit = _unit_centres(modes, arrangement)
        self._centres = figure_scale(scale, "std", std) * unit
        self._std = std
        steps = (f"{modes} Gaussians of standard deviation {std:g} on a {arrangement}, {scale:g} per axis",)
        options = PlaneOptions(num, num_held_out, seed)
        super().__init__("mog", options, steps, std, condition)
        self._drawn = options

    @property
    def centres(self) -> Tensor:
        """Returns the means of the Gaussians, float32 `(modes, 2)`; available before `prepare`."""
        return torch.from_numpy(self._centres.astype(np.float32))

    @override
    def draw(self, count: int, rng: np.random.Generator) -> Points:
        mode = self._modes(count, rng)
        return self._centres[mode] + self._std * rng.standard_normal((count, 2))

    @property
    @override
    def classes(self) -> tuple[str, ...]:
        return tuple(str(mode) for mode in range(len(self._centres)))

    @override
    def labels(self, split: Split) -> Tensor:
        count = len(self.examples(split))
        # `draw` draws the modes before the noise, so they can be drawn again from a new generator instead of being
        # stored.
        return torch.from_numpy(self._modes(count, self._drawn.rng(split)))

    def _modes(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        return rng.integers(len(self._centres), size=count)


def _unit_centres(modes: int, arrangement: _Arrangement) -> Points:
    """Returns centers `(modes, 2)` around 0 whose two variances average 1."""
    if arrangement not in get_args(_Arrangement):
        raise ConfigurationError(f"Got data.arrangement = {arrangement!r}; expected ring or grid.")
    if modes > _MOST_MODES:
        raise ConfigurationError(f"Got data.modes = {modes}; expected at most {_MOST_MODES:,}.")
    side = math.isqrt(modes)
    if modes < 2 or (arrangement == "grid" and side**2 != modes):
        expected = "a square number such as 9 or 25" if arrangement == "grid" else "at least 2"
        raise ConfigurationError(f"Got data.modes = {modes} on a {arrangement}; expected {expected}.")
    if arrangement == "ring":
        angle = 2 * math.pi * np.arange(modes) / modes
        return math.sqrt(2) * np.stack((np.cos(angle), np.sin(angle)), axis=1)
    axis = np.arange(side) - (side - 1) / 2
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(modes, 2)
    return grid / math.sqrt((side**2 - 1) / 12)
