"""Optimal transport between two sets of states.

W_2² = min_π Σ_ij π_ij ‖x_i - y_j‖²                                 π with uniform marginals
in one dimension   ∫₀¹ (F⁻¹(u) - G⁻¹(u))² du                        by sorting, exactly
sliced             SW_2² = E_θ W_2²(⟨θ, x⟩, ⟨θ, y⟩)                 θ uniform on the sphere (Bonneel et al., 2015)
entropic           S_ε = OT_ε(x, y) - ½ OT_ε(x, x) - ½ OT_ε(y, y)   → W_2² as ε → 0 (Feydy et al., 2019)

Distances are in the units of the states. Between two finite samples of one distribution they are positive, and decrease
with the sample sizes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from walkback.errors import ConfigurationError, WalkbackError
from walkback.support.extras import require


class Sliced(NamedTuple):
    """SW_2 in the units of the states, and its standard error from the number of projections alone."""

    value: float
    error: float


def flat_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return two sets `(N, *E)` and `(M, *E)` as float64 rows `(N, D)` and `(M, D)` on the device of the first.

    Raises:
        WalkbackError: One is empty, their event shapes differ, or a value is not finite.
    """
    if x.shape[1:] != y.shape[1:] or min(x.shape[:1], default=0) < 1 or min(y.shape[:1], default=0) < 1:
        raise WalkbackError(
            f"Got sets of shapes {tuple(x.shape)} and {tuple(y.shape)}, expected nonempty (N, *E) and (M, *E)."
        )
    first = x.detach().double().reshape(len(x), -1)
    second = y.detach().to(first).reshape(len(y), -1)
    if not bool(first.isfinite().all() and second.isfinite().all()):
        raise WalkbackError("Got states with NaN or infinity, expected finite ones.")
    return first, second


def squared_wasserstein_1d(x: Tensor, y: Tensor) -> Tensor:
    """Return the exact W_2² of each column `(P,)`, for sets of numbers `(N, P)` and `(M, P)`."""
    # In one dimension the optimal plan keeps the order, so it pairs quantiles; sorting makes the quantile functions.
    first, second = x.sort(0).values, y.sort(0).values
    num, other = len(first), len(second)
    if num == other:
        return (first - second).square().mean(0)
    # Both quantile functions are piecewise constant, with steps at i / N and j / M. In integer units of 1 / (N M) the
    # steps are exact; steps that coincide leave an interval of width 0, which contributes nothing.
    steps = torch.cat([torch.arange(1, num + 1) * other, torch.arange(1, other + 1) * num]).sort().values
    widths = steps.diff(prepend=steps.new_zeros(1))
    weights = (widths.double() / (num * other)).to(first)
    # On the interval that ends at step s, F⁻¹ is the value of rank ⌈s / M⌉ (counted from 1): index (s - 1) // M.
    rows, columns = ((steps - 1) // other).to(x.device), ((steps - 1) // num).to(x.device)
    squares: Tensor = weights[:, None] * (first[rows] - second[columns]).square()
    return squares.sum(0)


def directions(dim: int, num: int, generator: torch.Generator) -> Tensor:
    """Draw independent uniform directions `(D, num)`, float64, on the generator's device."""
    normal = torch.randn(dim, num, dtype=torch.float64, generator=generator, device=generator.device)
    return normal / normal.square().sum(0).sqrt()


def sliced_wasserstein(x: Tensor, y: Tensor, along: Tensor) -> Sliced:
    """Compute SW_2 of two sets of states.

    Args:
        x: States `(N, *E)`.
        y: States `(M, *E)`.
        along: Directions `(D, P)` from `directions`; distances are comparable if they share the directions.

    Raises:
        WalkbackError: A set is empty or not finite, or their event shapes differ.
    """
    first, second = flat_pair(x, y)
    projections = along.to(first)
    squares = squared_wasserstein_1d(first @ projections, second @ projections)
    value = squares.mean().sqrt().item()
    if value == 0 or squares.numel() < 2:
        return Sliced(value, 0.0)
    # Delta method: d SW = d SW² / (2 SW).
    return Sliced(value, squares.std().item() / math.sqrt(squares.numel()) / (2 * value))


def entropic_wasserstein(x: Tensor, y: Tensor, blur: float) -> float:
    """Compute √S_ε with √ε = blur: close to W_2 for distances above `blur`, insensitive below. Needs geomloss.

    Args:
        x: States `(N, *E)`.
        y: States `(M, *E)`.
        blur: √ε, in the units of the states.

    Raises:
        ConfigurationError: `blur` is not positive, or geomloss is not installed.
        WalkbackError: A set is empty or not finite, or their event shapes differ.
    """
    if not (math.isfinite(blur) and blur > 0):
        raise ConfigurationError(f"Got blur {blur!r}, expected a positive finite number.")
    first, second = flat_pair(x, y)
    # W_2 does not depend on the origin, but rounding of the costs does.
    centre = first.mean(0)
    loss = require("geomloss", "eval").SamplesLoss(
        "sinkhorn", p=2, blur=blur, scaling=0.8, debias=True, backend="tensorized"
    )
    # geomloss uses the cost ½ ‖x - y‖². S_ε ≥ 0, but Sinkhorn's iteration stops at a tolerance.
    return math.sqrt(max(0.0, 2 * float(loss(first - centre, second - centre))))
