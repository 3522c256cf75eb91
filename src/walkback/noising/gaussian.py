"""Gaussian noise around a fixed center m, with closed forms.

    exploding    s_t = s_{t-1} + √v_t ε,                      v_t = T_t σ²
    preserving   s_t = m + a_t (s_{t-1} - m) + √v_t ε,        a_t = exp(-T_t σ²/2σ_d²),   v_t = σ_d² (1 - a_t²)

    q(s_t | s_0)            = N(m + A_t (s_0 - m), V_t)
    q(s_{t-1} | s_t, s_0)   = N(m + A_{t-1} v_t/V_t (s_0 - m) + a_t V_{t-1}/V_t (s_t - m),  v_t V_{t-1}/V_t)

    exploding    A_t = 1,                     V_t = τ_t σ²
    preserving   A_t = exp(-τ_t σ²/2σ_d²),    V_t = σ_d² (1 - A_t²)

The second keeps the variance σ_d² of the data; its β_t = 1 - a_t² of Ho et al. (2020) is about T_t σ²/σ_d².
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor

from walkback.kernels import NormalKernel
from walkback.noising.base import Noise, time_like
from walkback.schedules import Level
from walkback.state import State, leaves
from walkback.support.constraints import Constrained, Constraint, positive

Form: TypeAlias = Literal["exploding", "preserving"]

SMALLEST = 1e-30
"""Variance of the posterior at the first level: its logarithm is finite in single precision."""


FORGOTTEN = 5.0
"""Time in units of σ_d²/σ² after which preserving noise keeps exp(-5/2) of the signal: T_max of a single step."""


@dataclass(frozen=True, slots=True)
class Moments:
    """A linear-Gaussian step or marginal, s → N(m + signal (s - m), variance).

    Attributes:
        signal: a or A, `(1 or B, 1, …)`.
        variance: v or V, `(1 or B, 1, …)`.
    """

    signal: Tensor
    variance: Tensor


@final
class GaussianNoise(Noise, Constrained):
    """Exploding or preserving noise; the equations are in the module's docstring.

    Args:
        form: Whether the variance explodes or is preserved.
        variance: σ², of a step at T = 1.
        center: m, one number for all entries.
        spread: σ_d², the variance of the data around m; used only if it is preserved.
    """

    variance: Tensor
    center: Tensor
    spread: Tensor

    def __init__(self, form: Form, variance: float = 1.0, center: float = 0.0, spread: float = 1.0) -> None:
        super().__init__()
        self.form: Form = form
        self.register_buffer("variance", torch.tensor(variance, dtype=torch.float64))
        self.register_buffer("center", torch.tensor(center, dtype=torch.float64))
        self.register_buffer("spread", torch.tensor(spread, dtype=torch.float64))

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """Variances are positive."""
        return {"variance": positive, "spread": positive}

    @torch.no_grad()
    def fit_data(self, data: Tensor) -> None:
        """Set m and σ_d² from examples `(N, *E)`."""
        self.center.copy_(data.mean())
        self.spread.copy_((data - data.mean()).square().mean().clamp(min=1e-10))

    def of_step(self, level: Level, leaf: Tensor) -> Moments:
        """Return a_t and v_t for states like `leaf` `(B, *E)`."""
        return self._after(time_like(level.temperature, leaf), leaf)

    def of_marginal(self, level: Level, leaf: Tensor) -> Moments:
        """Return A_t and V_t."""
        return self._after(time_like(level.temperature, leaf) + time_like(level.elapsed, leaf), leaf)

    def of_colder(self, level: Level, leaf: Tensor) -> Moments:
        """Return A_{t-1} and V_{t-1}, which are 1 and 0 at the first level."""
        return self._after(time_like(level.elapsed, leaf), leaf)

    def step(self, source: State, level: Level) -> NormalKernel:
        """q(s_t | s_{t-1})."""
        return self._spread_from(source, self.of_step(level, leaves(source)[0]))

    def marginal(self, origin: State, level: Level) -> NormalKernel:
        """q(s_t | s_0)."""
        return self._spread_from(origin, self.of_marginal(level, leaves(origin)[0]))

    def posterior(self, target: State, origin: State, level: Level) -> NormalKernel:
        """q(s_{t-1} | s_t, s_0)."""
        (s,), (x,) = leaves(target), leaves(origin)
        of_origin, of_target, variance = self.posterior_weights(level, s)
        center = self.center.to(s.dtype)
        mean = center + of_origin * (x - center) + of_target * (s - center)
        return NormalKernel(mean, variance.clamp(min=SMALLEST))

    def posterior_weights(self, level: Level, leaf: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return A_{t-1} v_t/V_t, a_t V_{t-1}/V_t and v_t V_{t-1}/V_t, `(1 or B, 1, …)`."""
        step, colder, hotter = (of(level, leaf) for of in (self.of_step, self.of_colder, self.of_marginal))
        share = colder.variance / hotter.variance
        of_origin = colder.signal * step.variance / hotter.variance
        return of_origin, step.signal * share, step.variance * share

    def _after(self, time: Tensor, leaf: Tensor) -> Moments:
        """Return signal and variance after a time, `(1 or B, 1, …)`, float64, in the dtype of `leaf`."""
        variance = self.variance.double()
        if self.form == "exploding":
            return Moments(torch.ones_like(time).to(leaf.dtype), (time * variance).to(leaf.dtype))
        spread = self.spread.double()
        exponent = time * variance / spread
        # expm1 keeps the variance of small steps, which 1 - a² would round away.
        return Moments((-exponent / 2).exp().to(leaf.dtype), (-spread * (-exponent).expm1()).to(leaf.dtype))

    def _spread_from(self, state: State, moments: Moments) -> NormalKernel:
        (s,) = leaves(state)
        center = self.center.to(s.dtype)
        return NormalKernel(center + moments.signal * (s - center), moments.variance)
