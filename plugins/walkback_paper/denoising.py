"""A Gaussian operator that reverses known noise: it predicts the data in a state, and walks toward them.

The noise is that of `walkback.noising.gaussian`: A and V of q(s_t | s_0), a and v of the step. At the state s, with
the data's variance σ_d² around m,

    z = (s - m) / √(A² σ_d² + V)      cos φ = A σ_d / √(A² σ_d² + V)      sin φ = √V / √(A² σ_d² + V)

    mean  epsilon   x̂ - m = (s - m - √V F(z)) / A                the noise of Ho et al. (2020)
          x         x̂ - m = σ_d F(z)                             the data
          v         x̂ - m = σ_d (cos φ z - sin φ F(z))           the velocity of Salimans and Ho (2022)

    p(s_{t-1} | s_t) = N(mean of q(s_{t-1} | s_t, x̂), w)

    variance  fixed    w = ṽ = v V_{t-1} / V_t, the variance of q(s_{t-1} | s_t, s_0)
              large    w = v
              range    w = exp(f log v + (1 - f) log ṽ),  f = (G + 1) / 2     learned, Nichol and Dhariwal (2021)
              reverse  w = ṽ r,  r = softplus(G + c),  softplus(c) = 1        learned
              direct   w = σ_d² G                                             learned, at all levels

At the first level, where ṽ = 0, all forms have ṽ = κ v. κ = ½ is the ratio ṽ_2 / v_2 if the first two steps are equal
and A_1 is 1, which Ho et al. chose for this step. The network is told log2 of the time τ_t, not of T_t. Heating is the
noise itself: it does not depend on the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, NormalKernel
from walkback.networks import Told
from walkback.noising import Form, GaussianNoise
from walkback.noising.base import time_like
from walkback.noising.gaussian import FORGOTTEN
from walkback.operators import Conditional, Guidable
from walkback.schedules import Level
from walkback.state import Context, leaves
from walkback.support.constraints import Constrained, Constraint, positive, unit_interval
from walkback.support.readings import Numbers
from walkback.temperature import VarianceLaw
from walkback_paper.moments import largest_variance
from walkback_paper.parametrized import Noise, Parametrization

Prediction: TypeAlias = Literal["epsilon", "x", "v"]
Clip: TypeAlias = tuple[float, float]

_FIRST_SHARE = 0.5
_SMALLEST_SIGNAL = 1e-6
_MIN_RATIO = 1e-6
_MIN_VARIANCE = 1e-20
_BIAS = math.log(math.expm1(1 - _MIN_RATIO))  # softplus of this, and _MIN_RATIO, are 1


@final
class DenoisingConditional(Conditional, Guidable):
    """The predicted data at a state.

    Args:
        denoising: The noise, and the form of the variance.
        state: s, `(B, *E)`.
        origin: x̂, `(B, *E)`.
        learned: G, `(B, *E)`; None where the variance is not learned.
    """

    def __init__(self, denoising: Denoising, state: Tensor, origin: Tensor, learned: Tensor | None) -> None:
        self._denoising = denoising
        self._state = state
        self._learned = learned
        self.origin = origin

    def cooling(self, level: Level) -> Kernel:
        """Returns q(s_{t-1} | s_t, x̂) with the variance w."""
        mean = self._denoising.mean(self._state, self.origin, level)
        return NormalKernel(mean, self._denoising.variance(self._state, self._learned, level))

    def heating(self, level: Level) -> Kernel:
        """Returns the noise's step."""
        return self._denoising.noise_model.step(self._state, level)

    def guided(self, untold: Conditional, scale: float) -> DenoisingConditional:
        """The prediction extrapolated from `untold` to this one; see `walkback.sampling.guidance`."""
        if not isinstance(untold, DenoisingConditional):
            raise TypeError(f"Got {type(untold).__name__}, expected a DenoisingConditional.")
        origin = torch.lerp(untold.origin, self.origin, scale)
        return DenoisingConditional(self._denoising, self._state, origin, self._learned)


