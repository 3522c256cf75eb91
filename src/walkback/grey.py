"""From stored grey levels v = 0 … L - 1 to states.

x = (v + u) / L,   u ~ U[0, 1)       dequantized: the density of x bounds the probability of v
x = v / (L - 1)                      not dequantized: a grid, on which densities mean nothing
x = 1 if v / (L - 1) ≥ ½ else 0      binarized at the middle
x ~ Bernoulli(v / (L - 1))           binarized at random, anew each time
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, final, get_args

import torch
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.state import Support

Binarize: TypeAlias = Literal["none", "threshold", "stochastic"]


@final
@dataclass(frozen=True, slots=True)
class GreyLevels:
    """How stored grey levels become states in [0, 1].

    Attributes:
        binarize: Whether, and how, states are binary.
        dequantize: Whether real states get uniform noise within their level.
        levels: L, the number of levels.

    Raises:
        ConfigurationError: `binarize` is none of the three.
    """

    binarize: Binarize = "none"
    dequantize: bool = True
    levels: int = 256

    def __post_init__(self) -> None:
        if self.binarize not in get_args(Binarize):
            expected = ", ".join(get_args(Binarize))
            raise ConfigurationError(f"Got data.binarize = {self.binarize!r}; expected one of {expected}.")

    @property
    def support(self) -> Support:
        """The support of the states: "binary" where they are binarized."""
        return "real" if self.binarize == "none" else "binary"

    @property
    def bins(self) -> int | None:
        """L where states are dequantized, see `DataInfo.bins`."""
        return self.levels if self.binarize == "none" and self.dequantize else None

    @property
    def step(self) -> str:
        """The rule in words, for `DataInfo.preprocessing`."""
        if self.binarize == "threshold":
            return f"binarized: 1 where v >= {self.levels // 2}"
        if self.binarize == "stochastic":
            return f"binarized anew each time: 1 with probability v / {self.levels - 1}"
        if self.dequantize:
            return f"dequantized: (v + u) / {self.levels}, u ~ U[0, 1)"
        return f"scaled: v / {self.levels - 1}"

    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """States `(B, *E)`, float32, on the generator's device, from stored levels `(B, *E)`."""
        values = rows.to(generator.device)
        if self.binarize == "threshold":
            return (values >= self.levels // 2).float()
        values = values.float()
        if self.binarize == "none" and not self.dequantize:
            return values / (self.levels - 1)
        noise = torch.rand(values.shape, generator=generator, device=generator.device)
        if self.binarize == "stochastic":
            return (noise < values / (self.levels - 1)).float()
        return (values + noise) / self.levels
