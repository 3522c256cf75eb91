"""Chains that are known instead of learned: operators from a kernel in closed form, and kernels without a density.

operators   `ChainOperator`, `StepOperator`
kernels     `StepKernel`, `MetropolisKernel`, and what needs a density

The names of both can be imported from `walkback.known`.
"""

from __future__ import annotations

from walkback.known.kernels import (
    MetropolisKernel,
    StepKernel,
    WithoutDensity,
    has_density,
    require_density,
)
from walkback.known.operators import ChainOperator, StepOperator

__all__ = [
    "ChainOperator",
    "MetropolisKernel",
    "StepKernel",
    "StepOperator",
    "WithoutDensity",
    "has_density",
    "require_density",
]
