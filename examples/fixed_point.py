"""What a Gaussian step can keep: the operator that the walkback rule settles on, computed exactly in one dimension.

Data p, smoothed by noise ν: q_0 = p * N(0, ν²). All steps at T = 1, n of them more than one, n ~ U{0 … N1}:

    heating     s_t ~ N(m(s_{t-1}), σ²),   s_0 ~ q_0
    the rule    m(s) ← E[s_{t-1} | s_t = s],   over all steps that are scored, until m stays as it is

On a grid both are sums, so nothing is trained and nothing is drawn. The chain at T = 1 is then either the heating
kernel itself (`fixed`), or the cooling kernel that learns its variance, N(m(s), Var[s_{t-1} | s_t = s]) (`reverse`).
Its stationary law π should be q_0. For Gaussian data it is. In general it cannot be. Detailed balance asks that

    log q(s) - |m(s)|² / 2σ² + s'·m(s) / σ² - |s'|² / 2σ²

be symmetric in s and s', so that ∂m_j(s)/∂s_i = ∂m_i(s')/∂s'_j for all s and s': both are one constant matrix, and m is
affine. So only small steps keep other data, small compared with the scale on which q_0 changes, which is at least ν.

The objective `conditional` asks for E[s_{t-1} | s_t, x] instead, of a walk that is linear around the example x. Where
this dimension is one of many, most of which never vary,

    m(s) ← b s + (1 - b) E[x | s_t = s],   b = √(1 - σ²/ν²)

    python examples/fixed_point.py
    python examples/fixed_point.py --conditional
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NARROW, BROAD = (0.3, 1.6, 0.15), (0.7, -0.8, 0.8)
"""Weight, mean and standard deviation of the two modes of p."""

GRID = torch.linspace(-5, 6, 600, dtype=torch.float64)
STEP = (GRID[1] - GRID[0]).item()
ROUNDS, SLOWLY, CLOSE = 5000, 0.5, 1e-7


@dataclass(frozen=True, slots=True)
class Chain:
    """The chain at T = 1 of an operator.

    Attributes:
        weight: Stationary probability of the narrow mode.
        distance: Total variation distance of the stationary law from q_0.
        relaxation: Steps in which the slowest deviation falls by e.
        production: Entropy production, nats a step; 0 under detailed balance.
    """

    weight: float
    distance: float
    relaxation: float
    production: float


def normal(mean: Tensor | float, deviation: Tensor | float) -> Tensor:
    """Densities at the points of the grid, each row summing to 1 over it."""
    density = torch.exp(-0.5 * ((GRID - mean) / deviation) ** 2)
    return density / (density.sum(-1, keepdim=True) * STEP)


def smoothed(nu: float) -> tuple[Tensor, Tensor]:
    """q_0 `(N,)`, and the probability `(N,)` that a point of it is of the narrow mode."""
    narrow, broad = (
        weight * normal(mean, math.hypot(deviation, nu)) for weight, mean, deviation in (NARROW, BROAD)
    )
    return narrow + broad, narrow / (narrow + broad).clamp(min=1e-300)


def example_law(nu: float) -> Tensor:
    """∫ x p(x) N(s; x, ν²) dx, `(N,)`: q_0(s) E[x | s_0 = s]."""
    total = torch.zeros_like(GRID)
    for weight, mean, deviation in (NARROW, BROAD):
        variance = deviation**2 + nu**2
        total += weight * normal(mean, math.sqrt(variance)) * (mean + deviation**2 / variance * (GRID - mean))
    return total


def rule(mean: Tensor, q_0: Tensor, sigma: float, n1: int) -> tuple[Tensor, Tensor]:
    """E and Var of s_{t-1} given s_t, `(N,)` each, over the steps of walks that heat by N(mean, σ²)."""
    kernel = normal(mean[:, None], sigma)
    moments = torch.zeros(3, len(GRID), dtype=torch.float64)
    powers = torch.stack([torch.ones_like(GRID), GRID, GRID**2])
    law = q_0
    for t in range(n1 + 1):
        scored = (n1 + 1 - t) / (n1 + 1)  # the walks that are that long
        moments += scored * (powers * law) @ kernel * STEP
        law = law @ kernel * STEP
    seen = moments[0] > 1e-12
    safe = moments[0].clamp(min=1e-300)
    first, second = moments[1] / safe, moments[2] / safe
    return torch.where(seen, first, mean), torch.where(seen, second - first**2, sigma**2)


def conditional_rule(mean: Tensor, q_0: Tensor, sigma: float, nu: float, n1: int) -> Tensor:
    """What `conditional` asks of the mean, `(N,)`, over the steps of walks that heat by N(mean, σ²), σ < ν."""
    kernel = normal(mean[:, None], sigma)
    share = math.sqrt(1 - (sigma / nu) ** 2)
    law, examples = q_0, example_law(nu)
    seen, asked = torch.zeros_like(GRID), torch.zeros_like(GRID)
    for t in range(n1 + 1):
        scored = (n1 + 1 - t) / (n1 + 1)
        law, examples = law @ kernel * STEP, examples @ kernel * STEP
        seen += scored * law
        asked += scored * (share * GRID * law + (1 - share) * examples)
    return torch.where(seen > 1e-12, asked / seen.clamp(min=1e-300), mean)


def settle(q_0: Tensor, sigma: float, n1: int) -> tuple[Tensor, Tensor]:
    """The mean map that the rule leaves as it is, and the variance that goes with it."""
    mean = _left_alone(lambda mean: rule(mean, q_0, sigma, n1)[0])
    return mean, rule(mean, q_0, sigma, n1)[1]


def settle_conditional(q_0: Tensor, sigma: float, nu: float, n1: int) -> tuple[Tensor, Tensor]:
    """The mean map that `conditional` leaves as it is, and the variance of the steps that it walks back."""
    mean = _left_alone(lambda mean: conditional_rule(mean, q_0, sigma, nu, n1))
    return mean, rule(mean, q_0, sigma, n1)[1]


def _left_alone(improve: Callable[[Tensor], Tensor]) -> Tensor:
    mean = GRID.clone()
    for _ in range(ROUNDS):
        better = improve(mean)
        if (better - mean).abs().max() < CLOSE:
            return mean
        mean = torch.lerp(mean, better, SLOWLY)
    raise ArithmeticError(f"Got no fixed point in {ROUNDS} rounds.")


def chain(mean: Tensor, variance: Tensor | float, q_0: Tensor, narrow: Tensor) -> Chain:
    """The chain s' ~ N(mean, variance)."""
    deviation = torch.as_tensor(variance, dtype=torch.float64).expand(len(GRID)).clamp(min=1e-4).sqrt()
    kernel = normal(mean[:, None], deviation[:, None])
    values, vectors = torch.linalg.eig(kernel.T * STEP)
    order = values.abs().argsort(descending=True)
    law = vectors[:, order[0]].real
    law = law / (law.sum() * STEP)
    flow = (law[:, None] * kernel).clamp(min=1e-300)
    return Chain(
        weight=((law * narrow).sum() * STEP).item(),
        distance=((law - q_0).abs().sum() * STEP / 2).item(),
        relaxation=-1 / values[order[1]].abs().log().item(),
        production=(((flow - flow.T) * (flow / flow.T).log()).sum() * STEP**2 / 2).item(),
    )


