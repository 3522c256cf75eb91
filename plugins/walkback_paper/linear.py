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
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from walkback_paper.bases import BasisName, RotatedNormalKernel, basis, fit
from walkback_paper.parametrized import Noise, Numbers, Parametrization, told

_MIN_RATIO = 1e-6
_BIAS = math.log(math.expm1(1 - _MIN_RATIO))  # softplus of this, and _MIN_RATIO, are 1


@final
class LinearConditional(Conditional, Guidable):
    """The linear operator at a state, and what the network adds there.

    Args:
        linear: The operator.
        coordinates: z `(B, *E)`.
        correction: c Uᵀ F `(B, *E)`, in coordinates too.
        ratio: Factor of the cooling variance, or None for 1.
    """

    def __init__(
        self, linear: LinearGaussian, coordinates: Tensor, correction: Tensor, ratio: Tensor | None
    ) -> None:
        self._linear = linear
        self._coordinates = coordinates
        self._correction = correction
        self._ratio = ratio

    def cooling(self, level: Level) -> Kernel:
        """Returns N(μ, U diag(w r) Uᵀ)."""
        variance = self._linear.cooling_variance(level)
        if self._ratio is not None:
            variance = variance * self._ratio
        return RotatedNormalKernel(self._mean(level), variance, self._linear.basis)

    def heating(self, level: Level) -> Kernel:
        """Returns N(μ, v)."""
        return NormalKernel(self._mean(level), self._linear.noise(level))

    def guided(self, untold: Conditional, scale: float) -> LinearConditional:
        """Returns what the network adds, extrapolated from `untold` to this; see `walkback.sampling.guidance`."""
        if not isinstance(untold, LinearConditional):
            raise TypeError(f"Got {type(untold).__name__}, expected a LinearConditional.")
        correction = torch.lerp(untold._correction, self._correction, scale)
        return LinearConditional(self._linear, self._coordinates, correction, self._ratio)

    def _mean(self, level: Level) -> Tensor:
        return self._linear.event(self._linear.share(level) * self._coordinates + self._correction)


@final
class LinearGaussian(Parametrization, Constrained):
    """Turns a network's outputs into a conditional; the equations are in the module's docstring.

    Args:
        shape: Event shape E.
        basis_name: The basis U.
        noise: σ, and whether the variance of cooling is learned ("reverse") or w ("fixed").

    Raises:
        ConfigurationError: The basis does not support the shape, or the variance is to have another form.
    """

    noise_variance: Tensor
    data_mean: Tensor
    variances: Tensor
    max_variance: Tensor

    def __init__(self, shape: tuple[int, ...], basis_name: BasisName, noise: Noise) -> None:
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
        self._numbers = Numbers()

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
        with torch.autocast(state.device.type, enabled=False):
            z = self.basis.coordinates(state - self.data_mean)
            white = self.basis.event(z / torch.maximum(noise, self.variances).sqrt())
        outputs = [head.to(state.dtype) for head in network(white, told(state, level, context))]
        size = torch.minimum(noise, self.variances).sqrt()
        with torch.autocast(state.device.type, enabled=False):
            correction = size * self.basis.coordinates(outputs[0])
        learned = self._noise.form == "reverse"
        ratio = softplus(outputs[1] + _BIAS) + _MIN_RATIO if learned else None
        return LinearConditional(self, z, correction, ratio)

    def noise(self, level: Level) -> Tensor:
        """Returns v, `(1 or B, 1, …)`."""
        return self._noise.law.variance(self.noise_variance, level)

    def share(self, level: Level) -> Tensor:
        """Returns a, `(1 or B, *E)`."""
        return (1 - self.noise(level) / self.variances).clamp(min=0).sqrt()

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
