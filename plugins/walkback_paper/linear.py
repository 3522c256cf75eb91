"""A Gaussian operator around the linear one that is exact for Gaussian data.

In a direction of variance λ (`bases`), at the noise v = v_T and after a step with the noise v' (0 for the first step,
from data), the linear operator that is its own reverse is

    mean         a z,   a = √(1 - v/λ) if v < λ, else 0        z = Uᵀ (s - m)
    heating      variance v
    cooling      variance w = v if v < λ, else max(λ, v')

A direction wider than the noise keeps its law; others are forgotten, s_t ~ N(0, v), and s_{t-1} has the variance that
it had before. So the bound of the untrained operator is the likelihood of the Gaussian N(m, U diag(λ) Uᵀ), at any
schedule whose last noise is at least as wide as the widest direction (or with a prior of the variances max(λ, v_K) in
the same basis), and so is the law of its chain at T = 1. The network learns what is left:

    mean      m + U (a z + c F),   c = √min(v, λ)
    cooling   variance w softplus(G + b),   softplus(b) = 1

with F, G = network(U z/√max(v, λ), log T), whose heads begin at 0; its input has variance 1 in all directions, whatever
the scales of the data. The linear part of the mean is that of the level a kernel is asked for: heating from s_{t-1} at
level t with the mean of level t - 1 would cost 0.16 bits/dim on images at a factor of 1.3. F is of the state's level.

For data of several modes cooling may be a mixture of J such kernels (`mixtures`), with F_j and G_j of their own and

    weights   π = softmax(Σ_d H_jd / √D)

Heating then has the mean m + U (a z + c Σ_j π_j F_j).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, NormalKernel
from walkback.operators import Conditional, Guidable
from walkback.schedules import Level
from walkback.state import Context
from walkback.support.constraints import Constrained, Constraint, positive
from walkback.support.readings import Numbers
from walkback_paper.bases import BasisName, RotatedNormalKernel, basis, fit
from walkback_paper.mixtures import MixtureKernel, average
from walkback_paper.parametrized import Noise, Parametrization, told

_MIN_RATIO = 1e-6
_OFFSET = 0.02
_BIAS = math.log(math.expm1(1 - _MIN_RATIO))  # softplus of this, and _MIN_RATIO, are 1


@dataclass(frozen=True, slots=True)
class Learned:
    """What a network adds at a state, of each of the J parts of the cooling kernel.

    Attributes:
        correction: c F_j, coordinates, `(J, B, *E)`.
        ratio: Of the variance of cooling to w, `(J, B, *E)`; None where it is not learned.
        log_weights: log π_j, `(J, B)`; None for a single part.
    """

    correction: Tensor
    ratio: Tensor | None
    log_weights: Tensor | None

    @property
    def average(self) -> Tensor:
        """Returns Σ_j π_j c F_j, `(B, *E)`."""
        return self.correction[0] if self.log_weights is None else average(self.correction, self.log_weights)

    def guided(self, untold: Learned, scale: float) -> Learned:
        """Returns corrections and weights extrapolated from `untold` to these."""
        correction = torch.lerp(untold.correction, self.correction, scale)
        weights = self.log_weights
        if weights is not None and untold.log_weights is not None:
            weights = torch.lerp(untold.log_weights, weights, scale).log_softmax(0)
        return Learned(correction, self.ratio, weights)


@final
class LinearConditional(Conditional, Guidable):
    """The linear operator at a state, of which the coordinates are z, and what the network adds."""

    def __init__(self, linear: LinearGaussian, coordinates: Tensor, learned: Learned) -> None:
        self._linear = linear
        self._coordinates = coordinates
        self._learned = learned

    def cooling(self, level: Level) -> Kernel:
        """Returns N(μ, U diag(w r) Uᵀ), or the mixture of several."""
        linear, learned = self._linear, self._learned
        variance = linear.cooling_variance(level)
        if learned.log_weights is None:
            variance = variance if learned.ratio is None else variance * learned.ratio[0]
            return RotatedNormalKernel(self._mean(level), variance, linear.basis)
        variance = variance if learned.ratio is None else variance * learned.ratio
        means = linear.share(level) * self._coordinates + learned.correction
        return MixtureKernel(means, variance, learned.log_weights, linear.data_mean, linear.basis)

    def heating(self, level: Level) -> Kernel:
        """Returns N(μ, v)."""
        return NormalKernel(self._mean(level), self._linear.noise(level))

    def linear_heating(self, level: Level) -> Kernel:
        """Returns N(m + U a z, v), which knows nothing of the network."""
        return self._linear.linear_step(self._coordinates, level)

    def guided(self, untold: Conditional, scale: float) -> LinearConditional:
        """Returns what the network adds, extrapolated from `untold` to this; see `walkback.sampling.guidance`."""
        if not isinstance(untold, LinearConditional):
            raise TypeError(f"Got {type(untold).__name__}, expected a LinearConditional.")
        return LinearConditional(
            self._linear, self._coordinates, self._learned.guided(untold._learned, scale)
        )

    def _mean(self, level: Level) -> Tensor:
        return self._linear.event(self._linear.share(level) * self._coordinates + self._learned.average)


@final
class LinearGaussian(Parametrization, Constrained):
    """Turns a network's outputs into a conditional; the equations are in the module's docstring.

    Args:
        shape: Event shape E.
        basis_name: The basis U.
        noise: σ, and whether the variance of cooling is learned ("reverse") or w ("fixed").
        parts: J.

    Raises:
        ConfigurationError: The basis does not support the shape, or the variance is to have another form.
    """

    noise_variance: Tensor
    data_mean: Tensor
    variances: Tensor
    max_variance: Tensor

    def __init__(self, shape: tuple[int, ...], basis_name: BasisName, noise: Noise, parts: int = 1) -> None:
        super().__init__()
        if noise.form not in ("fixed", "reverse"):
            raise ConfigurationError(
                f"Got operator.variance = '{noise.form}' with operator.mean = 'linear', expected 'reverse' or 'fixed': "
                "cooling and heating have different variances around the linear mean."
            )
        self.basis = basis(basis_name, shape)
        self._noise = noise
        self.register_buffer("noise_variance", noise.variance_at_1(shape))
        self.register_buffer("data_mean", torch.zeros(shape))
        self.register_buffer("variances", torch.ones(shape))
        self.register_buffer("max_variance", torch.ones(()))
        self._parts = parts
        if parts > 1:
            # Parts that begin alike would stay alike. Their offsets average to 0 and change the kernel in fourth order.
            offsets = torch.randn(parts, 1, *shape, generator=torch.Generator().manual_seed(0))
            self.register_buffer("offsets", _OFFSET * (offsets - offsets.mean(0)))
        self._numbers = Numbers()

    @property
    def heads(self) -> int:
        """Returns the number of outputs of the network: J of F, of G where it is learned, of π if there are several."""
        return self._parts * (1 + (self._noise.form == "reverse") + (self._parts > 1))

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """Variances are positive."""
        return {"noise_variance": positive, "variances": positive, "max_variance": positive}

    @torch.no_grad()
    def fit_data(self, data: Tensor) -> None:
        """Fits the basis, m, λ, and σ as a multiple of σ_d, to examples `(N, *E)`."""
        mean, variances = fit(self.basis, data)
        self.data_mean.copy_(mean)
        self.variances.copy_(variances)
        self.max_variance.copy_(variances.max())
        self._noise.fit(self.noise_variance, variances.mean())

    @property
    def max_temperature(self) -> float:
        """Returns the T at which the noise is as wide as the widest direction; at least 1."""
        return max(
            1.0, self._noise.law.max_temperature(*self._numbers(self.max_variance, self.noise_variance))
        )

    def forward(
        self, network: nn.Module, state: Tensor, level: Level, context: Context = None
    ) -> LinearConditional:
        """Runs `network` on `state` `(B, *E)`."""
        noise = self.noise(level)
        z = self.coordinates(state)
        with torch.autocast(state.device.type, enabled=False):
            white = self.basis.event(z / torch.maximum(noise, self.variances).sqrt())
        outputs = [head.to(state.dtype) for head in network(white, told(state, level, context))]
        size = torch.minimum(noise, self.variances).sqrt()
        return LinearConditional(self, z, self._learned(outputs, size))

    def _learned(self, outputs: list[Tensor], size: Tensor) -> Learned:
        """Takes the network's outputs apart; `size` is c."""
        count = self._parts
        with torch.autocast(size.device.type, enabled=False):
            added = torch.stack([self.basis.coordinates(head) for head in outputs[:count]])
            correction = size * (added + self.get_buffer("offsets") if count > 1 else added)
        ratio = None
        if self._noise.form == "reverse":
            ratio = softplus(torch.stack(outputs[count : 2 * count]) + _BIAS) + _MIN_RATIO
        if count == 1:
            return Learned(correction, ratio, None)
        logits = torch.stack(outputs[-count:]).flatten(2)
        return Learned(correction, ratio, (logits.sum(2) / math.sqrt(logits.shape[2])).log_softmax(0))

    def noise(self, level: Level) -> Tensor:
        """Returns v, `(1 or B, 1, …)`."""
        return self._noise.law.variance(self.noise_variance, level)

    def share(self, level: Level) -> Tensor:
        """Returns a, `(1 or B, *E)`."""
        return (1 - self.noise(level) / self.variances).clamp(min=0).sqrt()

    def linear_step(self, coordinates: Tensor, level: Level) -> NormalKernel:
        """Returns N(m + U a z, v) at z `(B, *E)`."""
        return NormalKernel(self.event(self.share(level) * coordinates), self.noise(level))

    def coordinates(self, state: Tensor) -> Tensor:
        """Returns z = Uᵀ (s - m) for s `(B, *E)`."""
        # Half precision would round away what is small beside the widest directions.
        with torch.autocast(state.device.type, enabled=False):
            return self.basis.coordinates(state - self.data_mean)

    def event(self, coordinates: Tensor) -> Tensor:
        """Returns m + U z for z `(B, *E)`."""
        with torch.autocast(coordinates.device.type, enabled=False):
            return self.data_mean + self.basis.event(coordinates)

    def cooling_variance(self, level: Level) -> Tensor:
        """Returns w, `(1 or B, *E)`."""
        noise = self.noise(level)
        colder = level.colder_level()
        before = self.variances
        if colder is not None:
            before = torch.maximum(before, self._noise.law.variance(self.noise_variance, colder))
        return torch.where(noise < self.variances, noise, before)