def main(pairs: list[tuple[float, float]], lengths: list[int], *, conditional: bool) -> None:
    """Print a row for each smoothing, σ and N1."""
    print(f"narrow mode: {NARROW[0]} of the data")
    print("   ν     σ   N1     fixed: weight  distance  relaxation  nats/step    reverse: weight  distance")
    for nu, sigma in pairs:
        for n1 in lengths:
            q_0, narrow = smoothed(nu)
            mean, variance = settle_conditional(q_0, sigma, nu, n1) if conditional else settle(q_0, sigma, n1)
            fixed, reverse = chain(mean, sigma**2, q_0, narrow), chain(mean, variance, q_0, narrow)
            print(
                f"{nu:5.2f} {sigma:5.2f} {n1:4d} {fixed.weight:17.3f} {fixed.distance:9.3f} {fixed.relaxation:11.0f} "
                f"{fixed.production:10.1e} {reverse.weight:18.3f} {reverse.distance:9.3f}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The operator that walkback settles on, in one dimension.")
    parser.add_argument("--all", action="store_true", help="every row of the documentation, a minute")
    parser.add_argument("--conditional", action="store_true", help="the objective `conditional`, for σ < ν")
    arguments = parser.parse_args()
    every = arguments.all
    same = [(0.6, 0.6), (0.3, 0.3), (0.2, 0.2), (0.1, 0.1), (0.05, 0.05)]
    larger = [(0.3, 0.2), (0.3, 0.15), (0.3, 0.1), (0.3, 0.05)]
    few = [(0.3, 0.15)] if arguments.conditional else [(0.3, 0.3), (0.3, 0.15)]
    most = larger if arguments.conditional else [*same, *larger]
    main(most if every else few, [0, 8, 24] if every else [0, 8], conditional=arguments.conditional)
