"""Gaussian operators: p_T(s' | s) = N(μ(s), v_T(s)), a network inside a parametrization.

    mean  mix               μ = (1 - α) s + α F(s)                                              (section 3.3)
          preconditioned    μ = m + c_skip (s - m) + c_out F((s - m) / √(v + σ_d²), log T)
                            c_skip = σ_d² / (v + σ_d²),   c_out = √v σ_d / √(v + σ_d²) · w,   v = v_T
                            w = √(v (1 - ν²/σ_d²) / (v + ν²)), which is 1 for ν = 0

    variance  fixed         v_T = T σ² both ways
              tied          v_T = T σ² r(s) both ways, r = 4^tanh(G(s)) in [1/4, 4]
              softplus      v_T = T σ² r(s) both ways, r = softplus(G(s) + c)²                  (section 3.3)
              reverse       heating v_T = T σ², cooling T σ² r(s) with r = softplus(G(s) + c)

m and σ_d² are the data's mean and its variance per dimension; softplus(c) = 1, so that G = 0 is noise of size σ. σ is
given, or a share of σ_d. `temperature_law = "std"` multiplies the standard deviation by T instead (T² for T above), as
section 3.3 does. The preconditioned network learns only the correction to a linear-Gaussian posterior mean, which is
O(v): small noise needs no large network to be reproduced.

ν is the noise that data were smoothed by (`smoothing`, for `data.noise`). The reverse of a small step from such data
has the mean s + v/(v + ν²) (D(s) - s), where D, the mean of the unsmoothed data given s, hardly depends on v while
v < ν². With w the preconditioning is EDM's for D at the noise √(v + ν²): what F has to learn is of scale 1, and nearly
the same function, at all small T.

`softplus` is the paper's σ, learned freely for both directions, and it runs away: more noise makes walking back harder,
which asks for more noise (σ grew 200-fold in 2,400 updates; elsewhere it shrank to 0). `tied` has an anchor: the tanh
holds log r within ±log 4 around the σ² that was asked for. That is no penalty: the loss remains -log p, and
T_max = σ_max²/σ² is right to two doublings whatever is learned.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, final

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import softplus

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, TemperatureLaw, normal_at, tempered_variance
from walkback.operators import Conditional, DataAware
from walkback.schedules import Level
from walkback.state import Space, StateSpace
from walkback_paper.moments import largest_variance
from walkback_paper.networks.conditioning import Conditioning
from walkback_paper.networks.conv import ConvEncoderDecoder, Norm
from walkback_paper.networks.level import LevelOptions
from walkback_paper.networks.mlp import ResidualMLP
from walkback_paper.parametrized import (
    Fraction,
    Mean,
    Mixing,
    NonNegative,
    Parametrization,
    ParametrizedOperator,
    Positive,
    Ratio,
    Share,
)

Variance: TypeAlias = Literal["fixed", "tied", "softplus", "reverse"]

_TIED_RANGE = math.log(4.0)
_MIN_RATIO = 1e-6
_MIN_VARIANCE = 1e-10
_SOFTPLUS_ONE = math.log(math.e - 1)  # softplus of this is 1


@final
class GaussianConditional(Conditional):
    """Mean `(B, *E)` and the variances at T = 1 of both directions, broadcastable to it."""

    def __init__(self, mean: Tensor, cooling: Tensor, heating: Tensor, law: TemperatureLaw) -> None:
        self.mean = mean
        self._cooling = cooling
        self._heating = heating
        self._law = law

    def cooling(self, level: Level) -> Kernel:
        """N(μ, v_T) with the cooling variance."""
        return normal_at(self.mean, self._cooling, level, self._law)

    def heating(self, level: Level) -> Kernel:
        """N(μ, v_T) with the heating variance."""
        return normal_at(self.mean, self._heating, level, self._law)


@final
class GaussianParametrization(Parametrization):
    """Turns a network's outputs into a Gaussian conditional; see the module's equations.

    Args:
        shape: Event shape E.
        sigma: σ, standard deviation of the noise at T = 1.
        mean: Form of the mean.
        alpha: α of the mixing mean.
        variance: Form of the variance.
        law: What temperature multiplies.
        sigma_share: σ / σ_d, from which `fit_data` sets σ; None leaves it at `sigma`.
        learn_alpha: Whether α is learned.
        smoothing: ν.

    Raises:
        ConfigurationError: See `Mixing`; or the mixing mean, which has no ν, is given one.
    """

    noise_variance: Tensor
    data_mean: Tensor
    data_variance: Tensor
    max_variance: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        sigma: float,
        mean: Mean,
        alpha: float,
        variance: Variance,
        law: TemperatureLaw,
        sigma_share: float | None = None,
        learn_alpha: bool = False,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.mixing = Mixing(mean, alpha, learn_alpha)
        if smoothing and mean != "preconditioned":
            raise ConfigurationError(
                f"Got operator.smoothing = {smoothing:g} with operator.mean = '{mean}', expected "
                "'preconditioned': only that form is scaled by it."
            )
        self._smoothing = smoothing
        self._mean: Mean = mean
        self._sigma_share = sigma_share
        self._variance: Variance = variance
        self._law: TemperatureLaw = law
        ones = (1,) * len(shape)
        self.register_buffer("noise_variance", torch.full((1, *ones), sigma**2))
        self.register_buffer("data_mean", torch.zeros(shape))
        self.register_buffer("data_variance", torch.tensor(1.0 + smoothing**2))
        self.register_buffer("max_variance", torch.ones(()))
        self._ratio = Ratio()

    @staticmethod
    def heads(variance: Variance) -> int:
        """Number of outputs the network must have: the mean, and the variance where it is learned."""
        return 1 if variance == "fixed" else 2

    @torch.no_grad()
    def fit_data(self, data: Tensor) -> None:
        """Take m, σ_d², the largest variance in any direction, and σ as a share of σ_d, from examples `(N, *E)`.

        Raises:
            ConfigurationError: The examples vary no more than the noise ν that they were smoothed by.
        """
        mean = data.mean(0)
        # Data that never vary would otherwise be divided by zero.
        variance = (data - mean).square().mean().clamp(min=_MIN_VARIANCE)
        if self._smoothing**2 >= variance:
            raise ConfigurationError(
                f"Got operator.smoothing = {self._smoothing:g} for data of standard deviation "
                f"{variance.sqrt().item():.4g}, expected less: it is data.noise, of which the data have at least as "
                "much."
            )
        self.data_mean.copy_(mean)
        self.data_variance.copy_(variance)
        self.max_variance.fill_(largest_variance(data))
        if self._sigma_share is not None:
            self.noise_variance.fill_(self._sigma_share**2 * self.data_variance.item())

    @property
    def max_temperature(self) -> float:
        """σ_max² / σ², or its root where temperature multiplies the standard deviation."""
        ratio = self._ratio(self.max_variance, self.noise_variance)
        return max(1.0, ratio if self._law == "variance" else math.sqrt(ratio))

    def forward(self, network: nn.Module, state: Tensor, level: Level) -> GaussianConditional:
        """Run `network` at `state` `(B, *E)`."""
        noise = tempered_variance(self.noise_variance, level, self._law)
        centred = state - self.data_mean
        scale = self.data_variance if self._mean == "mix" else noise + self.data_variance
        log2_temperature = level.temperature_like(state).flatten().log2()
        # The parametrization stays in the state's precision whatever autocast does to the network.
        outputs = [head.to(state.dtype) for head in network(centred / scale.sqrt(), log2_temperature)]
        if self._mean == "mix":
            target = self.data_mean + self.data_variance.sqrt() * outputs[0]
            mean = self.mixing(state, target)
        else:
            c_skip = self.data_variance / scale
            smoothed = self._smoothing**2
            share = noise * (1 - smoothed / self.data_variance) / (noise + smoothed)
            c_out = (noise * c_skip * share).sqrt()
            mean = self.data_mean + c_skip * centred + c_out * outputs[0]
        cooling, heating = self._variances(outputs)
        return GaussianConditional(mean, cooling, heating, self._law)

    def _variances(self, outputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Variances at T = 1 of cooling and heating."""
        if self._variance == "fixed":
            return self.noise_variance, self.noise_variance
        if self._variance == "tied":
            tied = self.noise_variance * (_TIED_RANGE * outputs[1].tanh()).exp()
            return tied, tied
        if self._variance == "softplus":
            free = self.noise_variance * (softplus(outputs[1] + _SOFTPLUS_ONE).square() + _MIN_RATIO)
            return free, free
        ratio = softplus(outputs[1] + _SOFTPLUS_ONE) + _MIN_RATIO
        return self.noise_variance * ratio, self.noise_variance