@final
class Denoising(Parametrization, Constrained):
    """Turns a network's outputs into a conditional; the equations are in the module's docstring.

    Args:
        shape: Event shape E.
        prediction: What the network predicts.
        form: Form of the noise.
        noise: σ, and the form of the variance.
        clip: Lowest and highest x̂ in evaluation mode, in units of the data; None does not clip. Training never
            clips: entries out of range would have no gradient.

    Raises:
        ConfigurationError: The form of the variance, the temperature law, or the range is not supported.
    """

    first_share: Tensor
    max_variance: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        prediction: Prediction,
        form: Form,
        noise: Noise,
        clip: Clip | None = None,
    ) -> None:
        super().__init__()
        _require_supported(prediction, noise, clip)
        self._prediction = prediction
        self._noise = noise
        self._clip = clip
        self.noise_model = GaussianNoise(form, variance=noise.sigma**2)
        self.register_buffer("first_share", torch.tensor(_FIRST_SHARE, dtype=torch.float64))
        self.register_buffer("max_variance", torch.ones(()))
        self._ones = (1,) * (len(shape) + 1)
        self._numbers = Numbers()

    @property
    def heads(self) -> int:
        """Returns the number of outputs of the network: F, and G where the variance is learned."""
        return 2 if self._noise.form in ("range", "reverse", "direct") else 1

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """κ is between 0 and 1, and the variance positive."""
        return {"first_share": unit_interval, "max_variance": positive}

    @torch.no_grad()
    def fit_data(self, data: Tensor) -> None:
        """Fits m, σ_d², the largest variance in any direction, and σ as a multiple of σ_d, to examples `(N, *E)`."""
        self.noise_model.fit_data(data)
        self.max_variance.fill_(largest_variance(data))
        self._noise.fit(self.noise_model.variance, self.noise_model.spread)

    @property
    def max_temperature(self) -> float:
        """Returns σ_max²/σ² if noise explodes, else the T at which a step keeps exp(-5/2) of the signal."""
        noise = self.noise_model
        if noise.form == "exploding":
            largest, variance = self._numbers(self.max_variance, noise.variance)
            return max(1.0, largest / variance)
        spread, variance = self._numbers(noise.spread, noise.variance)
        return max(1.0, FORGOTTEN * spread / variance)

    def noise(self, level: Level) -> Tensor:
        """Returns v, `(1 or B, 1, …)`."""
        return self.noise_model.of_step(level, self.first_share.new_empty(self._ones)).variance

    def forward(
        self, network: nn.Module, state: Tensor, level: Level, context: Context = None
    ) -> DenoisingConditional:
        """Runs `network` on `state` `(B, *E)`."""
        moments = self.noise_model.of_marginal(level, state)
        spread = self.noise_model.spread.to(state.dtype)
        shifted = state - self.noise_model.center.to(state.dtype)
        size = (moments.signal.square() * spread + moments.variance).sqrt()
        # Autocast applies to the network only: half precision would round the small steps away.
        outputs = [
            head.to(state.dtype) for head in network(shifted / size, self._told(state, level, context))
        ]
        origin = self.noise_model.center.to(state.dtype) + self._origin(shifted, outputs[0], level)
        return DenoisingConditional(self, state, origin, outputs[1] if len(outputs) > 1 else None)

    def mean(self, state: Tensor, origin: Tensor, level: Level) -> Tensor:
        """Returns the mean of q(s_{t-1} | s_t, x̂), `(B, *E)`."""
        of_origin, of_target, _ = self.noise_model.posterior_weights(level, state)
        center = self.noise_model.center.to(state.dtype)
        if self._clip is not None and not self.training:
            origin = origin.clamp(*self._clip)
        return center + of_origin * (origin - center) + of_target * (state - center)

    def variance(self, state: Tensor, learned: Tensor | None, level: Level) -> Tensor:
        """Returns w, broadcastable to `(B, *E)`."""
        step = self.noise_model.of_step(level, state).variance
        _, _, smallest = self.noise_model.posterior_weights(level, state)
        first = time_like(level.elapsed, state) == 0
        smallest = torch.where(first, self.first_share.to(state.dtype) * step, smallest)
        if learned is None:
            return torch.where(first, smallest, step) if self._noise.form == "large" else smallest
        if self._noise.form == "direct":
            return self.noise_model.spread.to(state.dtype) * learned.clamp(min=_MIN_VARIANCE)
        if self._noise.form == "range":
            return torch.lerp(smallest.log(), step.log(), (learned + 1) / 2).exp()
        return smallest * (softplus(learned + _BIAS) + _MIN_RATIO)

    def _origin(self, shifted: Tensor, output: Tensor, level: Level) -> Tensor:
        """Returns x̂ - m, `(B, *E)`, at s - m."""
        moments = self.noise_model.of_marginal(level, shifted)
        deviation = self.noise_model.spread.sqrt().to(shifted.dtype)
        if self._prediction == "x":
            return deviation * output
        root = moments.variance.sqrt()
        if self._prediction == "epsilon":
            # Where the signal underflows, noise says nothing of the data; the limit keeps numbers finite there.
            return (shifted - root * output) / moments.signal.clamp(min=_SMALLEST_SIGNAL)
        square = (moments.signal * deviation).square() + moments.variance
        return deviation * (moments.signal * deviation * shifted / square - (root / square.sqrt()) * output)

    def _told(self, state: Tensor, level: Level, context: Context) -> Told:
        """Returns log2 of the time, and the labels."""
        time = time_like(level.temperature, state) + time_like(level.elapsed, state)
        label = None if context is None else leaves(context)[0]
        return Told(time.flatten().log2().to(state.dtype), label)


def _require_supported(prediction: Prediction, noise: Noise, clip: Clip | None) -> None:
    """Raises ConfigurationError for options that contradict each other."""
    if noise.form not in ("fixed", "large", "range", "reverse", "direct"):
        raise ConfigurationError(
            f"Got operator.variance = '{noise.form}' with operator.mean = '{prediction}', expected 'fixed', 'large', "
            "'range', 'reverse' or 'direct': heating is known noise, and has no variance to learn."
        )
    if not isinstance(noise.law, VarianceLaw):
        raise ConfigurationError(
            f"Got a temperature law other than 'variance' with operator.mean = '{prediction}', expected that: times "
            "of noise are sums of temperatures."
        )
    if clip is not None and not clip[0] < clip[1]:
        raise ConfigurationError(
            f"Got operator.clip = {list(clip)}, expected the lowest and the highest value of data."
        )
