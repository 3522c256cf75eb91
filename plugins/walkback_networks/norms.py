"""Norms of layers, shared by all levels or with one set per level (appendix I: batch norm for different steps).

    batch     γ_l (x - μ) / √(v + ε) + β_l     μ, v: of the rows at level l in training, running averages in evaluation
    others    γ_l norm(x) + β_l                norm: of each row separately

l is the set number of a row's level (`level`). Rows at different levels may be in the same batch; each row is
normalized by the statistics of the rows at its own level only, exactly as if every level had a separate batch norm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, group_norm

from walkback.support.batch_statistics import BatchStatistics, total
from walkback.support.constraints import Constrained, Constraint, nonnegative

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
    """Group norm with a separate scale and shift per level.

    Args:
        groups: Number of groups of channels that are normalized together; 1 is layer norm.
        channels: C.
        levels: L, number of sets of parameters.
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
class LevelBatchNorm(nn.Module, Constrained, BatchStatistics):
    """Batch norm with separate parameters and running statistics per level.

    In evaluation mode, a level that was never trained uses the set of the nearest level that was (the colder of two),
    since its own statistics and weights are still the initial ones. All sets receive a gradient in every update, zero
    if unused, so an optimizer with momentum or weight decay moves all of them.

    Args:
        channels: C.
        levels: L, number of sets of parameters and statistics.
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
        self._synchronized = False

    def synchronize(self) -> None:
        """See `BatchStatistics.synchronize`."""
        self._synchronized = True

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """Ranges of the buffers: variances and counts are not negative."""
        return {"running_var": nonnegative, "num_batches_tracked": nonnegative}

    def forward(self, features: Tensor, level: Tensor) -> Tensor:
        """Normalize `(B, C, …)` at levels `(1,)` or `(B,)`."""
        # Only in evaluation: in training, each level learns its own set. Walks have random lengths, so evaluation (or a
        # longer schedule) may reach a level that no training walk has reached.
        if not self.training:
            level = self._nearest_met()[level]
        elif self._synchronized:
            return self._of_rows(features, level.expand(len(features)))
        return self._of_one_level(features, level) if len(level) == 1 else self._of_rows(features, level)

    def _nearest_met(self) -> Tensor:
        """Returns the nearest trained level for each level, `(L,)`; the level itself if none was trained."""
        number = torch.arange(len(self.weight), device=self.weight.device)
        gap = number - number[:, None]
        # Twice the gap plus 1 if hotter: ties go to the colder level. Untrained levels are farther than all others.
        distance = 2 * gap.abs() + (gap > 0) + 4 * len(number) * (self.num_batches_tracked == 0)
        return distance.argmin(dim=1)

    def _of_one_level(self, features: Tensor, level: Tensor) -> Tensor:
        # Indexing with a tensor copies, `(C,)`. This avoids a device synchronization, and batch_norm updates the copies
        # in place, so the tensors that backward saved are not modified when the buffers are written below.
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
        """Normalizes as `_of_one_level` does, for each level among the rows."""
        rows = features.flatten(2) if features.dim() > 2 else features[..., None]
        rows = rows.to(self.weight.dtype)  # statistics stay in full precision under autocast
        if self.training:
            mean, variance = self._statistics(rows, level)
        else:
            mean, variance = self.running_mean[level], self.running_var[level]
        scale = (variance + _EPSILON).rsqrt() * self.weight[level]
        normalized = torch.addcmul(self.bias[level][..., None], rows - mean[..., None], scale[..., None])
        return normalized.to(features.dtype).reshape(features.shape)

    def _statistics(self, rows: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and variance of each row's level, `(B, C)` each, of `(B, C, S)`; updates the running ones."""
        # A scatter-add per level has fixed shapes: no level is read off the device, and the graph compiles once.
        # Every row has S values, so the mean over a level's rows of the rows' means is the mean over its values.
        # `index_add` and not its in-place twin, because gradients flow through mean and variance, as in any batch norm.
        ones = torch.ones_like(level)
        count = self._total(torch.zeros_like(self.num_batches_tracked).index_add(0, level, ones))
        share = (1 / count[level].to(rows.dtype))[:, None]
        zeros = rows.new_zeros(self.weight.shape)
        mean = self._total(zeros.index_add(0, level, rows.mean(2) * share))
        squares = (rows - mean[level][..., None]).square()
        variance = self._total(zeros.index_add(0, level, squares.mean(2) * share))
        with torch.no_grad():
            values = count[:, None] * rows.shape[2]
            # As torch: normalize by the biased variance, track the unbiased one.
            unbiased = variance * values / (values - 1).clamp(min=1)
            # Levels without rows in this batch keep their statistics: momentum 0.
            momentum = _MOMENTUM * (count > 0).to(rows.dtype)[:, None]
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(unbiased, momentum)
            self.num_batches_tracked += count > 0
        return mean[level], variance[level]

    def _total(self, values: Tensor) -> Tensor:
        return total(values) if self._synchronized else values


def row_norm(kind: RowNorm, width: int, levels: int) -> nn.Module:
    """Returns a norm for `(B, C)`, shared by all levels if `levels` is 0."""
    if kind == "none":
        return SharedNorm(nn.Identity())
    if levels:
        return LevelBatchNorm(width, levels) if kind == "batch" else LevelGroupNorm(1, width, levels)
    return SharedNorm(nn.BatchNorm1d(width) if kind == "batch" else nn.LayerNorm(width))


def image_norm(kind: ImageNorm, channels: int, levels: int) -> nn.Module:
    """Returns a norm for `(B, C, H, W)`, shared by all levels if `levels` is 0."""
    if kind == "none":
        return SharedNorm(nn.Identity())
    if kind == "batch":
        return LevelBatchNorm(channels, levels) if levels else SharedNorm(nn.BatchNorm2d(channels))
    groups = math.gcd(channels, 8) if kind == "group" else 1
    return LevelGroupNorm(groups, channels, levels) if levels else SharedNorm(nn.GroupNorm(groups, channels))
