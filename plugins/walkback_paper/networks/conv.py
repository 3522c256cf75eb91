"""The paper's convolutional encoder-decoder (appendix E, Tables 2 to 5), adapted to the size of the image.

    5×5 stride-2 convolutions → fully connected bottleneck → mirrored 5×5 stride-2 transposed convolutions

The encoder and the first three fully connected layers are shared; each head (mean, variance) has its own last two
fully connected layers and its own transposed convolutions. Tables: 28×28×1 has two convolutions (16, 32) and
1568·1024 units, 32×32×3 three (64, 128, 256) and 4096·2048, 64×64×3 three and 16384·1024.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, final

from torch import Tensor, nn
from torch.nn.functional import relu

from walkback.errors import ConfigurationError
from walkback_paper.networks.conditioning import FiLM, TemperatureEmbedding

Norm: TypeAlias = Literal["batch", "group", "none"]


def table_channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Feature maps of the paper's encoder for images `(C, H, W)`: (16, 32) for grey ones, else (64, 128, 256)."""
    return (16, 32) if shape[0] == 1 else (64, 128, 256)


def table_width(shape: tuple[int, ...]) -> int:
    """Width of the fully connected layers: 2048 for 32×32×3 (Table 4, CIFAR-10), else 1024."""
    return 2048 if shape == (3, 32, 32) else 1024


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(math.gcd(channels, 8), channels)
    return nn.Identity()


def _norm_flat(kind: Norm, width: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm1d(width)
    return nn.LayerNorm(width) if kind == "group" else nn.Identity()


@final
class _Layer(nn.Module):
    """Linear map, norm, FiLM, ReLU."""

    def __init__(self, linear: nn.Module, norm: nn.Module, channels: int, conditioned: bool) -> None:
        super().__init__()
        self.linear = linear
        self.norm = norm
        self.film = FiLM(channels, conditioned)

    def forward(self, features: Tensor, embedding: Tensor | None) -> Tensor:
        return relu(self.film(self.norm(self.linear(features)), embedding))


@final
class _Decoder(nn.Module):
    """One head: two fully connected layers, then transposed convolutions back to the image."""

    def __init__(
        self,
        shape: tuple[int, ...],
        sizes: list[tuple[int, int, int]],
        width: int,
        norm: Norm,
        conditioned: bool,
    ) -> None:
        super().__init__()
        self.small = sizes[-1]
        flat = math.prod(self.small)
        self.dense = nn.ModuleList(
            [
                _Layer(nn.Linear(width, width), _norm_flat(norm, width), width, conditioned),
                _Layer(nn.Linear(width, flat), _norm_flat(norm, flat), flat, conditioned),
            ]
        )
        layers = [
            _Layer(_transposed(wide, narrow), _norm(norm, narrow[0]), narrow[0], conditioned)
            for wide, narrow in zip(reversed(sizes[1:]), reversed(sizes[:-1]), strict=True)
        ]
        self.convolutions = nn.ModuleList(layers)
        self.last = _transposed(sizes[0], (shape[0], shape[1], shape[2]))
        # A zero head: the operator starts as its skip connection.
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(self, hidden: Tensor, embedding: Tensor | None) -> Tensor:
        for layer in self.dense:
            hidden = layer(hidden, embedding)
        image = hidden.reshape(-1, *self.small)
        for layer in self.convolutions:
            image = layer(image, embedding)
        output: Tensor = self.last(image)
        return output


def _transposed(source: tuple[int, int, int], target: tuple[int, int, int]) -> nn.ConvTranspose2d:
    # Stride 2 leaves the output size open by one; the encoder's sizes settle it.
    extra = tuple(2 * small - large for small, large in zip(source[1:], target[1:], strict=True))
    return nn.ConvTranspose2d(
        source[0], target[0], 5, stride=2, padding=2, output_padding=(1 - extra[0], 1 - extra[1])
    )


@final
class ConvEncoderDecoder(nn.Module):
    """Images `(B, C, H, W)` → `heads` tensors of the same shape.

    Args:
        shape: `(C, H, W)`.
        heads: Number of outputs, each with its own decoder.
        channels: Feature maps of the encoder's convolutions; None takes the paper's.
        width: Units of the fully connected layers; None takes the paper's.
        norm: "batch" is the paper's (layer norm in the bottleneck of grey images becomes batch norm here), "group"
            normalizes each example by itself, so that training and evaluation apply the same map.
        conditioned: Whether the temperature is an input.

    Raises:
        ConfigurationError: The data are not images.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        heads: int,
        channels: tuple[int, ...] | None,
        width: int | None,
        norm: Norm,
        conditioned: bool,
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ConfigurationError(
                f"Got data of shape {shape} for a convolutional operator, expected images (channels, height, width): "
                "choose image data or an MLP operator."
            )
        channels = channels or table_channels(shape)
        width = width or table_width(shape)
        sizes = _encoder_sizes(shape, channels)
        self.embedding = TemperatureEmbedding() if conditioned else None
        inputs = [shape[0], *channels[:-1]]
        self.convolutions = nn.ModuleList(
            _Layer(
                nn.Conv2d(source, target, 5, stride=2, padding=2), _norm(norm, target), target, conditioned
            )
            for source, target in zip(inputs, channels, strict=True)
        )
        flat = math.prod(sizes[-1])
        self.dense = nn.ModuleList(
            _Layer(nn.Linear(source, width), _norm_flat(norm, width), width, conditioned)
            for source in (flat, width, width)
        )
        self.decoders = nn.ModuleList(_Decoder(shape, sizes, width, norm, conditioned) for _ in range(heads))

    def forward(self, state: Tensor, log2_temperature: Tensor) -> tuple[Tensor, ...]:
        """One tensor `(B, C, H, W)` a head."""
        embedding = None if self.embedding is None else self.embedding(log2_temperature)
        features = state
        for layer in self.convolutions:
            features = layer(features, embedding)
        hidden = features.flatten(1)
        for layer in self.dense:
            hidden = layer(hidden, embedding)
        return tuple(decoder(hidden, embedding) for decoder in self.decoders)


def _encoder_sizes(shape: tuple[int, ...], channels: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Shapes after each convolution, `(C, ceil(H / 2^l), ceil(W / 2^l))`."""
    sizes = []
    _, height, width = shape
    for channel in channels:
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((channel, height, width))
    return sizes
