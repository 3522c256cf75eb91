"""Noise of bits and symbols: each entry is replaced by a uniform one with probability 1 - c, independently.

    q(s_t | s_{t-1})         = c_t [s_t = s_{t-1}] + (1 - c_t) / k,    c_t = exp(-r T_t)
    q(s_t | s_0)             = C_t [s_t = s_0] + (1 - C_t) / k,        C_t = exp(-r τ_t)
    q(s_{t-1} | s_t, s_0)    ∝ q(s_t | s_{t-1}) q(s_{t-1} | s_0)

A bit (k = 2) is flipped with probability (1 - c_t) / 2: the binomial diffusion of Sohl-Dickstein et al. (2015). Symbols
of k kinds follow the uniform transitions of Austin et al. (2021).
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from walkback.kernels import BernoulliKernel, CategoricalKernel
from walkback.noising.base import Noise, time_like
from walkback.schedules import Level
from walkback.state import State, leaves

_LARGEST = 60.0
"""Largest logit, of entries that cannot change: finite, so that divergences are."""


class _Replacing(Noise):
    """Replacement of entries at a rate.

    Args:
        rate: r > 0, of a step at T = 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def shares(self, time: float | Tensor, leaf: Tensor) -> tuple[Tensor, Tensor]:
        """Return exp(-r time), the probability that an entry is kept, and that of being replaced, `(1 or B, 1, …)`."""
        exponent = -self.rate * time_like(time, leaf)
        return exponent.exp().to(leaf.dtype), (-exponent.expm1()).to(leaf.dtype)


@final
class BitNoise(_Replacing):
    """Independent flips of bits."""

    def step(self, source: State, level: Level) -> BernoulliKernel:
        """q(s_t | s_{t-1})."""
        return BernoulliKernel(self._logits(source, level.temperature))

    def marginal(self, origin: State, level: Level) -> BernoulliKernel:
        """q(s_t | s_0)."""
        return BernoulliKernel(self._logits(origin, level.elapsed + level.temperature))

    def posterior(self, target: State, origin: State, level: Level) -> BernoulliKernel:
        """q(s_{t-1} | s_t, s_0)."""
        return BernoulliKernel(self._logits(target, level.temperature) + self._logits(origin, level.elapsed))

    def _logits(self, state: State, time: float | Tensor) -> Tensor:
        """Return logits of the bits after a time, `(B, *E)`: of 1 if the state's bit is 1, else of 0."""
        (s,) = leaves(state)
        kept, replaced = self.shares(time, s)
        size = (kept.log1p() - replaced.log()).clamp(max=_LARGEST)
        return size * (2 * s - 1)


@final
class SymbolNoise(_Replacing):
    """Independent replacements of one-hot symbols by uniform ones."""

    def step(self, source: State, level: Level) -> CategoricalKernel:
        """q(s_t | s_{t-1})."""
        return CategoricalKernel(self._logits(source, level.temperature))

    def marginal(self, origin: State, level: Level) -> CategoricalKernel:
        """q(s_t | s_0)."""
        return CategoricalKernel(self._logits(origin, level.elapsed + level.temperature))

    def posterior(self, target: State, origin: State, level: Level) -> CategoricalKernel:
        """q(s_{t-1} | s_t, s_0)."""
        return CategoricalKernel(
            self._logits(target, level.temperature) + self._logits(origin, level.elapsed)
        )

    def _logits(self, state: State, time: float | Tensor) -> Tensor:
        """Return log-probabilities of the symbols after a time up to a constant, `(B, *E)`."""
        (s,) = leaves(state)
        kept, replaced = self.shares(time, s)
        others = replaced / s.shape[-1]
        return ((kept + others).log() - others.log()).clamp(max=_LARGEST) * s
