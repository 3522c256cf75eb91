"""Norms of layers, shared by all levels or one set for each (appendix I: different batch norm for different steps).

    batch     γ_l (x - μ) / √(v + ε) + β_l     μ, v: of the rows at level l in training, running ones of l in evaluation
    others    γ_l norm(x) + β_l                norm: of one row by itself

l is the number of a row's level (`level`). Rows at different levels may stand in one batch; each then meets
the statistics of its own level's rows only, exactly as if every level had a batch norm of its own.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, group_norm

RowNorm: TypeAlias = Literal["batch", "layer", "none"]
"""Norms of `(B, C)`."""

ImageNorm: TypeAlias = Literal["batch", "layer", "group", "none"]
"""Norms of `(B, C, H, W)`: "layer" takes moments of the whole image, "group" of each of ≤ 8 groups of maps."""

_EPSILON, _MOMENTUM = 1e-5, 0.1  # as in torch.nn.BatchNorm2d


@final
class SharedNorm(nn.Module):
    """One norm for all levels."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features: Tensor, level: Tensor | None) -> Tensor:
        """Normalize `(B, C, …)`."""
        normalized: Tensor = self.norm(features)
        return normalized


@final
class LevelGroupNorm(nn.Module):
    """Group norm whose scale and shift are those of the row's level.

    Args:
        groups: Groups of channels that are normalized together; 1 is layer norm.
        channels: C.
        levels: L, sets of parameters.
    """

    def __init__(self, groups: int, channels: int, levels: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(levels, channels))
        self.bias = nn.Parameter(torch.zeros(levels, channels))

    def forward(self, features: Tensor, level: Tensor) -> Tensor:
        """Normalize `(B, C, …)` at levels `(1,)` or `(B,)`."""
        ones = (1,) * (features.dim() - 2)
        weight, bias = (table[level].reshape(len(level), -1, *ones) for table in (self.weight, self.bias))
        return torch.addcmul(bias, group_norm(features, self.groups, eps=_EPSILON), weight)


@final
class LevelBatchNorm(nn.Module):
    """Batch norm with parameters and running statistics of their own for each level.

    In evaluation a level that training never met uses the set of the nearest level that it did meet, the colder of two:
    its own statistics and weights are still those of initialization. An optimizer with momentum or weight decay moves
    all sets at every update, as their gradients are zero, not missing.

    Args:
        channels: C.
        levels: L, sets of parameters and statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(levels, channels))
        self.bias = nn.Parameter(torch.zeros(levels, channels))
        self.register_buffer("running_mean", torch.zeros(levels, channels))
        self.register_buffer("running_var", torch.ones(levels, channels))
        self.register_buffer("num_batches_tracked", torch.zeros(levels, dtype=torch.int64))

    def forward(self, features: Tensor, level: Tensor) -> Tensor:
        """Normalize `(B, C, …)` at levels `(1,)` or `(B,)`."""
        if not self.training:
            level = self._nearest_met()[level]
        return self._of_one_level(features, level) if len(level) == 1 else self._of_rows(features, level)

    def _nearest_met(self) -> Tensor:
        """Number of the nearest level met in training, `(L,)`; each its own where none was."""
        number = torch.arange(len(self.weight), device=self.weight.device)
        gap = number - number[:, None]
        distance = 2 * gap.abs() + (gap > 0) + 4 * len(number) * (self.num_batches_tracked == 0)
        return distance.argmin(dim=1)

    def _of_one_level(self, features: Tensor, level: Tensor) -> Tensor:
        # Copies, `(C,)`: no value is read off the device, and backward keeps what it saved.
        mean, variance = self.running_mean[level], self.running_var[level]
        normalized = batch_norm(
            features,
            mean.squeeze(0),
            variance.squeeze(0),
            self.weight[level].squeeze(0),
            self.bias[level].squeeze(0),
            self.training,
            _MOMENTUM,
            _EPSILON,
        )
        if self.training:
            self.running_mean.index_copy_(0, level, mean)
            self.running_var.index_copy_(0, level, variance)
            self.num_batches_tracked.index_add_(0, level, torch.ones_like(level))
        return normalized

    def _of_rows(self, features: Tensor, level: Tensor) -> Tensor:
        """As `_of_one_level` for every level among the rows."""
        rows = features.flatten(2) if features.dim() > 2 else features[..., None]
        rows = rows.to(self.weight.dtype)  # statistics stay precise under autocast
        if self.training:
            mean, variance = self._statistics(rows, level)
        else:
            mean, variance = self.running_mean[level], self.running_var[level]
        scale = (variance + _EPSILON).rsqrt() * self.weight[level]
        normalized = torch.addcmul(self.bias[level][..., None], rows - mean[..., None], scale[..., None])
        return normalized.to(features.dtype).reshape(features.shape)

    def _statistics(self, rows: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each row's level, `(B, C)` each, from values `(B, C, S)`; updates the running ones."""
        ones = torch.ones_like(level)
        count = torch.zeros_like(self.num_batches_tracked).index_add(0, level, ones)
        share = (1 / count[level].to(rows.dtype))[:, None]
        zeros = rows.new_zeros(self.weight.shape)
        mean = zeros.index_add(0, level, rows.mean(2) * share)
        squares = (rows - mean[level][..., None]).square()
        variance = zeros.index_add(0, level, squares.mean(2) * share)
        with torch.no_grad():
            values = count[:, None] * rows.shape[2]
            unbiased = variance * values / (values - 1).clamp(min=1)
            momentum = _MOMENTUM * (count > 0).to(rows.dtype)[:, None]
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(unbiased, momentum)
            self.num_batches_tracked += count > 0
        return mean[level], variance[level]


def row_norm(kind: RowNorm, width: int, levels: int) -> nn.Module:
    """A norm of `(B, C)`, shared where `levels` is 0."""
    if kind == "none":
        return SharedNorm(nn.Identity())
    if levels:
        return LevelBatchNorm(width, levels) if kind == "batch" else LevelGroupNorm(1, width, levels)
    return SharedNorm(nn.BatchNorm1d(width) if kind == "batch" else nn.LayerNorm(width))


def image_norm(kind: ImageNorm, channels: int, levels: int) -> nn.Module:
    """A norm of `(B, C, H, W)`, shared where `levels` is 0."""
    if kind == "none":
        return SharedNorm(nn.Identity())
    if kind == "batch":
        return LevelBatchNorm(channels, levels) if levels else SharedNorm(nn.BatchNorm2d(channels))
    groups = math.gcd(channels, 8) if kind == "group" else 1
    return LevelGroupNorm(groups, channels, levels) if levels else SharedNorm(nn.GroupNorm(groups, channels))
