"""Detailed balance and the bound: an operator for which every path's bound is exact.

    s' = a R s + √(1 - a²) ε,   ε ~ N(0, I),   R a rotation by `angle` in the plane

At any angle the chain's stationary law π is the standard normal. Heat it at constant temperature with itself, and start
cooling from p* = π. At angle 0 it obeys detailed balance, p(s'|s) π(s) = p(s|s') π(s'), so the bound telescopes:

    L = Σ_t [log p(s_{t-1} | s_t) - log q(s_t | s_{t-1})] + log π(s_K) = log π(s_0)    on every single path.

At another angle the chain goes round in circles, and L falls short of log π(s_0) by the entropy that is produced on the
way: 4 a² sin²(angle) / (1 - a²) nats a step on average over paths that start in π.

    python examples/ar1_detailed_balance.py
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from walkback.kernels import Kernel, NormalKernel
from walkback.operators import Conditional, TransitionOperator
from walkback.processes import TiedProcess
from walkback.schedules import Level, levels_from
from walkback.state import Context, State, leaves
from walkback.walk import Start


@final
class Tied(Conditional):
    """The same kernel in both directions, at any level."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def cooling(self, level: Level) -> Kernel:
        return self._kernel

    def heating(self, level: Level) -> Kernel:
        return self._kernel


@final
class Autoregressive(TransitionOperator):
    """s' = a R s + √(1 - a²) ε in the plane."""

    drift: Tensor

    def __init__(self, a: float, angle: float) -> None:
        super().__init__()
        cosine, sine = math.cos(angle), math.sin(angle)
        rotation = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
        self.register_buffer("drift", a * rotation)
        self._variance = torch.tensor(1 - a**2, dtype=torch.float64)

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        (s,) = leaves(state)
        return Tied(NormalKernel(nn.functional.linear(s, self.drift), self._variance))

    @property
    def max_temperature(self) -> float:
        return 1.0


def log_stationary(s: Tensor) -> Tensor:
    """log π(s), `(B,)`, nats."""
    return NormalKernel(torch.zeros_like(s), torch.ones((), dtype=s.dtype)).log_prob(s)


def shortfall(angle: float, *, a: float = 0.9, num_steps: int = 25, num_paths: int = 10_000) -> Tensor:
    """log π(s_0) - L of each of `num_paths` paths: `(num_paths,)`, nats."""
    generator = torch.Generator().manual_seed(0)
    origin = torch.randn(num_paths, 2, generator=generator, dtype=torch.float64)
    bound = torch.zeros(num_paths, dtype=torch.float64)
    last: State = origin
    levels = levels_from([1.0] * num_steps)
    for step in TiedProcess().path(Autoregressive(a, angle), Start(origin), levels, generator):
        bound += step.log_p - step.log_q
        last = step.target
    return log_stationary(origin) - (bound + log_stationary(leaves(last)[0]))


def entropy_production(angle: float, *, a: float = 0.9, num_steps: int = 25) -> float:
    """What `shortfall` is on average, in closed form: nats."""
    return num_steps * 4 * a**2 * math.sin(angle) ** 2 / (1 - a**2)


def main() -> None:
    """Print both cases."""
    reversible, rotating = shortfall(0.0), shortfall(0.1)
    print(
        f"angle 0    largest |log π(s_0) - L| of {len(reversible):,} paths: {reversible.abs().max():.1e} nats"
    )
    error = rotating.std() / math.sqrt(len(rotating))
    print(f"angle 0.1  mean log π(s_0) - L: {rotating.mean():.2f} ± {error:.2f} nats", end=", ")
    print(f"in closed form {entropy_production(0.1):.2f}")


if __name__ == "__main__":
    main()
