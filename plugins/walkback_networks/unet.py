"""A residual U-Net conditioned on its temperature, for series `(C, L)`, images `(C, H, W)` and volumes `(C, D, H, W)`.

    block     x + W₂ drop(silu(FiLM(norm(W₁ silu(norm(x))))))
    encoder   stem → blocks → ↓2 → blocks → …   ;   middle: block, self-attention, block
    decoder   … → ↑2 → blocks([x, skip]) → heads

This is not the paper's network: convolutions of stride 1 with skip connections keep details that the paper's bottleneck
loses, group norm normalizes each example separately (training and evaluation apply the same map), and FiLM conditions
every block on the temperature and the label. `patch` > 1 first folds p×p pixels, or p×p×p voxels, into channels,
which divides the cost by about their number.
"""

from __future__ import annotations

import math
from typing import final

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import silu

from walkback.errors import ConfigurationError
from walkback.networks import Network, Ports, Told
from walkback_networks.conditioning import FiLM, TemperatureEmbedding, embedded, label_embedding
from walkback_networks.layers import Share, Widths, zero

_CONVOLUTIONS: tuple[type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d], ...] = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
)
"""Convolutions for one, two and three axes."""


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 8), channels)


@final
class _Block(nn.Module):
    """Residual block `(B, C, *axes)` → `(B, C', *axes)`."""

    def __init__(self, source: int, target: int, dropout: float, rank: int) -> None:
        super().__init__()
        convolution = _CONVOLUTIONS[rank - 1]
        self.norm_in = _norm(source)
        self.inner = convolution(source, target, 3, padding=1)
        self.norm_out = _norm(target)
        self.film = FiLM(target)
        self.dropout = nn.Dropout(dropout)
        self.outer = zero(convolution(target, target, 3, padding=1))
        self.skip = nn.Identity() if source == target else convolution(source, target, 1)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        change = self.inner(silu(self.norm_in(features)))
        change = self.outer(self.dropout(silu(self.film(self.norm_out(change), embedding))))
        output: Tensor = self.skip(features) + change
        return output


