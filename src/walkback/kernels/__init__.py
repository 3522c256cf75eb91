"""Transition kernels p_T(· | s): distributions over the next state, one per row of the batch.

    base         interfaces: `Kernel`, and the capabilities `Reparametrized`, `Expecting`, `Divergent`
    normal       `NormalKernel`, `normal_at`
    discretized  `DiscretizedKernel`, `discretized_at`: normal distributions of gray levels
    discrete     `BernoulliKernel`, `CategoricalKernel`, `bernoulli_at`, `categorical_at`
    joint        `ProductKernel`, `StackedKernel`, and functions of any kernel: `expectation`, `divergence`

The temperature is applied when a kernel is constructed. `normal_at` uses a temperature law (`walkback.temperature`),
by default a factor T on the variance; `bernoulli_at` and `categorical_at` divide the logits by T (section 3.3 of the
paper). Rows may have different temperatures.
"""

from __future__ import annotations

from walkback.kernels.base import Divergent, Expecting, Kernel, Reparametrized
from walkback.kernels.discrete import BernoulliKernel, CategoricalKernel, bernoulli_at, categorical_at
from walkback.kernels.discretized import DiscretizedKernel, discretized_at
from walkback.kernels.joint import ProductKernel, StackedKernel, divergence, expectation, stacked
from walkback.kernels.normal import NormalKernel, normal_at

__all__ = [
    "BernoulliKernel",
    "CategoricalKernel",
    "DiscretizedKernel",
    "Divergent",
    "Expecting",
    "Kernel",
    "NormalKernel",
    "ProductKernel",
    "Reparametrized",
    "StackedKernel",
    "bernoulli_at",
    "categorical_at",
    "discretized_at",
    "divergence",
    "expectation",
    "normal_at",
    "stacked",
]
