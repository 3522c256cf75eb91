"""A Metropolis sampler, and a chain in closed form that rotates: a plugin in one file (docs/chains.md).

export WALKBACK_PLUGINS=examples/metropolis.py
walkback chain new metropolis -o metropolis.safetensors
walkback diagnose mixing metropolis.safetensors
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import PositiveFloat
from torch import Tensor

from walkback.component import Component
from walkback.hookspecs import hookimpl
from walkback.kernels import Kernel, NormalKernel
from walkback.known import ChainOperator, MetropolisKernel
from walkback.schedules import Level
from walkback.state import State, StateSpace, leaves


def log_density(x: Tensor) -> Tensor:
    """log π(x) up to a constant, nats: a banana, x_1 ~ N(0, 1) and x_2 ~ N(x_1², ¼)."""
    return -0.5 * x[:, 0] ** 2 - 2 * (x[:, 1] - x[:, 0] ** 2) ** 2


class Metropolis(ChainOperator):
    """Proposals N(x, width² I), accepted or rejected: the kernel has an atom at x, and no density."""

    def __init__(self, space: StateSpace, *, width: PositiveFloat = 0.7) -> None:
        super().__init__()
        self.width = width

    def kernel(self, state: State, level: Level) -> Kernel:
        return MetropolisKernel(leaves(state)[0], self.proposal, log_density)

    def proposal(self, state: Tensor) -> Kernel:
        return NormalKernel(state, torch.full_like(state, self.width**2))


class Rotation(ChainOperator):
    """s' ~ N(R s / √2, I / 2), R a rotation by 45°: stationary at N(0, I), and out of equilibrium."""

    def kernel(self, state: State, level: Level) -> Kernel:
        x, y = leaves(state)[0].unbind(1)
        mean = torch.stack([x - y, x + y], 1) / 2
        return NormalKernel(mean, torch.full_like(mean, 0.5))

    def __init__(self, space: StateSpace) -> None:
        super().__init__()


@hookimpl
def walkback_operators() -> Iterable[Component]:
    states = {"data": {"name": "real-states", "shape": [2]}}
    yield Component("metropolis", "metropolis:Metropolis", "Metropolis steps on a banana", states)
    yield Component("rotation", "metropolis:Rotation", "An autoregressive chain that rotates", states)
