"""The paper's convolutional encoder-decoder (appendix E, Tables 2 to 5), adapted to the size of the image.

    5×5 stride-2 convolutions → fully connected bottleneck → mirrored 5×5 stride-2 transposed convolutions

The encoder and the first three fully connected layers are shared; each head (mean, variance) has its own last two
fully connected layers and its own transposed convolutions: so the CelebA network has its 57.7 million parameters.
Every linear map has a bias, of which the tables say nothing.

    table           convolutions     fully connected (3 shared, 2 a head)    norm, nonlinearity
    2   28×28×1     16, 32           1568·1024, 1024·1024 (×3), 1024·1568    batch, ReLU; bottleneck: layer, leaky ReLU
    3   64×64×3     64, 128, 256     16384·1024, …, 1024·16384               batch, ReLU
    4   32×32×3     64, 128, 256     4096·2048, …, 2048·4096                 batch, ReLU
    5   32×32×3     64, 128, 256     4096·1024, …, 1024·4096                 batch, ReLU

The entries of a table's columns belong to its rows in order: Table 2 has nine rows, and nine nonlinearities (ReLU
twice, leaky ReLU five times, ReLU, none). The last transposed convolution has neither norm nor nonlinearity. The slope
of the leaky ReLU is not given; here it is 0.01. Section E.2 says layer norm for the bottleneck of Tables 3 to 5, which
themselves say batch norm: the tables are followed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.networks import Network, Ports, Told
from walkback_networks.conditioning import Conditioning, conditioner
from walkback_networks.layers import Layer, Positive, Share, zero
from walkback_networks.level import LevelFeatures, LevelInput, LevelOptions
from walkback_networks.norms import ImageNorm, RowNorm, image_norm, row_norm

Norm: TypeAlias = Literal["table", "batch", "layer", "group", "none"]

Size: TypeAlias = tuple[int, int, int]


def table_channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Feature maps of the paper's encoder for images `(C, H, W)`: (16, 32) for grey ones, else (64, 128, 256)."""
    return (16, 32) if shape[0] == 1 else (64, 128, 256)


def table_width(shape: tuple[int, ...]) -> int:
    """Width of the fully connected layers: 2048 for 32×32×3 (Table 4, CIFAR-10; Table 5, SVHN, has 1024), else 1024."""
    return 2048 if shape == (3, 32, 32) else 1024


@final
@dataclass(frozen=True, slots=True)
class _Layers:
    """Makes the layers of one network: what surrounds their linear maps."""

    image_norm: ImageNorm
    row_norm: RowNorm
    leaky: bool
    dropout: float
    level: LevelOptions

    def of_images(self, linear: nn.Module, channels: int) -> Layer:
        """A convolution."""
        norm = image_norm(self.image_norm, channels, self.level.norms)
        return Layer(linear, norm, conditioner(self.level.conditioning, channels), nn.ReLU())

    def of_rows(self, source: int, target: int) -> Layer:
        """A fully connected layer of the bottleneck."""
        linear = nn.Linear(source, target)
        norm = row_norm(self.row_norm, target, self.level.norms)
        activation = nn.LeakyReLU() if self.leaky else nn.ReLU()
        return Layer(linear, norm, conditioner(self.level.conditioning, target), activation, self.dropout)


def _layers(norm: Norm, grey: bool, dropout: float, level: LevelOptions) -> _Layers:
    if norm == "table":
        return _Layers("batch", "layer" if grey else "batch", grey, dropout, level)
    return _Layers(norm, "layer" if norm == "group" else norm, False, dropout, level)


@final
class _Decoder(nn.Module):
    """One head: two fully connected layers, then transposed convolutions back to the image."""

    def __init__(self, shape: Size, sizes: list[Size], width: int, layers: _Layers) -> None:
        super().__init__()
        self.small = sizes[-1]
        flat = math.prod(self.small)
        self.dense = nn.ModuleList([layers.of_rows(width, width), layers.of_rows(width, flat)])
        self.convolutions = nn.ModuleList(
            layers.of_images(_transposed(wide, narrow), narrow[0])
            for wide, narrow in zip(reversed(sizes[1:]), reversed(sizes[:-1]), strict=True)
        )
        self.last = zero(_transposed(sizes[0], shape))

    def forward(self, hidden: Tensor, level: LevelFeatures) -> Tensor:
        for layer in self.dense:
            hidden = layer(hidden, level)
        image = hidden.reshape(-1, *self.small)
        for layer in self.convolutions:
            image = layer(image, level)
        output: Tensor = self.last(image)
        return output


