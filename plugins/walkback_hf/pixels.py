"""From stored grey levels to states.

x = (v + u) / 256, u ~ U[0, 1)     dequantized: the density of x bounds the probability of v
x = v / 255                        not dequantized: a grid, on which densities mean nothing
x = 1 if v ≥ 128 else 0            binarized at the middle
x ~ Bernoulli(v / 255)             binarized at random, anew each time
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
class PixelStates:
    """How uint8 pixels become states in [0, 1]; `dequantize` plays no part where pixels are binarized."""

    binarize: Binarize = "none"
    dequantize: bool = True

    def __post_init__(self) -> None:
        if self.binarize not in get_args(Binarize):
            expected = ", ".join(get_args(Binarize))
            raise ConfigurationError(f"Got data.binarize = {self.binarize!r}; expected one of {expected}.")

    @property
    def support(self) -> Support:
        """The support of the states: "binary" where pixels are binarized."""
        return "real" if self.binarize == "none" else "binary"

    @property
    def bins(self) -> int | None:
        """256 where pixels are dequantized."""
        return 256 if self.binarize == "none" and self.dequantize else None

    @property
    def step(self) -> str:
        """The rule in words."""
        if self.binarize == "threshold":
            return "binarized: 1 where v >= 128"
        if self.binarize == "stochastic":
            return "binarized anew each time: 1 with probability v / 255"
        return "dequantized: (v + u) / 256, u ~ U[0, 1)" if self.dequantize else "scaled: v / 255"

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """States `(B, *E)`, float32, on the generator's device, from pixels `(B, *E)`."""
        values = rows.to(generator.device)
        if self.binarize == "threshold":
            return (values >= 128).float()
        values = values.float()
        if self.binarize == "none" and not self.dequantize:
            return values / 255
        noise = torch.rand(values.shape, generator=generator, device=generator.device)
        if self.binarize == "stochastic":
            return (noise < values / 255).float()
        return (values + noise) / 256
