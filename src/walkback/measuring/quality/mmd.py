"""Squared maximum mean discrepancy of two sets of samples (Gretton et al., JMLR 2012).

    MMD² = 1/N² Σ_{i,j} k(x_i, x_j) + 1/M² Σ_{i,j} k(y_i, y_j) - 2/(NM) Σ_{i,j} k(x_i, y_j)
    k(x, y) = exp(-‖x - y‖² / (2 h²))

This is the biased V-statistic, the squared distance between the two mean embeddings: never negative, and 0 for equal
sets. If both sets are drawn from the same distribution, its mean is (1/N + 1/M) (1 - E k(x, x′)), not 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from walkback.errors import ConfigurationError, WalkbackError

_BLOCK = 2**21  # kernel values held at a time: 16 MiB


@torch.no_grad()
def mmd_squared(x: Tensor, y: Tensor, bandwidth: float) -> float:
    """Return MMD² of two sets of samples with a Gaussian kernel, see the module's equation.

    Computed in float64 and in blocks: memory grows with N + M, time with (N + M)².

    Args:
        x: Samples `(N, *E)`.
        y: Samples `(M, *E)`.
        bandwidth: h > 0, in the units of the samples.

    Raises:
        ConfigurationError: The bandwidth is not a positive finite number.
        WalkbackError: A set is empty, their event shapes differ, or a sample is not finite.
    """
    if not (math.isfinite(bandwidth) and bandwidth > 0):
        raise ConfigurationError(f"Got bandwidth {bandwidth!r}, expected a positive finite number.")
    if x.shape[1:] != y.shape[1:] or min(x.shape[:1], default=0) < 1 or min(y.shape[:1], default=0) < 1:
        raise WalkbackError(
            f"Got samples of shapes {tuple(x.shape)} and {tuple(y.shape)}, expected (N, *E) and (M, *E): "
            "compare sets of one event shape that are not empty."
        )
    # Center and scale first: ‖x‖² + ‖y‖² - 2 x·y cancels badly for points far from the origin.
    first, second = x.double().reshape(len(x), -1), y.to(x.device, torch.float64).reshape(len(y), -1)
    centre = first.mean(0)
    first, second = (first - centre) / bandwidth, (second - centre) / bandwidth
    if not bool(first.isfinite().all() and second.isfinite().all()):
        raise WalkbackError("Got samples with NaN or infinity, expected finite ones.")
    within = _mean_kernel(first, first) + _mean_kernel(second, second)
    return max(0.0, within - 2 * _mean_kernel(first, second))


def _mean_kernel(x: Tensor, y: Tensor) -> float:
    """Return 1/(NM) Σ exp(-½ ‖x_i - y_j‖²) over rows `(N, D)` and `(M, D)`."""
    rows = max(1, _BLOCK // len(y))
    squares = y.square().sum(1)
    total = 0.0
    for part in torch.split(x, rows):
        distances = part.square().sum(1, keepdim=True) + squares - 2 * part @ y.T
        total += float(distances.clamp(min=0).mul(-0.5).exp().sum())
    return total / (len(x) * len(y))