def real_space(space: StateSpace, name: str) -> Space:
    """The space of one real tensor, for the operator `name`; raises ConfigurationError for any other."""
    if isinstance(space, tuple) or space.support != "real":
        raise ConfigurationError(
            f"Got binary or composite data for the operator '{name}', expected one real tensor: "
            "choose real data or a Bernoulli operator."
        )
    return space


class GaussianOperator(ParametrizedOperator[GaussianParametrization], DataAware):
    """What Gaussian operators share: the data's moments set the parametrization's scales."""

    def fit_data(self, data: Tensor) -> None:
        """Take the data's moments; see `GaussianParametrization.fit_data`."""
        self.parametrization.fit_data(data)


@final
class GaussianMLP(GaussianOperator):
    """Gaussian operator with a residual MLP.

    Args:
        space: One real tensor of any shape.
        sigma: σ, standard deviation of the noise at T = 1, in the units of the data.
        sigma_share: σ / σ_d instead, with σ_d² the data's mean variance per dimension; None leaves σ at `sigma`.
        mean: Form of the mean; "mix" is the paper's.
        alpha: α of the mixing mean.
        learn_alpha: Whether α is learned, starting from `alpha`.
        smoothing: ν, the noise that data are smoothed by (data.noise): scales what a preconditioned network learns.
        variance: Form of the variance; "softplus" is the paper's, and runs away.
        temperature_law: Whether T multiplies the variance (Algorithm 1) or the standard deviation (section 3.3).
        hidden: Units per layer.
        depth: Residual blocks.
        dropout: Share of hidden units left out in training.
        conditioning: How the network is given log T.
        level_norms: Sets of norm parameters, one for each level from T = 1 up; 0: all levels share one.
        norms_per_doubling: Sets to a doubling of T.
    """

    def __init__(
        self,
        space: StateSpace,
        *,
        sigma: Positive = 0.03,
        sigma_share: Positive | None = None,
        mean: Mean = "preconditioned",
        alpha: Fraction = 0.5,
        learn_alpha: bool = False,
        smoothing: NonNegative = 0.0,
        variance: Variance = "reverse",
        temperature_law: TemperatureLaw = "variance",
        hidden: PositiveInt = 512,
        depth: PositiveInt = 3,
        dropout: Share = 0.0,
        conditioning: Conditioning = "film",
        level_norms: NonNegativeInt = 0,
        norms_per_doubling: Positive = 1.0,
    ) -> None:
        shape = real_space(space, "gaussian-mlp").shape
        parametrization = GaussianParametrization(
            shape,
            sigma=sigma,
            sigma_share=sigma_share,
            mean=mean,
            alpha=alpha,
            learn_alpha=learn_alpha,
            variance=variance,
            law=temperature_law,
            smoothing=smoothing,
        )
        network = ResidualMLP(
            shape,
            heads=parametrization.heads(variance),
            width=hidden,
            depth=depth,
            dropout=dropout,
            level=LevelOptions(conditioning, level_norms, norms_per_doubling),
        )
        super().__init__(parametrization, network)


