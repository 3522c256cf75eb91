"""Gaussian operators: p_T(s' | s) = N(μ(s), v_T(s)), a network inside a parametrization.

    mean  mix               μ = (1 - α) s + α F(s)                                              (section 3.3)
          preconditioned    μ = m + c_skip (s - m) + c_out F((s - m) / √(v + σ_d²), log T)
                            c_skip = σ_d² / (v + σ_d²),   c_out = √v σ_d / √(v + σ_d²),   v = v_T

    variance  fixed         v_T = T σ² both ways
              tied          v_T = T σ² r(s) both ways, r learned, within [1/4, 4]
              reverse       heating v_T = T σ², cooling T σ² r(s) with r > 0 learned

m and σ_d² are the data's mean and its variance per dimension. `temperature_law = "std"` multiplies the standard
deviation by T instead (T² for T above). The preconditioned network learns only the correction to a linear-Gaussian
posterior mean, which is O(v): small noise needs no large network to be reproduced. A freely learned tied variance feeds
on itself (more noise makes walking back harder, which asks for more noise), hence its bounds.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias, final

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import softplus

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, TemperatureLaw, normal_at, tempered_variance
from walkback.operators import Conditional, DataAware
from walkback.schedules import Level
from walkback.state import Space, StateSpace
from walkback_paper.moments import largest_variance
from walkback_paper.networks.conv import ConvEncoderDecoder, Norm
from walkback_paper.networks.mlp import ResidualMLP
from walkback_paper.parametrized import Fraction, Parametrization, ParametrizedOperator, Share

Mean: TypeAlias = Literal["mix", "preconditioned"]
Variance: TypeAlias = Literal["fixed", "tied", "reverse"]
Positive: TypeAlias = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

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
    ) -> None:
        super().__init__()
        self._mean: Mean = mean
        self._alpha = alpha
        self._variance: Variance = variance
        self._law: TemperatureLaw = law
        ones = (1,) * len(shape)
        self.register_buffer("noise_variance", torch.full((1, *ones), sigma**2))
        self.register_buffer("data_mean", torch.zeros(shape))
        self.register_buffer("data_variance", torch.ones(()))
        self.register_buffer("max_variance", torch.ones(()))

    @staticmethod
    def heads(variance: Variance) -> int:
        """Number of outputs the network must have: the mean, and the variance where it is learned."""
        return 1 if variance == "fixed" else 2

    @torch.no_grad()
    def fit_data(self, data: Tensor) -> None:
        """Take m, σ_d² and the largest variance in any direction from examples `(N, *E)`."""
        self.data_mean.copy_(data.mean(0))
        # Data that never vary would otherwise be divided by zero.
        self.data_variance.copy_((data - self.data_mean).square().mean().clamp(min=_MIN_VARIANCE))
        self.max_variance.fill_(largest_variance(data))

    @property
    def max_temperature(self) -> float:
        """σ_max² / σ², or its root where temperature multiplies the standard deviation."""
        ratio = (self.max_variance / self.noise_variance).item()
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
            mean = torch.lerp(state, target, self._alpha)
        else:
            c_skip = self.data_variance / scale
            c_out = (noise * c_skip).sqrt()
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
        ratio = softplus(outputs[1] + _SOFTPLUS_ONE) + _MIN_RATIO
        return self.noise_variance * ratio, self.noise_variance


def _real(space: StateSpace, name: str) -> Space:
    if isinstance(space, tuple) or space.support != "real":
        raise ConfigurationError(
            f"Got binary or composite data for the operator '{name}', expected one real tensor: "
            "choose real data or a Bernoulli operator."
        )
    return space


class GaussianOperator(ParametrizedOperator[GaussianParametrization], DataAware):
    """What Gaussian operators share: the data's moments set the parametrization's scales."""

    def fit_data(self, data: Tensor) -> None:
        """Take the data's moments."""
        self.parametrization.fit_data(data)


@final
class GaussianMLP(GaussianOperator):
    """Gaussian operator with a residual MLP.

    Args:
        space: One real tensor of any shape.
        sigma: σ, standard deviation of the noise at T = 1, in the units of the data.
        mean: Form of the mean; "mix" is the paper's.
        alpha: α of the mixing mean.
        variance: Form of the variance.
        temperature_law: Whether T multiplies the variance (Algorithm 1) or the standard deviation (section 3.3).
        hidden: Units per layer.
        depth: Residual blocks.
        dropout: Share of hidden units left out in training.
        conditioned: Whether the network is given log T.
    """

    def __init__(
        self,
        space: StateSpace,
        *,
        sigma: Positive = 0.03,
        mean: Mean = "preconditioned",
        alpha: Fraction = 0.5,
        variance: Variance = "reverse",
        temperature_law: TemperatureLaw = "variance",
        hidden: PositiveInt = 512,
        depth: PositiveInt = 3,
        dropout: Share = 0.0,
        conditioned: bool = True,
    ) -> None:
        shape = _real(space, "gaussian-mlp").shape
        parametrization = GaussianParametrization(
            shape, sigma=sigma, mean=mean, alpha=alpha, variance=variance, law=temperature_law
        )
        network = ResidualMLP(
            shape,
            heads=parametrization.heads(variance),
            width=hidden,
            depth=depth,
            dropout=dropout,
            conditioned=conditioned,
        )
        super().__init__(parametrization, network)


@final
class GaussianConv(GaussianOperator):
    """Gaussian operator with the paper's convolutional encoder-decoder (Tables 2 to 5).

    Args:
        space: Images `(C, H, W)`.
        sigma: σ, standard deviation of the noise at T = 1, in the units of the data.
        mean: Form of the mean; "mix" is the paper's.
        alpha: α of the mixing mean.
        variance: Form of the variance.
        temperature_law: Whether T multiplies the variance (Algorithm 1) or the standard deviation (section 3.3).
        channels: Feature maps of the convolutions; None takes the paper's for the image.
        hidden: Units of the fully connected layers; None takes the paper's.
        norm: Normalization of the layers.
        conditioned: Whether the network is given log T.
    """

    def __init__(
        self,
        space: StateSpace,
        *,
        sigma: Positive = 0.03,
        mean: Mean = "preconditioned",
        alpha: Fraction = 0.5,
        variance: Variance = "reverse",
        temperature_law: TemperatureLaw = "variance",
        channels: tuple[PositiveInt, ...] | None = None,
        hidden: PositiveInt | None = None,
        norm: Norm = "batch",
        conditioned: bool = True,
    ) -> None:
        shape = _real(space, "gaussian-conv").shape
        parametrization = GaussianParametrization(
            shape, sigma=sigma, mean=mean, alpha=alpha, variance=variance, law=temperature_law
        )
        network = ConvEncoderDecoder(
            shape,
            heads=parametrization.heads(variance),
            channels=channels,
            width=hidden,
            norm=norm,
            conditioned=conditioned,
        )
        super().__init__(parametrization, network)
