"""How a network learns its temperature and its label: from an embedding of them, in every layer, after its norm.

    e = MLP(log2 T, sin(ω_i log2 T), cos(ω_i log2 T)) + c_label,   c = 0 for no label

    film         (1 + a(e)) · x + b(e)        a, b linear in e, one of each for a channel of x
    embedding    x + b(e)
    none         x

The paper gives each step its own batch norm (`networks.norms`); feeding the temperature itself generalizes that to any
schedule.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from walkback.networks import Told

Conditioning: TypeAlias = Literal["film", "embedding", "none"]

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
class LabelEmbedding(nn.Module):
    """Class of each row `(B,)`, int64 → `(B, EMBEDDING)`, zero for -1.

    Args:
        classes: Number of classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(classes, EMBEDDING)

    def forward(self, label: Tensor) -> Tensor:
        """See the class."""
        embedding: Tensor = self.table(label.clamp(min=0)) * (label >= 0)[:, None]
        return embedding


def label_embedding(classes: int) -> LabelEmbedding | None:
    """The embedding of so many classes; None, and no weights, where there are none."""
    return LabelEmbedding(classes) if classes else None


def embedded(temperature: TemperatureEmbedding, labels: LabelEmbedding | None, told: Told) -> Tensor:
    """e of the module's equation, `(1, EMBEDDING)` or `(B, EMBEDDING)`."""
    embedding: Tensor = temperature(told.log2_temperature)
    if labels is None or told.label is None:
        return embedding
    label: Tensor = labels(told.label)
    return embedding + label


@final
class FiLM(nn.Module):
    """Scale and shift the channels of `(B, C, …)` by an embedding; the identity at initialization.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.affine = _zero_linear(2 * channels)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """See the module's equation."""
        scale, shift = (_over(part, features) for part in self.affine(embedding).chunk(2, dim=1))
        return torch.addcmul(shift + features, features, scale)


@final
class Shift(nn.Module):
    """Add a linear map of an embedding to the channels of `(B, C, …)`; the identity at initialization.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = _zero_linear(channels)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """See the module's equation."""
        return features + _over(self.linear(embedding), features)


@final
class Unconditioned(nn.Module):
    """Features as they are."""

    def forward(self, features: Tensor, embedding: Tensor | None) -> Tensor:
        """See the module's equation."""
        return features


def conditioner(kind: Conditioning, channels: int) -> nn.Module:
    """The module that tells features `(B, C, …)` their temperature and label."""
    if kind == "none":
        return Unconditioned()
    return FiLM(channels) if kind == "film" else Shift(channels)


def _zero_linear(size: int) -> nn.Linear:
    linear = nn.Linear(EMBEDDING, size)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _over(channels: Tensor, features: Tensor) -> Tensor:
    """`(B, C)` shaped to broadcast against features `(B, C, …)`."""
    return channels.reshape(*channels.shape, *(1,) * (features.dim() - 2))
