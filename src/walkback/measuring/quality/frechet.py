"""Distances of two sets of features, and the score of a classifier. The distances need torchmetrics.

    Fréchet   ‖m - m′‖² + tr(C + C′ - 2 (C C′)^½)                      of means and covariances (Heusel et al., 2017)
    kernel    unbiased MMD² with k(f, f′) = (f·f′ / F + 1)³            (Bińkowski et al., 2018)
    score     exp E_x KL(p(y | x) ‖ p(y)),  from 1 to the number of classes    (Salimans et al., 2016)

With Inception's features these are FID, KID and the Inception score. With other features, numbers are only comparable
if they have the same features and number of examples: the Fréchet distance of n examples is too large by O(1/n).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from walkback.errors import WalkbackError
from walkback.measuring.quality.wasserstein import flat_pair
from walkback.support.extras import require


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Return the Fréchet distance of features `(N, F)` and `(M, F)`, in the squared units of the features.

    Raises:
        ConfigurationError: torchmetrics is not installed.
        WalkbackError: A set has fewer than two rows or is not finite, or their shapes differ.
    """
    first, second = _features(x, y)
    given = _Given(first.shape[1])
    metric = require("torchmetrics.image.fid", "eval").FrechetInceptionDistance(given, normalize=True)
    metric = metric.to(first.device).set_dtype(torch.float64)
    metric.update(first, real=True)
    metric.update(second, real=False)
    return float(metric.compute())


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Return the kernel distance of features `(N, F)` and `(N, F)`; may be negative if their distributions are equal.

    Raises:
        ConfigurationError: torchmetrics is not installed.
        WalkbackError: The sets differ in size, have fewer than two rows, or are not finite.
    """
    first, second = _features(x, y)
    if len(first) != len(second):
        raise WalkbackError(f"Got {len(first)} and {len(second)} features, expected equally many of both.")
    # Call the function and not the metric class, which draws subsets from torch's global generator.
    return float(require("torchmetrics.image.kid", "eval").poly_mmd(first, second))


def classifier_score(log_probs: Tensor) -> float:
    """Return exp E KL(p(y | x) ‖ p(y)) from log p(y | x) of samples, `(N, K)`."""
    rows = log_probs.detach().double()
    marginal = rows.exp().mean(0)
    return float((torch.special.entr(marginal).sum() - torch.special.entr(rows.exp()).sum(1).mean()).exp())


@final
class _Given(nn.Module):
    """The feature network that torchmetrics requires; passes precomputed features through."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        """Return the features unchanged."""
        return features


def _features(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    first, second = flat_pair(x, y)
    if min(len(first), len(second)) < 2:
        raise WalkbackError(f"Got {len(first)} and {len(second)} features, expected at least 2 of both.")
    return first, second
