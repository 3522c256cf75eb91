"""Does a sampler draw from its own density? Both are seen only through `Kernel.sample` and `Kernel.log_prob`.

For kernels whose dimensions are independent: the density of each dimension is read off `log_prob` along that axis.
Draws mapped through its distribution function (at random within the jumps of bits) must be uniform and unrelated; the
mean of `log_prob` over draws must be minus the entropy; and the density must integrate to one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import TypeAlias

import numpy as np
import torch
from scipy import stats
from tests.toy.statistics import rng, z_of_p, z_score
from torch import Tensor

from walkback.kernels import Kernel
from walkback.state import State, StateSpace, leaves, map_state, spaces

KernelOf: TypeAlias = Callable[[int], Kernel]
"""Number of rows → a kernel whose rows all have the same distribution."""

_GRID = 8001
_MASS = 1e-6


def misfit(kernel: KernelOf, space: StateSpace, num: int = 80_000, seed: int = 0) -> float:
    """Largest |z| of all checks on `num` draws; infinite where the density is not normalized."""
    drawn = kernel(num)
    draws = drawn.sample(rng(seed))
    axes = _axes(kernel, space, draws)
    log_mass = float(kernel(1).log_prob(_reference(draws, 1))[0]) + sum(axis.log_mass for axis in axes)
    if abs(log_mass) > _MASS:
        return math.inf
    jumps = np.random.default_rng(seed)
    uniforms = [axis.transform(values, jumps) for axis, values in zip(axes, _columns(draws), strict=True)]
    scores = [stats.norm.ppf(np.clip(uniform, 1e-12, 1 - 1e-12)) for uniform in uniforms]
    checks = [z_of_p(stats.kstest(uniform, "uniform").pvalue) for uniform in uniforms]
    checks += [_unrelated(f(a), f(b)) for a, b in combinations(scores, 2) for f in (np.asarray, np.square)]
    checks += [_unrelated(score[1:], score[:-1]) for score in scores]
    checks.append(abs(z_score(drawn.log_prob(draws), -sum(axis.entropy for axis in axes))))
    return max(checks)


def _unrelated(a: np.ndarray, b: np.ndarray) -> float:
    """|z| of the correlation of two independent samples."""
    return float(abs(np.corrcoef(a, b)[0, 1]) * math.sqrt(len(a)))


def _columns(state: State) -> list[np.ndarray]:
    """Every dimension of every leaf, `(B,)` each."""
    return [column for leaf in leaves(state) for column in leaf.flatten(1).double().numpy().T]


class _Axis:
    """One dimension: its values, and the log-density along it relative to the reference point."""

    def __init__(self, values: np.ndarray, relative: np.ndarray, binary: bool) -> None:
        self._values = values
        self._binary = binary
        density = np.exp(relative)
        step = 1.0 if binary else values[1] - values[0]
        mass = density.sum() * step
        self.log_mass = float(np.log(mass))
        density = density / mass
        self.entropy = float(-(density * np.log(np.maximum(density, 1e-300))).sum() * step)
        if binary:
            self._below = np.array([0.0, density[0], 1.0])
        else:
            trapezoids = (density[1:] + density[:-1]) / 2 * step
            self._below = np.concatenate([[0.0], np.cumsum(trapezoids)])

    def transform(self, draws: np.ndarray, jumps: np.random.Generator) -> np.ndarray:
        """Probability integral transform."""
        if not self._binary:
            return np.interp(draws, self._values, self._below)
        low, high = self._below[draws.astype(int)], self._below[draws.astype(int) + 1]
        return low + (high - low) * jumps.random(len(draws))


def _axes(kernel: KernelOf, space: StateSpace, draws: State) -> list[_Axis]:
    axes = []
    for index, leaf in enumerate(spaces(space)):
        for position in range(leaf.size):
            column = leaves(draws)[index].flatten(1)[:, position].double()
            binary = leaf.support == "binary"
            values = torch.arange(2.0).double() if binary else _mesh(column)
            state = _reference(draws, len(values))
            leaves(state)[index].view(len(values), -1)[:, position] = values
            log_density = kernel(len(values)).log_prob(state)
            origin = kernel(1).log_prob(_reference(draws, 1))
            axes.append(_Axis(values.numpy(), (log_density - origin).double().numpy(), binary))
    return axes


def _mesh(column: Tensor) -> Tensor:
    """Points over twenty standard deviations to both sides."""
    middle, spread = float(column.mean()), float(column.std())
    return torch.linspace(middle - 20 * spread, middle + 20 * spread, _GRID, dtype=torch.float64)


def _reference(draws: State, rows: int) -> State:
    """The first draw, repeated."""
    return map_state(lambda leaf: leaf[:1].repeat(rows, *(1,) * (leaf.dim() - 1)), draws)
