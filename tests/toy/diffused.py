"""Gaussian data under known noise: what is best, and its bound, in closed form (numpy, float64).

    s_0 ~ N(0, diag λ),   s_t = A s_0 + √V ε           A² and V from the time τ_t, `signal_and_noise`

    E[s_0 | s_t] = A λ s_t / (A² λ + V)                Var = λ V / (A² λ + V)
    -L = Σ_d ½ log 2π κ v_1 + m_1 / 2 κ v_1 + Σ_{t≥2} ½ (A²_{t-1}/V_{t-1} - A²_t/V_t) m_t + ½ log(1 + A²_K λ / V_K)

with that mean, m_t = Var, the variance of the posterior above the first level and κ v_1 there, and a prior with the
moments of s_K.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from walkback.networks import Network, Ports, Told
from walkback.noising import Form
from walkback.state import Space
from walkback_paper.denoising import Prediction
from walkback_paper.gaussian import Gaussian

Array: TypeAlias = NDArray[np.float64]

VARIANCES = np.array([2.5, 0.45, 0.05])
"""λ, of mean 1, which is σ_d²."""
FIRST_SHARE = 0.5
"""κ."""
SHARE = 0.1
"""σ / σ_d."""


def signal_and_noise(form: Form, times: Array) -> tuple[Array, Array]:
    """Return A² and V, for σ = 0.1 and σ_d = 1."""
    if form == "exploding":
        return np.ones_like(times), times * SHARE**2
    signal = np.exp(-times * SHARE**2)
    return signal, -np.expm1(-times * SHARE**2)


def best_error(form: Form, times: Array) -> Array:
    """Return Var(s_0 | s_t), `(K, D)`."""
    signal, noise = (part[:, None] for part in signal_and_noise(form, times))
    return np.asarray(VARIANCES * noise / (signal * VARIANCES + noise))


def best_bound(form: Form, temperatures: Array) -> float:
    """Return -E[L] of the best mean, nats."""
    times = np.cumsum(temperatures)
    signal, noise = signal_and_noise(form, times)
    error, ratio = best_error(form, times).sum(1), signal / noise
    first = FIRST_SHARE * noise[0]
    end = 0.5 * np.log1p(ratio[-1] * VARIANCES).sum()
    decoded = 0.5 * len(VARIANCES) * math.log(2 * math.pi * first) + error[0] / (2 * first)
    return float(decoded + 0.5 * np.sum((ratio[:-1] - ratio[1:]) * error[1:]) + end)


@final
class Scaled(Network):
    """A network that multiplies its input by a function of what it is told, a number per dimension.

    Args:
        build: Returns the module from log2 of the times `(B,)` to factors `(B, D)`.
    """

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        self._build = build

    def build(self, ports: Ports) -> nn.Module:
        factors = self._build()

        class Applied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.factors = factors

            def forward(self, state: Tensor, told: Told) -> tuple[Tensor, ...]:
                return (self.factors(told.log2_temperature.double()) * state,)

        return Applied()


def best_factors(form: Form, mean: Prediction) -> Callable[[Tensor], Tensor]:
    """Return what the network's input is multiplied by where the mean of the reverse is the best one.

    The input is z = s_t / √S with S = A² + V, as σ_d = 1. With E[s_0 | s_t] = g s_t, the outputs for x, ε and v are

        g √S z,    (1 - A g) √(S / V) z,    (A - g S) / √V z
    """

    def factors(log2_time: Tensor) -> Tensor:
        scaled = log2_time[:, None].exp2() * SHARE**2
        exploding = form == "exploding"
        square = torch.ones_like(scaled) if exploding else (-scaled).exp()
        noise = scaled if exploding else -(-scaled).expm1()
        variances = torch.from_numpy(VARIANCES)
        signal, size = square.sqrt(), square + noise
        gain = signal * variances / (square * variances + noise)
        if mean == "x":
            return gain * size.sqrt()
        if mean == "epsilon":
            return (1 - signal * gain) * (size / noise).sqrt()
        return (signal - size * gain) / noise.sqrt()

    return factors


@final
class _Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, log2_time: Tensor) -> Tensor:
        return self._function(log2_time)


def operator_of(form: Form, mean: Prediction, build: Callable[[], nn.Module]) -> Gaussian:
    """An operator of known noise whose network is `Scaled`, fitted to N(0, diag λ), in float64."""
    operator = Gaussian(
        Space((3,)), Scaled(build), mean=mean, diffusion=form, variance="fixed", sigma_share=SHARE
    )
    # Two examples of variance λ in each direction; only the mean over directions enters.
    deviations = torch.from_numpy(np.sqrt(VARIANCES))
    operator.fit_data(torch.stack([deviations, -deviations]))
    return operator.double()


def best_operator(form: Form, mean: Prediction = "epsilon") -> Gaussian:
    """The operator with the best mean."""
    return operator_of(form, mean, lambda: _Function(best_factors(form, mean)))
