"""Harmonic wells U = ½ k x² in units of kT: works of a sudden change of stiffness, and their free energy.

x ~ N(0, 1/k₀),   W_F = ½ (k₁ - k₀) x²        x ~ N(0, 1/k₁),   W_R = ½ (k₀ - k₁) x²        ΔF = ½ log(k₁ / k₀)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sudden(start: float, end: float, num: int, generator: torch.Generator) -> Tensor:
    """Works `(num,)` of changing the stiffness from `start` to `end` at once."""
    x = torch.randn(num, generator=generator, dtype=torch.float64) / math.sqrt(start)
    return 0.5 * (end - start) * x.square()


def free_energy(start: float, end: float) -> float:
    """ΔF, from the partition functions √(2π / k)."""
    return 0.5 * math.log(end / start)
