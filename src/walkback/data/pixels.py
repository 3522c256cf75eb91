"""Conversion of stored gray levels v = 0 … L - 1 to states.

x = (v + u) / L,   u ~ U[0, 1)       dequantized: the density of x bounds the probability of v
x = v / (L - 1)                      not dequantized: a grid, on which densities are meaningless
x = 1 if v / (L - 1) ≥ ½ else 0      binarized at the middle
x ~ Bernoulli(v / (L - 1))           binarized at random, with new draws each time
x + ω ε,   ε ~ N(0, 1)               smoothed: the density no longer bounds the probability of gray levels

A step of an operator adds noise σ in every direction, so the distribution of its chain has at least that spread in
every direction. So have data smoothed by ω = σ, but not raw gray levels with a constant background.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, final, get_args

import torch
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.state import Support

Binarize: TypeAlias = Literal["none", "threshold", "stochastic"]


@final
@dataclass(frozen=True, slots=True)
class GrayLevels:
    """How stored gray levels become states in [0, 1].

    Attributes:
        binarize: Whether and how states are binarized.
        dequantize: Whether uniform noise within a level is added to real states.
        levels: L, the number of levels.
        noise: ω, standard deviation of the Gaussian noise added to real states, in their units.

    Raises:
        ConfigurationError: `binarize` is unknown, or `noise` is negative or given for binary states.
    """

    binarize: Binarize = "none"
    dequantize: bool = True
    levels: int = 256
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.binarize not in get_args(Binarize):
            expected = ", ".join(get_args(Binarize))
            raise ConfigurationError(f"Got data.binarize = {self.binarize!r}; expected one of {expected}.")
        if not (0 <= self.noise < math.inf):
            raise ConfigurationError(f"Got data.noise = {self.noise!r}; expected a number of at least 0.")
        if self.noise and self.binarize != "none":
            raise ConfigurationError(
                f"data.noise = {self.noise} cannot be added to binary states (data.binarize = {self.binarize!r}): "
                "leave one of them out."
            )

    @property
    def support(self) -> Support:
        """The support of the states: "binary" if they are binarized, else "real"."""
        return "real" if self.binarize == "none" else "binary"

    @property
    def bins(self) -> int | None:
        """L if states are dequantized and not smoothed, else None; see `DataInfo.bins`."""
        exact = self.binarize == "none" and self.dequantize and not self.noise
        return self.levels if exact else None

    @property
    def step(self) -> str:
        """Description of the conversion, for `DataInfo.preprocessing`."""
        if self.binarize == "threshold":
            return f"binarized: 1 where v >= {self.levels // 2}"
        if self.binarize == "stochastic":
            return f"binarized anew each time: 1 with probability v / {self.levels - 1}"
        smoothed = f", then Gaussian noise of {self.noise:g}" if self.noise else ""
        if self.dequantize:
            return f"dequantized: (v + u) / {self.levels}, u ~ U[0, 1){smoothed}"
        return f"scaled: v / {self.levels - 1}{smoothed}"

    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Make states `(B, *E)`, float32, on the generator's device, from stored levels `(B, *E)`."""
        values = rows.to(generator.device)
        if self.binarize == "threshold":
            return (values >= self.levels // 2).float()
        values = values.float()
        if self.binarize == "none" and not self.dequantize:
            return self._smoothed(values / (self.levels - 1), generator)
        uniform = torch.rand(values.shape, generator=generator, device=generator.device)
        if self.binarize == "stochastic":
            return (uniform < values / (self.levels - 1)).float()
        return self._smoothed((values + uniform) / self.levels, generator)

    def centres(self, rows: Tensor) -> Tensor:
        """Return the mean of `states` over all noise, `(B, *E)`, float32, on the device of the rows."""
        values = rows.float()
        if self.binarize == "threshold":
            return (values >= self.levels // 2).float()
        if self.binarize == "none" and self.dequantize:
            return (values + 0.5) / self.levels
        return values / (self.levels - 1)

    def _smoothed(self, states: Tensor, generator: torch.Generator) -> Tensor:
        if not self.noise:
            return states
        return states + self.noise * torch.randn(states.shape, generator=generator, device=generator.device)