@final
class GaussianConv(GaussianOperator):
    """Gaussian operator with the paper's convolutional encoder-decoder (Tables 2 to 5).

    The options that `GaussianMLP` has too mean the same; the tables themselves are `norm = "table"` with
    `conditioning = "none"`.

    Args:
        space: Images `(C, H, W)`.
        channels: Feature maps of the convolutions; None takes the paper's for the image.
        hidden: Units of the fully connected layers; None takes the paper's (for SVHN, 1024 is the table's).
        norm: Normalization of the layers: the table's, with its nonlinearities, or one kind everywhere.
        dropout: Share of the bottleneck's units left out in training.
        level_norms: See `GaussianMLP`; several are the paper's "different batch norm for different steps".
    """

    def __init__(
        self,
        space: StateSpace,
        *,
        sigma: Positive = 0.03,
        sigma_share: Positive | None = None,
        mean: Mean = "preconditioned",
        alpha: Fraction = 0.5,
        learn_alpha: bool = False,
        smoothing: NonNegative = 0.0,
        variance: Variance = "reverse",
        temperature_law: TemperatureLaw = "variance",
        channels: tuple[PositiveInt, ...] | None = None,
        hidden: PositiveInt | None = None,
        norm: Norm = "batch",
        dropout: Share = 0.0,
        conditioning: Conditioning = "film",
        level_norms: NonNegativeInt = 0,
        norms_per_doubling: Positive = 1.0,
    ) -> None:
        shape = real_space(space, "gaussian-conv").shape
        parametrization = GaussianParametrization(
            shape,
            sigma=sigma,
            sigma_share=sigma_share,
            mean=mean,
            alpha=alpha,
            learn_alpha=learn_alpha,
            variance=variance,
            law=temperature_law,
            smoothing=smoothing,
        )
        network = ConvEncoderDecoder(
            shape,
            heads=parametrization.heads(variance),
            channels=channels,
            width=hidden,
            norm=norm,
            dropout=dropout,
            level=LevelOptions(conditioning, level_norms, norms_per_doubling),
        )
        super().__init__(parametrization, network)