@final
class _Attention(nn.Module):
    """Residual self-attention over the positions of `(B, C, *axes)`."""

    def __init__(self, channels: int, rank: int, heads: int = 4) -> None:
        super().__init__()
        convolution = _CONVOLUTIONS[rank - 1]
        self.heads = math.gcd(heads, channels)
        self.norm = _norm(channels)
        self.inputs = convolution(channels, 3 * channels, 1)
        self.output = zero(convolution(channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        rows, _, *axes = features.shape
        parts = self.inputs(self.norm(features)).reshape(rows, 3, self.heads, -1, math.prod(axes))
        query, key, value = (
            part.flatten(0, 1) for part in parts.unbind(1)
        )  # (rows · heads, channels, positions)
        # Attention is written out because in bfloat16 the backward pass of the fused kernel is about ten times slower
        # on a CPU.
        weights = torch.bmm(key.transpose(1, 2), query).mul(key.shape[1] ** -0.5).softmax(1)
        mixed = torch.bmm(value, weights.to(value.dtype)).reshape(features.shape)
        output: Tensor = self.output(mixed)
        return features + output


@final
class ResidualUNet(nn.Module):
    """Maps `(B, C, *axes)` of one to three axes to `heads` tensors of that shape.

    Args:
        ports: Shape of the states, and the number of heads and labels.
        channels: Feature maps at each resolution, finest first.
        blocks: Residual blocks at each resolution, on either side.
        patch: Side p of the squares of pixels, or cubes, that are folded into channels; divides each axis.
        attention: Whether positions attend to one another at the coarsest resolution.
        dropout: Share of features left out in training.

    Raises:
        ConfigurationError: The data have no channels or too many axes, or the patch does not divide them.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        channels: tuple[int, ...],
        blocks: int,
        patch: int,
        attention: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        rank = _rank_of(ports.shape, patch)
        convolution = _CONVOLUTIONS[rank - 1]
        folded = ports.shape[0] * patch**rank
        self.patch = patch
        self.embedding = TemperatureEmbedding()
        self.labels = label_embedding(ports.classes)
        self.stem = convolution(folded, channels[0], 3, padding=1)
        self.encoder = nn.ModuleList()
        self.down = nn.ModuleList()
        width = channels[0]
        for depth, target in enumerate(channels):
            if depth:
                self.down.append(convolution(width, width, 3, stride=2, padding=1))
            self.encoder.append(_stack(width, target, blocks, dropout, rank))
            width = target
        self.middle = nn.ModuleList(_Block(width, width, dropout, rank) for _ in range(2))
        self.attention = _Attention(width, rank) if attention else nn.Identity()
        self.decoder = nn.ModuleList()
        for skipped in reversed(channels):
            self.decoder.append(_stack(width + skipped, skipped, blocks, dropout, rank))
            width = skipped
        self.norm = _norm(width)
        self.heads = nn.ModuleList(zero(convolution(width, folded, 3, padding=1)) for _ in range(ports.heads))

    def forward(self, state: Tensor, told: Told) -> tuple[Tensor, ...]:
        """Returns one tensor `(B, C, *axes)` per head."""
        embedding = embedded(self.embedding, self.labels, told)
        folded = folded_patches(state, self.patch)
        features = self.stem(folded)
        skips = []
        for depth, stack in enumerate(self.encoder):
            features = self.down[depth - 1](features) if depth else features
            features = _run(stack, features, embedding)
            skips.append(features)
        features = self.middle[0](features, embedding)
        features = self.middle[1](self.attention(features), embedding)
        for stack, skip in zip(self.decoder, reversed(skips), strict=True):
            features = doubled(features, skip) if features.shape[2:] != skip.shape[2:] else features
            features = _run(stack, torch.cat([features, skip], 1), embedding)
        features = silu(self.norm(features))
        return tuple(unfolded_patches(head(features), self.patch) for head in self.heads)


def _stack(source: int, target: int, blocks: int, dropout: float, rank: int) -> nn.ModuleList:
    inputs = [source] + [target] * (blocks - 1)
    return nn.ModuleList(_Block(width, target, dropout, rank) for width in inputs)


def folded_patches(state: Tensor, patch: int) -> Tensor:
    """Folds patches of `(B, C, *axes)` into channels, `(B, C p^n, *axes / p)`, as `pixel_unshuffle` of two axes."""
    if patch == 1:
        return state
    rows, channels, *axes = state.shape
    split = state.reshape(rows, channels, *(size for axis in axes for size in (axis // patch, patch)))
    rank = len(axes)
    order = (0, 1, *range(3, 2 * rank + 2, 2), *range(2, 2 * rank + 2, 2))
    return split.permute(order).reshape(rows, channels * patch**rank, *(axis // patch for axis in axes))


def unfolded_patches(features: Tensor, patch: int) -> Tensor:
    """Inverts `folded_patches`."""
    if patch == 1:
        return features
    rows, channels, *axes = features.shape
    rank = len(axes)
    split = features.reshape(rows, channels // patch**rank, *(patch,) * rank, *axes)
    order = (0, 1, *(place for axis in range(rank) for place in (2 + rank + axis, 2 + axis)))
    return split.permute(order).reshape(rows, channels // patch**rank, *(axis * patch for axis in axes))


def doubled(features: Tensor, like: Tensor) -> Tensor:
    """Repeats each position of `(B, C, *axes)` twice along each axis, cropped to the size of `like`, 2n or 2n - 1.

    Equivalent to `interpolate(mode="nearest")`, whose gradient may be 0 in bfloat16 when compiled by PyTorch 2.13 for a
    CPU.
    """
    rows, channels, *axes = features.shape
    spread = features.reshape(rows, channels, *(size for axis in axes for size in (axis, 1)))
    spread = spread.expand(-1, -1, *(size for axis in axes for size in (axis, 2)))
    whole = spread.reshape(rows, channels, *(2 * axis for axis in axes))
    for axis, size in enumerate(like.shape[2:], start=2):
        whole = whole.narrow(axis, 0, size)
    return whole


def _run(stack: nn.Module, features: Tensor, embedding: Tensor) -> Tensor:
    for block in stack.children():
        features = block(features, embedding)
    return features


def _rank_of(shape: tuple[int, ...], patch: int) -> int:
    """Returns the number of axes beside the channels."""
    if not 2 <= len(shape) <= 4:
        raise ConfigurationError(
            f"Got data of shape {shape} for a U-Net, expected series (channels, length), images (channels, height, "
            "width) or volumes (channels, depth, height, width): choose such data or the network 'mlp'."
        )
    if any(size % patch for size in shape[1:]):
        sizes = "×".join(map(str, shape[1:]))
        raise ConfigurationError(
            f"Got operator.network.patch = {patch} for data of size {sizes}, expected a divisor of each."
        )
    return len(shape) - 1


@final
class UNet(Network):
    """A residual U-Net, for series, images and volumes.

    Args:
        channels: Feature maps at each resolution, finest first.
        blocks: Residual blocks at each resolution, on either side.
        patch: Side of the squares of pixels, or cubes, that are folded into channels.
        attention: Whether positions attend to one another at the coarsest resolution.
        dropout: Share of features left out in training.
    """

    def __init__(
        self,
        *,
        channels: Widths = (64, 128, 256),
        blocks: PositiveInt = 2,
        patch: PositiveInt = 1,
        attention: bool = True,
        dropout: Share = 0.0,
    ) -> None:
        self._channels = channels
        self._blocks = blocks
        self._patch = patch
        self._attention = attention
        self._dropout = dropout

    def build(self, ports: Ports) -> ResidualUNet:
        """Builds a network for these ports; raises ConfigurationError for states of other shapes."""
        return ResidualUNet(
            ports,
            channels=self._channels,
            blocks=self._blocks,
            patch=self._patch,
            attention=self._attention,
            dropout=self._dropout,
        )
