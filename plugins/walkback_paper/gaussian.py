"""Gaussian operators: p_T(s' | s) = N(μ(s), v_T(s)), any network inside one parametrization.

    mean  mix               μ = (1 - α) s + α F(s)                                              (section 3.3)
          preconditioned    μ = m + c_skip (s - m) + c_out F((s - m) / √(v + σ_d²), log T)
                            c_skip = σ_d² / (v + σ_d²),   c_out = √v σ_d / √(v + σ_d²) · w,   v = v_T
                            w = √(v (1 - ν²/σ_d²) / (v + ν²)), which is 1 for ν = 0

          linear            `linear`: starts at the best Gaussian of the data
          epsilon, x, v     `denoising`: the reverse of known noise, as in diffusion models

    variance  fixed         v_T = T σ² in both directions
              tied          v_T = T σ² r(s) in both directions, r = 4^tanh(G(s)) in [1/4, 4]
              softplus      v_T = T σ² r(s) in both directions, r = softplus(G(s) + c)²         (section 3.3)
              reverse       heating v_T = T σ², cooling T σ² r(s) with r = softplus(G(s) + c)

m and σ_d² are the data's mean and its variance per dimension. softplus(c) = 1, so that G = 0 is noise of size σ. σ is
given, or set as a multiple of σ_d. T σ² stands for σ² after the temperature law has been applied
(`walkback.temperature`). The preconditioned network learns only the correction to a linear-Gaussian posterior mean,
which is O(v), so a small noise does not require a large network.

ν is the noise that data were smoothed by (`Space.noise`) where `smoothed` says to make use of it, else 0. The reverse
of a small step from such data has the mean s + v/(v + ν²) (D(s) - s), where D, the mean of the unsmoothed data given s,
hardly depends on v while v < ν². With w the preconditioning is EDM's for D at the noise √(v + ν²): what F has to learn
is of scale 1, and nearly the same function, at all small T.

`softplus` is the paper's σ, learned freely for both directions, and it is unstable: more noise makes walking back
harder, which favors more noise (σ grew 200-fold in 2,400 updates; elsewhere it shrank to 0). `tied` has an anchor: the
tanh keeps log r within ±log 4 around the configured σ². This is not a penalty: the loss remains -log p, and
T_max = σ_max²/σ² is correct to within two doublings whatever is learned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Literal, final

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import softplus

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, normal_at
from walkback.networks import Network
from walkback.noising import Form, GaussianNoise, Reversing
from walkback.operators import Conditional, DataAware, Guidable, Noisy
from walkback.schedules import Level
from walkback.state import Context, StateSpace
from walkback.support.constraints import Constrained, Constraint, greater_than, nonnegative, positive
from walkback.support.readings import Numbers
from walkback.temperature import VARIANCE_LAW, TemperatureLaw
from walkback_paper.bases import BasisName
from walkback_paper.denoising import Clip, Denoising, Prediction
from walkback_paper.ending import EndingConditional, Last, levels_of_last
from walkback_paper.linear import LinearGaussian
from walkback_paper.moments import largest_variance
from walkback_paper.parametrized import (
    Fraction,
    Mean,
    Mixing,
    Noise,
    Parametrization,
    Parametrized,
    Positive,
    Variance,
    single_tensor,
    told,
)

_TIED_RANGE = math.log(4.0)
_MIN_RATIO = 1e-6
_MIN_VARIANCE = 1e-10
_SOFTPLUS_ONE = math.log(math.e - 1)  # softplus of this is 1


@final
class GaussianConditional(Conditional, Guidable):
    """Mean and variances of a Gaussian step.

    Args:
        mean: `(B, *E)`.
        variances: Of cooling and of heating at T = 1, broadcastable to the mean.
        law: How the temperature scales the variance.
    """

    def __init__(self, mean: Tensor, variances: tuple[Tensor, Tensor], law: TemperatureLaw) -> None:
        self.mean = mean
        self._variances = variances
        self._law = law

    def cooling(self, level: Level) -> Kernel:
        """Returns N(μ, v_T) with the cooling variance."""
        return normal_at(self.mean, self._variances[0], level, self._law)

    def heating(self, level: Level) -> Kernel:
        """Returns N(μ, v_T) with the heating variance."""
        return normal_at(self.mean, self._variances[1], level, self._law)

    def guided(self, untold: Conditional, scale: float) -> GaussianConditional:
        """The mean extrapolated from `untold` to this one; see `walkback.sampling.guidance`."""
        if not isinstance(untold, GaussianConditional):
            raise TypeError(f"Got {type(untold).__name__}, expected a GaussianConditional.")
        mean = torch.lerp(untold.mean, self.mean, scale)
        return GaussianConditional(mean, self._variances, self._law)


@final
class GaussianParametrization(Parametrization, Constrained):
    """Turns a network's outputs into a Gaussian conditional; the equations are in the module's docstring.

    Args:
        shape: Event shape E.
        mixing: Form of the mean.
        noise: σ, and the form of the variance.
        smoothing: ν.
    """

    noise_variance: Tensor
    data_mean: Tensor
    data_variance: Tensor
    max_variance: Tensor

    def __init__(self, shape: tuple[int, ...], mixing: Mixing, noise: Noise, smoothing: float) -> None:
        super().__init__()
        self.mixing = mixing
        self._smoothing = smoothing
        self._noise = noise
        self._law = noise.law
        self.register_buffer("noise_variance", noise.variance_at_1(shape))
        self.register_buffer("data_mean", torch.zeros(shape))
        self.register_buffer("data_variance", torch.tensor(1.0 + smoothing**2))
        self.register_buffer("max_variance", torch.ones(()))
        self._numbers = Numbers()

    @property
    def heads(self) -> int:
        """Returns the number of outputs of the network: F, and G where the variance is learned."""
        return 1 if self._noise.form == "fixed" else 2

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """Variances are not negative, and that of the data exceeds the variance of the noise in them."""
        return {
            "noise_variance": positive,
            "data_variance": greater_than(self._smoothing**2),
            "max_variance": nonnegative,
        }

    @torch.no_grad()
    def fit_data(self, data: Tensor) -> None:
        """Estimates m, σ_d², the largest variance in any direction, and σ as a multiple of σ_d, from examples
        `(N, *E)`.

        Raises:
            ConfigurationError: The variance of the examples does not exceed that of the smoothing noise, ν².
        """
        mean = data.mean(0)
        # Constant data would otherwise lead to a division by zero.
        variance = (data - mean).square().mean().clamp(min=_MIN_VARIANCE)
        if self._smoothing**2 >= variance:
            raise ConfigurationError(
                f"Got data of standard deviation {variance.sqrt().item():.4g} that are smoothed by noise of "
                f"{self._smoothing:g}, expected them to vary more than their noise: lower data.noise, or leave out "
                "operator.smoothed."
            )
        self.data_mean.copy_(mean)
        self.data_variance.copy_(variance)
        self.max_variance.fill_(largest_variance(data))
        self._noise.fit(self.noise_variance, self.data_variance)

    @property
    def max_temperature(self) -> float:
        """Returns the T at which the law turns σ² into σ_max², the data's largest variance; at least 1."""
        return max(1.0, self._law.max_temperature(*self._numbers(self.max_variance, self.noise_variance)))

    def noise(self, level: Level) -> Tensor:
        """Returns T σ², `(1 or B, 1, …)`."""
        return self._law.variance(self.noise_variance, level)

    def forward(
        self, network: nn.Module, state: Tensor, level: Level, context: Context = None
    ) -> GaussianConditional:
        """Runs `network` on `state` `(B, *E)`."""
        mixes = self.mixing.mean == "mix"
        scale = self.data_variance
        if not mixes:
            scale = scale + self.noise(level)
        # Autocast applies to the network only: for small noise the mean is the state plus a small correction, which
        # half precision would round away.
        outputs = [
            head.to(state.dtype)
            for head in network((state - self.data_mean) / scale.sqrt(), told(state, level, context))
        ]
        mean = self._mixed(state, outputs[0]) if mixes else self._preconditioned(state, outputs[0], level)
        return GaussianConditional(mean, self._variances(outputs), self._law)

    def _mixed(self, state: Tensor, output: Tensor) -> Tensor:
        """Returns the mixing mean, `(B, *E)`."""
        mean: Tensor = self.mixing(state, self.data_mean + self.data_variance.sqrt() * output)
        return mean

    def _preconditioned(self, state: Tensor, output: Tensor, level: Level) -> Tensor:
        """Returns the preconditioned mean, `(B, *E)`."""
        noise = self.noise(level)
        c_skip = self.data_variance / (noise + self.data_variance)
        smoothed = self._smoothing**2
        share = noise * (1 - smoothed / self.data_variance) / (noise + smoothed)
        c_out = (noise * c_skip * share).sqrt()
        return self.data_mean + c_skip * (state - self.data_mean) + c_out * output

    def _variances(self, outputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the variances at T = 1 of cooling and heating."""
        if self._noise.form == "fixed":
            return self.noise_variance, self.noise_variance
        if self._noise.form == "tied":
            tied = self.noise_variance * (_TIED_RANGE * outputs[1].tanh()).exp()
            return tied, tied
        if self._noise.form == "softplus":
            free = self.noise_variance * (softplus(outputs[1] + _SOFTPLUS_ONE).square() + _MIN_RATIO)
            return free, free
        ratio = softplus(outputs[1] + _SOFTPLUS_ONE) + _MIN_RATIO
        return self.noise_variance * ratio, self.noise_variance


@final
class Gaussian(Parametrized, DataAware, Noisy, Reversing):
    """Gaussian operator with any network.

    Args:
        space: One real tensor of any shape that the network supports.
        network: Learns the mean, and the variance if it is learned.
        sigma: σ, standard deviation of the noise at T = 1, in the units of the data.
        sigma_share: Sets σ / σ_d instead, where σ_d² is the data's mean variance per dimension; None keeps `sigma`.
        mean: Form of the mean; "mix" is the paper's, "linear" starts at the best Gaussian of the data; "epsilon", "x"
            and "v" reverse known noise (DDPM).
        diffusion: The noise that "epsilon", "x" and "v" reverse.
        clip: Lowest and highest data that those predict, in evaluation mode.
        basis: Directions whose variances the linear mean knows: "eigenvectors" of the data's covariance, for tables and
            small images, "cosine" for larger images, or "auto".
        mixture: Number of normal distributions in the cooling kernel of a linear mean, see `walkback_paper.mixtures`;
            several learn data of several modes.
        alpha: α of the mixing mean.
        learn_alpha: Whether α is learned, starting from `alpha`.
        smoothed: Whether the noise that data are smoothed by (data.noise) scales what a preconditioned network learns.
        variance: Form of the variance; "softplus" is the paper's, and runs away. "large", "range" and "direct" are for
            known noise.
        last: Kernel of the step to data; "discretized" gives each gray level a mass.
        temperature_law: What T does to the variance; None multiplies it (Algorithm 1).

    Raises:
        ConfigurationError: The space is not real, the network does not support it, or options contradict each other.
    """

    parametrization: GaussianParametrization | LinearGaussian | Denoising

    def __init__(
        self,
        space: StateSpace,
        network: Network,
        *,
        sigma: Positive = 0.03,
        sigma_share: Positive | None = None,
        mean: Mean | Literal["linear"] | Prediction = "preconditioned",
        diffusion: Form = "preserving",
        clip: Clip | None = None,
        basis: BasisName = "pixels",
        mixture: PositiveInt = 1,
        alpha: Fraction = 0.5,
        learn_alpha: bool = False,
        smoothed: bool = False,
        variance: Variance = "reverse",
        last: Last = "normal",
        temperature_law: TemperatureLaw | None = None,
    ) -> None:
        leaf = single_tensor(space, "real", "a Gaussian operator", "choose real data or a Bernoulli operator")
        chosen = {
            "basis": basis,
            "mixture": mixture,
            "diffusion": diffusion,
            "clip": clip,
            "variance": variance,
        }
        _require_effect(mean, {"smoothed": smoothed, **chosen})
        if smoothed and not leaf.noise:
            raise ConfigurationError(
                "Got operator.smoothed = true for data without noise, expected some that are smoothed "
                "(--set data.noise=0.3, where the dataset offers it): leave out operator.smoothed."
            )
        noise = Noise(sigma, sigma_share, variance, temperature_law or VARIANCE_LAW)
        # Other means have no α either: one that is learned is refused as for the preconditioned mean.
        mixing = Mixing(mean if mean == "mix" else "preconditioned", alpha, learn_alpha)
        parametrization: GaussianParametrization | LinearGaussian | Denoising
        if mean == "linear":
            parametrization = LinearGaussian(leaf.shape, basis, noise, mixture)
        elif mean == "epsilon" or mean == "x" or mean == "v":
            parametrization = Denoising(leaf.shape, mean, diffusion, noise, clip)
        else:
            smoothing = leaf.noise if smoothed else 0.0
            parametrization = GaussianParametrization(leaf.shape, mixing, noise, smoothing)
        gray = levels_of_last(last, leaf, mean)
        ending = None if gray is None else partial(EndingConditional, levels=gray)
        super().__init__(leaf, parametrization, network, parametrization.heads, ending)

    def fit_data(self, data: Tensor) -> None:
        """Estimates the data's moments; see the parametrization's `fit_data`."""
        self.parametrization.fit_data(data)

    def noise(self, level: Level) -> Tensor:
        """Returns T σ², the variance of heating where it is not learned, `(1 or B, 1, …)`."""
        return self.parametrization.noise(level)

    @property
    def reversed_noise(self) -> GaussianNoise | None:
        """Returns the noise that the means "epsilon", "x" and "v" are the reverse of."""
        return self.parametrization.noise_model if isinstance(self.parametrization, Denoising) else None


_DENOISING = ("epsilon", "x", "v")
_EFFECTS: Mapping[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "smoothed": ((False,), ("preconditioned",)),
    "basis": (("pixels", "auto"), ("linear",)),
    "mixture": ((1,), ("linear",)),
    "diffusion": (("preserving",), _DENOISING),
    "clip": ((None,), _DENOISING),
    "variance": (("fixed", "tied", "softplus", "reverse"), _DENOISING),
}
"""Options that only some forms of the mean have: the values that others accept, and those forms."""


def _require_effect(mean: str, options: Mapping[str, object]) -> None:
    """Raises ConfigurationError for an option that the form of the mean does not use."""
    for name, (neutral, means) in _EFFECTS.items():
        value = options[name]
        if mean not in means and value not in neutral:
            shown = repr(value) if isinstance(value, str) else str(value).lower()
            raise ConfigurationError(
                f"operator.{name} = {shown} has no effect on operator.mean = '{mean}': set operator.mean = "
                f"'{means[0]}' too, or leave out operator.{name}."
            )
