"""A residual U-Net that knows its temperature, for images `(C, H, W)`.

    block     x + W₂ drop(silu(FiLM(norm(W₁ silu(norm(x))))))
    encoder   stem → blocks → ↓2 → blocks → …   ;   middle: block, self-attention, block
    decoder   … → ↑2 → blocks([x, skip]) → heads

Not the paper's network: convolutions of stride 1 with skip connections keep the details that the paper's bottleneck
loses, group norm treats each example by itself (training and evaluation apply the same map), and FiLM tells every
block its temperature and label. `patch` > 1 folds p×p pixels into channels first, which divides the cost by about p².
"""

from __future__ import annotations

import math
from typing import final

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from walkback.errors import ConfigurationError
from walkback.networks import Network, Ports, Told
from walkback_networks.conditioning import FiLM, TemperatureEmbedding, embedded, label_embedding
from walkback_networks.layers import Share, Widths, zero


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 8), channels)


@final
class _Block(nn.Module):
    """Residual block `(B, C, H, W)` → `(B, C', H, W)`."""

    def __init__(self, source: int, target: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = _norm(source)
        self.inner = nn.Conv2d(source, target, 3, padding=1)
        self.norm_out = _norm(target)
        self.film = FiLM(target)
        self.dropout = nn.Dropout(dropout)
        self.outer = zero(nn.Conv2d(target, target, 3, padding=1))
        self.skip = nn.Identity() if source == target else nn.Conv2d(source, target, 1)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        change = self.inner(silu(self.norm_in(features)))
        change = self.outer(self.dropout(silu(self.film(self.norm_out(change), embedding))))
        output: Tensor = self.skip(features) + change
        return output


@final
class _Attention(nn.Module):
    """Residual self-attention over the positions of `(B, C, H, W)`."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = math.gcd(heads, channels)
        self.norm = _norm(channels)
        self.inputs = nn.Conv2d(channels, 3 * channels, 1)
        self.output = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        rows, channels, height, width = features.shape
        parts = self.inputs(self.norm(features)).reshape(rows, 3, self.heads, -1, height * width)
        query, key, value = (
            part.flatten(0, 1) for part in parts.unbind(1)
        )  # (rows · heads, channels, positions)
        # Written out: in bfloat16 the fused kernel's backward pass is some ten times slower than this on a CPU.
        weights = torch.bmm(key.transpose(1, 2), query).mul(key.shape[1] ** -0.5).softmax(1)
        mixed = torch.bmm(value, weights.to(value.dtype)).reshape(rows, channels, height, width)
        output: Tensor = self.output(mixed)
        return features + output


@final
class ResidualUNet(nn.Module):
    """Images `(B, C, H, W)` → `heads` tensors `(B, C, H, W)`.

    Args:
        ports: What is asked for.
        channels: Feature maps at each resolution, finest first.
        blocks: Residual blocks at each resolution, on either side.
        patch: Side p of the squares of pixels that are folded into channels; divides H and W.
        attention: Whether positions attend to one another at the coarsest resolution.
        dropout: Share of features left out in training.

    Raises:
        ConfigurationError: The data are not images, or the patch does not divide them.
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
        _require_images(ports.shape, patch)
        folded = ports.shape[0] * patch**2
        self.patch = patch
        self.embedding = TemperatureEmbedding()
        self.labels = label_embedding(ports.classes)
        self.stem = nn.Conv2d(folded, channels[0], 3, padding=1)
        self.encoder = nn.ModuleList()
        self.down = nn.ModuleList()
        width = channels[0]
        for depth, target in enumerate(channels):
            if depth:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
            self.encoder.append(_stack(width, target, blocks, dropout))
            width = target
        self.middle = nn.ModuleList([_Block(width, width, dropout), _Block(width, width, dropout)])
        self.attention = _Attention(width) if attention else nn.Identity()
        self.decoder = nn.ModuleList()
        for skipped in reversed(channels):
            self.decoder.append(_stack(width + skipped, skipped, blocks, dropout))
            width = skipped
        self.norm = _norm(width)
        self.heads = nn.ModuleList(zero(nn.Conv2d(width, folded, 3, padding=1)) for _ in range(ports.heads))

    def forward(self, state: Tensor, told: Told) -> tuple[Tensor, ...]:
        """One tensor `(B, C, H, W)` a head."""
        embedding = embedded(self.embedding, self.labels, told)
        folded = pixel_unshuffle(state, self.patch)
        features = self.stem(folded)
        skips = []
        for depth, stack in enumerate(self.encoder):
            features = self.down[depth - 1](features) if depth else features
            features = _run(stack, features, embedding)
            skips.append(features)
        features = self.middle[0](features, embedding)
        features = self.middle[1](self.attention(features), embedding)
        for stack, skip in zip(self.decoder, reversed(skips), strict=True):
            features = doubled(features, skip) if features.shape[-2:] != skip.shape[-2:] else features
            features = _run(stack, torch.cat([features, skip], 1), embedding)
        features = silu(self.norm(features))
        return tuple(pixel_shuffle(head(features), self.patch) for head in self.heads)


def _stack(source: int, target: int, blocks: int, dropout: float) -> nn.ModuleList:
    inputs = [source] + [target] * (blocks - 1)
    return nn.ModuleList(_Block(width, target, dropout) for width in inputs)


def doubled(features: Tensor, like: Tensor) -> Tensor:
    """Each position of `(B, C, H, W)` four times, cut to the size of `like`, 2H or 2H - 1.

    As `interpolate(mode="nearest")`, whose gradient may be 0 in bfloat16 once PyTorch 2.13 has compiled it for a CPU.
    """
    rows, channels, height, width = features.shape
    doubled = features[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    return doubled.reshape(rows, channels, 2 * height, 2 * width)[..., : like.shape[-2], : like.shape[-1]]


def _run(stack: nn.Module, features: Tensor, embedding: Tensor) -> Tensor:
    for block in stack.children():
        features = block(features, embedding)
    return features


def _require_images(shape: tuple[int, ...], patch: int) -> None:
    if len(shape) != 3:
        raise ConfigurationError(
            f"Got data of shape {shape} for a U-Net, expected images (channels, height, width): "
            "choose image data or the network 'mlp'."
        )
    if shape[1] % patch or shape[2] % patch:
        raise ConfigurationError(
            f"Got operator.network.patch = {patch} for images of {shape[1]}×{shape[2]} pixels, expected a divisor of "
            "both."
        )


@final
class UNet(Network):
    """A residual U-Net, for images.

    Args:
        channels: Feature maps at each resolution, finest first.
        blocks: Residual blocks at each resolution, on either side.
        patch: Side of the squares of pixels that are folded into channels.
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
        """A new network for these ports; raises ConfigurationError where the states are no images."""
        return ResidualUNet(
            ports,
            channels=self._channels,
            blocks=self._blocks,
            patch=self._patch,
            attention=self._attention,
            dropout=self._dropout,
        )
