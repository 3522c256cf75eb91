"""Judging random results: z-scores against one limit, so that every test states how often chance alone fails it."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor

LIMIT = 4.5
"""Largest |z| taken for chance: a correct program exceeds it with probability 6.8e-6 a comparison."""


def rng(seed: int = 0) -> torch.Generator:
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64, unrelated to the noise that `rng(seed)` would draw."""
    return torch.randn(shape, generator=rng(1000 + seed), dtype=torch.float64)


def z_score(samples: Tensor, expected: float) -> float:
    """(mean - expected) / standard error of independent `samples`."""
    values = samples.double().flatten()
    return float((values.mean() - expected) / (values.std() / math.sqrt(len(values))))


def z_of_p(p: float) -> float:
    """The |z| that a two-sided p-value stands for."""
    return float(stats.norm.isf(max(p, 1e-300) / 2))


def z_of_counts(counts: Tensor, probabilities: Tensor) -> float:
    """Chi-square test of counts against cell probabilities, as |z|."""
    total = float(counts.sum())
    return z_of_p(stats.chisquare(counts.double().numpy(), total * probabilities.double().numpy()).pvalue)


def z_of_variance(samples: Tensor, variance: float) -> float:
    """Sample variance of normal `samples` against the true one."""
    values = samples.double().flatten()
    return float((values.var() / variance - 1) / math.sqrt(2 / (len(values) - 1)))


def normal_log_density(
    x: np.ndarray | float, mean: np.ndarray | float, variance: np.ndarray | float
) -> np.ndarray:
    """log N(x; mean, variance), by scipy."""
    return np.asarray(stats.norm.logpdf(x, mean, np.sqrt(variance)))
