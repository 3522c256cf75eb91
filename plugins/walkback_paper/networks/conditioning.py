"""How a network learns its temperature: an embedding of log2 T that scales and shifts features (FiLM).

    e = MLP(log2 T, sin(ω_i log2 T), cos(ω_i log2 T))        FiLM(x) = (1 + a(e)) · x + b(e)

The paper gives each step its own batch norm; feeding the temperature itself generalizes that to any schedule.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

EMBEDDING = 64


@final
class TemperatureEmbedding(nn.Module):
    """log2 T `(B,)` or `(1,)` → `(B, EMBEDDING)` or `(1, EMBEDDING)`."""

    frequencies: Tensor

    def __init__(self, num_frequencies: int = 8) -> None:
        super().__init__()
        # Periods from one doubling to far beyond the longest schedule.
        periods = torch.logspace(0, math.log2(64), num_frequencies, base=2)
        self.register_buffer("frequencies", 2 * math.pi / periods, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * num_frequencies + 1, EMBEDDING),
            nn.SiLU(),
            nn.Linear(EMBEDDING, EMBEDDING),
            nn.SiLU(),
        )

    def forward(self, log2_temperature: Tensor) -> Tensor:
        """See the class."""
        column = log2_temperature[:, None]
        angles = column * self.frequencies
        features = torch.cat([column / 8, angles.sin(), angles.cos()], dim=1)
        embedding: Tensor = self.layers(features)
        return embedding


@final
class FiLM(nn.Module):
    """Scale and shift the channels of `(B, C, …)` by an embedding; the identity at initialization.

    Args:
        channels: C.
        conditioned: Whether there is an embedding; without one there are no weights.
    """

    def __init__(self, channels: int, conditioned: bool) -> None:
        super().__init__()
        self.affine = nn.Linear(EMBEDDING, 2 * channels) if conditioned else None
        if self.affine is not None:
            nn.init.zeros_(self.affine.weight)
            nn.init.zeros_(self.affine.bias)

    def forward(self, features: Tensor, embedding: Tensor | None) -> Tensor:
        """Features unchanged where there is no embedding."""
        if embedding is None or self.affine is None:
            return features
        scale, shift = self.affine(embedding).chunk(2, dim=1)
        ones = (1,) * (features.dim() - 2)
        scale, shift = scale.reshape(*scale.shape, *ones), shift.reshape(*shift.shape, *ones)
        return torch.addcmul(shift + features, features, scale)
