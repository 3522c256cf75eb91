"""Linear operators with weights, Gaussian data without end, and their theory in closed form (numpy, float64).

    LinearOperator   s' = a s + √v ε,   a per level, replicate and direction, v = T σ² (tied);
                     with a cooling variance T σ² ρ, ρ > 0 learned as well (reverse)
    MatrixOperator   s' = A s + √v ε,   A per replicate, free to turn the state (tied)
    Endless          s_0 ~ N(0, F F'), drawn anew for every walk

An event has shape (R, D): D directions of different variance, and R replicates of each, with weights, data and noise
of their own. Replicates never meet (Adam and the weight average work element by element, gradients are not clipped), so
one training is R independent ones, and the spread over replicates is the error of their mean.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from tests.toy.exact import Pair
from torch import Tensor, nn

from walkback.data import DataInfo, Dataset, Split
from walkback.kernels import Kernel, normal_at
from walkback.operators import Conditional, TransitionOperator
from walkback.schedules import Level
from walkback.state import Context, State, leaves

Array: TypeAlias = NDArray[np.float64]
Tie: TypeAlias = Literal["transition", "state"]


@final
class LinearConditional(Conditional):
    """N(a s, v_T) with the coefficient of the transition, or of the state where that is tied."""

    def __init__(self, operator: LinearOperator, state: Tensor, level: Level) -> None:
        self._operator = operator
        self._state = state
        self._level = level

    def _mean(self, level: Level) -> Tensor:
        seen = level if self._operator.tie == "transition" else self._level
        return self._operator.coefficient[int(seen.step) - 1] * self._state

    def cooling(self, level: Level) -> Kernel:
        return normal_at(self._mean(level), self._operator.cooling_variance(level), level)

    def heating(self, level: Level) -> Kernel:
        return normal_at(self._mean(level), self._operator.noise_variance, level)


@final
class LinearOperator(TransitionOperator):
    """One coefficient, and one cooling variance where it is learned, per level, replicate and direction.

    Args:
        shape: (K, R, D).
        sigma: σ of the heating noise.
        reverse: Whether cooling has a variance of its own; else both directions have T σ².
        tie: "transition": step t has one coefficient for both directions, the theory's tied operator. "state": s_t has
            one for the step that led there and the step that leaves, as operators have whose network sees the level.
    """

    noise_variance: Tensor

    def __init__(
        self, shape: tuple[int, int, int], sigma: float, *, reverse: bool, tie: Tie = "transition"
    ) -> None:
        super().__init__()
        self.tie = tie
        self.coefficient = nn.Parameter(torch.ones(shape, dtype=torch.float64))
        self.log_ratio = nn.Parameter(torch.zeros(shape, dtype=torch.float64)) if reverse else None
        self.register_buffer("noise_variance", torch.full((1, *shape[1:]), sigma**2, dtype=torch.float64))

    @property
    def max_temperature(self) -> float:
        return 1.0

    def cooling_variance(self, level: Level) -> Tensor:
        """At T = 1, `(1, R, D)`."""
        if self.log_ratio is None:
            return self.noise_variance
        return self.noise_variance * self.log_ratio[int(level.step) - 1].exp()

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        return LinearConditional(self, leaves(state)[0], level)


@final
class MatrixOperator(TransitionOperator):
    """One matrix per replicate for both directions, at every temperature.

    Args:
        matrix: (D, D), where training starts.
        replicates: R.
        sigma: σ of the noise.
    """

    noise_variance: Tensor

    def __init__(self, matrix: Array, replicates: int, sigma: float) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.from_numpy(matrix).repeat(replicates, 1, 1))
        self.register_buffer("noise_variance", torch.full((1, 1, 1), sigma**2, dtype=torch.float64))

    @property
    def max_temperature(self) -> float:
        return 1.0

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        (x,) = leaves(state)
        mean = (self.matrix @ x[..., None])[..., 0]
        spread = self.noise_variance.expand(1, *x.shape[1:])
        return Pair(lambda at: normal_at(mean, spread, at))


@final
class Endless(Dataset):
    """N(0, F F') in R replicates: new states each time they are asked for, so that no error comes from a finite set."""

    def __init__(self, factor: Array, replicates: int, rows: int) -> None:
        self._factor = torch.from_numpy(factor)
        self._shape = (replicates, len(factor))
        self._rows = rows

    def prepare(self) -> None:
        """Nothing to do."""

    @property
    def info(self) -> DataInfo:
        return DataInfo("endless", self._shape, "real")

    def examples(self, split: Split) -> Tensor:
        return torch.zeros(self._rows, 1)

    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(len(rows), *self._shape, generator=generator, dtype=torch.float64) @ self._factor.T


# --- theory, with nothing of the program


def heated_variances(variances: Array, heating: Array, noise: Array) -> Array:
    """u_0 … u_K of s_t = c_t s_{t-1} + √v_t ε: `(K + 1, …)` from coefficients `(K, …)` and noise `(K,)`."""
    found = [np.broadcast_to(variances, heating.shape[1:])]
    for c, v in zip(heating, noise, strict=True):
        found.append(c**2 * found[-1] + v)
    return np.stack(found)


def self_consistent_coefficients(variances: Array, noise: Array) -> Array:
    """a_t = √(1 - v_t / u_{t-1}) where u_{t-1} > v_t, else 0, level by level: `(K, D)`."""
    u, found = variances, []
    for v in noise:
        found.append(np.sqrt(np.maximum(1 - v / u, 0)))
        u = np.maximum(u, v)  # a wide direction keeps its variance, a thin one takes the noise's
    return np.stack(found)


def state_tied_coefficients(variances: Array, noise: Array) -> Array:
    """a_t = Cov(s_{t-1}, s_t) / Var(s_t) where step t + 1 heats with a_t, and step 1 with a_1: `(K, D)`."""
    a = np.sqrt(np.maximum(1 - noise[0] / variances, 0))
    u, found = variances, []
    for v in noise:
        heated = a**2 * u + v
        a = a * u / heated
        u = heated
        found.append(a)
    return np.stack(found)


def path_divergence(
    variances: Array,
    heating: Array,
    noise: Array,
    cooling: Array,
    cooling_noise: Array,
    prior_mean: Array,
    prior_variance: Array,
) -> Array:
    """KL(q(s_0 … s_K) || p(s_0 … s_K)) per direction, nats: the gap of the bound.

    Both are (K + 1)-dimensional Gaussians. Their covariances come from the maps that make paths out of noise, and the
    divergence from the textbook formula ½ [tr(Σ_p⁻¹ Σ_q) + m' Σ_p⁻¹ m - (K + 1) + log |Σ_p| - log |Σ_q|].

    Args:
        variances: u, `(…)` of s_0.
        heating: c_t, `(K, …)`.
        noise: v_t, `(K,)`.
        cooling: a_t of s_{t-1} = a_t s_t + √r_t ε, `(K, …)`.
        cooling_noise: r_t, `(K, …)`.
        prior_mean: `(…)`.
        prior_variance: `(…)`.
    """
    num_steps, events = heating.shape[0], heating.shape[1:]
    size = num_steps + 1
    up, down = np.zeros((*events, size, size)), np.zeros((*events, size, size))
    up[..., 0, 0] = np.sqrt(variances)
    down[..., -1, -1] = np.sqrt(prior_variance)
    mean = np.zeros((*events, size))
    mean[..., -1] = prior_mean
    for t in range(1, size):
        up[..., t, :] = heating[t - 1][..., None] * up[..., t - 1, :]
        up[..., t, t] += np.sqrt(noise[t - 1])
    for t in range(num_steps, 0, -1):
        down[..., t - 1, :] = cooling[t - 1][..., None] * down[..., t, :]
        down[..., t - 1, t - 1] += np.sqrt(cooling_noise[t - 1])
        mean[..., t - 1] = cooling[t - 1] * mean[..., t]
    # Σ = M M': traces, forms and determinants from the triangular M, which keeps digits that Σ would lose.
    mixed = np.linalg.solve(down, up)
    shifted = np.linalg.solve(down, mean[..., None])[..., 0]
    logs = 2 * (np.linalg.slogdet(down).logabsdet - np.linalg.slogdet(up).logabsdet)
    return 0.5 * ((mixed**2).sum((-2, -1)) + (shifted**2).sum(-1) - size + logs)


def step_divergences(
    variances: Array, heating: Array, noise: Array, cooling: Array, cooling_noise: Array
) -> Array:
    """E KL(q(s_{t-1} | s_t) || p(s_{t-1} | s_t)) of each step, nats, `(K, …)`: with the prior's they sum to the gap."""
    u = heated_variances(variances, heating, noise)
    covariance = heating * u[:-1]
    posterior = u[:-1] - covariance**2 / u[1:]
    mistake = (covariance / u[1:] - cooling) ** 2 * u[1:]
    return 0.5 * (np.log(cooling_noise / posterior) + (posterior + mistake) / cooling_noise - 1)


def normal_divergence(variance: Array, mean: Array, other: Array) -> Array:
    """KL(N(0, variance) || N(mean, other)), nats."""
    return 0.5 * (np.log(other / variance) + (variance + mean**2) / other - 1)


def entropy(variances: Array) -> float:
    """Of independent normals, nats."""
    return float(0.5 * np.log(2 * math.pi * math.e * variances).sum())


def stationary_covariance(matrix: Array, noise: float) -> Array:
    """S = A S A' + v I of chains s' = A s + √v ε, `(R, D, D)` from `(R, D, D)`."""
    size = matrix.shape[-1]
    kron = np.einsum("rij,rkl->rikjl", matrix, matrix).reshape(-1, size**2, size**2)
    flat = np.broadcast_to(noise * np.eye(size).reshape(-1, 1), (len(matrix), size**2, 1))
    return np.asarray(np.linalg.solve(np.eye(size**2) - kron, flat).reshape(matrix.shape))


def production(matrix: Array, noise: float) -> Array:
    """Entropy per step of stationary chains s' = A s + √v ε scored by their own kernel, nats: `(R,)`.

    E log q(s_1 | s_0) - log p(s_0 | s_1) = (E |s_0 - A s_1|² - D v) / 2 v with s_0 ~ N(0, S) and E s_1 s_0' = A S.
    """
    s = stationary_covariance(matrix, noise)
    turned = np.swapaxes(matrix, -2, -1)
    back = s + matrix @ s @ turned - 2 * matrix @ matrix @ s
    return np.asarray((np.trace(back, axis1=-2, axis2=-1) - matrix.shape[-1] * noise) / (2 * noise))