def _transposed(source: Size, target: Size) -> nn.ConvTranspose2d:
    # Stride 2 leaves the output size open by one; the encoder's sizes settle it.
    extra = tuple(2 * small - large for small, large in zip(source[1:], target[1:], strict=True))
    return nn.ConvTranspose2d(
        source[0], target[0], 5, stride=2, padding=2, output_padding=(1 - extra[0], 1 - extra[1])
    )


@final
class ConvEncoderDecoder(nn.Module):
    """Images `(B, C, H, W)` → `heads` tensors of the same shape.

    Args:
        ports: What is asked for: images `(C, H, W)`, and heads, each with a decoder of its own.
        channels: Feature maps of the encoder's convolutions; None takes the paper's.
        width: Units of the fully connected layers; None takes the paper's.
        norm: "table" is the paper's, with its nonlinearities; the others are one norm everywhere, with ReLU. "group"
            (layer norm in the bottleneck) and "layer" normalize each example by itself, so that training and
            evaluation apply the same map.
        dropout: Share of the bottleneck's units left out in training (Table 2: it helps, the results are without).
        level: How the network knows its level; the paper's way is sets of norms, and no conditioning.

    Raises:
        ConfigurationError: The data are not images, or there are sets of norms without a norm.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        channels: tuple[int, ...] | None,
        width: int | None,
        norm: Norm,
        dropout: float,
        level: LevelOptions,
    ) -> None:
        super().__init__()
        shape = ports.shape
        image = _require_image(shape)
        level.require_norm(norm)
        channels = channels or table_channels(shape)
        width = width or table_width(shape)
        sizes = _encoder_sizes(image, channels)
        layers = _layers(norm, image[0] == 1, dropout, level)
        self.level = LevelInput(level, ports.classes)
        self.convolutions = nn.ModuleList(
            layers.of_images(nn.Conv2d(source, target, 5, stride=2, padding=2), target)
            for source, target in zip((image[0], *channels[:-1]), channels, strict=True)
        )
        flat = math.prod(sizes[-1])
        self.dense = nn.ModuleList(layers.of_rows(source, width) for source in (flat, width, width))
        self.decoders = nn.ModuleList(_Decoder(image, sizes, width, layers) for _ in range(ports.heads))

    def forward(self, state: Tensor, told: Told) -> tuple[Tensor, ...]:
        """One tensor `(B, C, H, W)` a head."""
        level = self.level(told)
        features = state
        for layer in self.convolutions:
            features = layer(features, level)
        hidden = features.flatten(1)
        for layer in self.dense:
            hidden = layer(hidden, level)
        return tuple(decoder(hidden, level) for decoder in self.decoders)


def _require_image(shape: tuple[int, ...]) -> Size:
    if len(shape) != 3:
        raise ConfigurationError(
            f"Got data of shape {shape} for a convolutional network, expected images (channels, height, width): "
            "choose image data or the network 'mlp'."
        )
    return shape[0], shape[1], shape[2]


def _encoder_sizes(image: Size, channels: tuple[int, ...]) -> list[Size]:
    """Shapes after each convolution, `(C, ceil(H / 2^l), ceil(W / 2^l))`."""
    sizes = []
    _, height, width = image
    for channel in channels:
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((channel, height, width))
    return sizes


@final
class EncoderDecoder(Network):
    """The paper's convolutional encoder-decoder (Tables 2 to 5), for images.

    The tables themselves are `norm = "table"` with `conditioning = "none"`.

    Args:
        channels: Feature maps of the convolutions; None takes the paper's for the image.
        hidden: Units of the fully connected layers; None takes the paper's (for SVHN, 1024 is the table's).
        norm: Normalization of the layers: the table's, with its nonlinearities, or one kind everywhere.
        dropout: Share of the bottleneck's units left out in training.
        conditioning: How the network is given log T, and labels.
        level_norms: Sets of norm parameters, one for each level from T = 1 up; 0: all levels share one. Several are the
            paper's "different batch norm for different steps".
        norms_per_doubling: Sets to a doubling of T.
    """

    def __init__(
        self,
        *,
        channels: tuple[PositiveInt, ...] | None = None,
        hidden: PositiveInt | None = None,
        norm: Norm = "batch",
        dropout: Share = 0.0,
        conditioning: Conditioning = "film",
        level_norms: NonNegativeInt = 0,
        norms_per_doubling: Positive = 1.0,
    ) -> None:
        self._channels = channels
        self._hidden = hidden
        self._norm: Norm = norm
        self._dropout = dropout
        self._level = LevelOptions(conditioning, level_norms, norms_per_doubling)

    def build(self, ports: Ports) -> ConvEncoderDecoder:
        """A new network for these ports; raises ConfigurationError where the states are no images."""
        return ConvEncoderDecoder(
            ports,
            channels=self._channels,
            width=self._hidden,
            norm=self._norm,
            dropout=self._dropout,
            level=self._level,
        )
