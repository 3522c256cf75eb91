"""Bernoulli operators for binary states: p_T(s' | s) = Π_d Bernoulli(s'_d; ρ_d), s ∈ {0, 1}^D.

    mean  mix               ρ = sigmoid( ((1 - α) s + α F(s)) / T )                             (section 3.3)
          preconditioned    ρ = sigmoid( (c (2 s - 1) + F(s, log T)) / T ),   c = log((1 - ε) / ε)

    heating  tied           the same kernel (the paper)
             flips          heating sigmoid(c (2 s - 1) / T): independent flips with probability ε at T = 1;
                            cooling sigmoid(c (2 s - 1) / T + F(s, log T))

With F = 0 the preconditioned operator flips every bit with probability ε at T = 1, as a Gaussian operator adds noise of
size σ. The mixing form starts as almost pure noise: (1 - α) s never exceeds 1, so it must first learn to remember.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias, final

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.kernels import BernoulliKernel, Kernel, bernoulli_at
from walkback.operators import Conditional
from walkback.schedules import Level
from walkback.state import Space, StateSpace
from walkback_paper.networks.conditioning import Conditioning
from walkback_paper.networks.conv import ConvEncoderDecoder, Norm
from walkback_paper.networks.level import LevelOptions
from walkback_paper.networks.mlp import ResidualMLP
from walkback_paper.parametrized import (
    Fraction,
    Mean,
    Mixing,
    Parametrization,
    ParametrizedOperator,
    Positive,
    Share,
)

Heating: TypeAlias = Literal["tied", "flips"]
FlipProbability: TypeAlias = Annotated[float, Field(gt=0.0, lt=0.5)]

_FORGOTTEN = 0.2  # a logit this small leaves a bit within 5 % of a fair coin


@final
class BernoulliConditional(Conditional):
    """Logits / T of both directions, as a heated part and a part that temperature leaves alone, `(B, *E)` each."""

    def __init__(self, heated: Tensor, unheated: Tensor | None, tied: bool) -> None:
        self._heated = heated
        self._unheated = unheated
        self._tied = tied

    def cooling(self, level: Level) -> Kernel:
        """The learned bits."""
        heated = bernoulli_at(self._heated, level)
        return heated if self._unheated is None else BernoulliKernel(heated.logits + self._unheated)

    def heating(self, level: Level) -> Kernel:
        """The same bits where tied, plain flips otherwise."""
        return self.cooling(level) if self._tied else bernoulli_at(self._heated, level)


@final
class BernoulliParametrization(Parametrization):
    """Turns a network's output into a Bernoulli conditional; see the module's equations.

    Args:
        mean: Form of the logits.
        alpha: α of the mixing form.
        flip: ε, probability of a flip at T = 1 without a network.
        heating: What heats.
        learn_alpha: Whether α is learned.

    Raises:
        ConfigurationError: Plain flips are asked for with the mixing form, which has none; or see `Mixing`.
    """

    def __init__(
        self, *, mean: Mean, alpha: float, flip: float, heating: Heating, learn_alpha: bool = False
    ) -> None:
        super().__init__()
        if mean == "mix" and heating == "flips":
            raise ConfigurationError(
                "Got operator.heating = 'flips' with operator.mean = 'mix', expected 'tied': "
                "only the preconditioned form has a flip probability to heat with."
            )
        self._mean: Mean = mean
        self.mixing = Mixing(mean, alpha, learn_alpha)
        self._scale = math.log((1 - flip) / flip)
        self._heating: Heating = heating

    @property
    def max_temperature(self) -> float:
        """Temperature at which a bit of logit c is within 5 % of a fair coin."""
        return max(1.0, self._scale / _FORGOTTEN)

    def forward(self, network: nn.Module, state: Tensor, level: Level) -> BernoulliConditional:
        """Run `network` at bits `(B, *E)`."""
        signs = 2 * state - 1
        log2_temperature = level.temperature_like(state).flatten().log2()
        (output,) = network(signs, log2_temperature)
        output = output.to(state.dtype)
        if self._mean == "mix":
            return BernoulliConditional(self.mixing(state, output), None, tied=True)
        if self._heating == "tied":
            return BernoulliConditional(self._scale * signs + output, None, tied=True)
        return BernoulliConditional(self._scale * signs, output, tied=False)


def binary_space(space: StateSpace, name: str) -> Space:
    """The space of one binary tensor, for the operator `name`; raises ConfigurationError for any other."""
    if isinstance(space, tuple) or space.support != "binary":
        raise ConfigurationError(
            f"Got real-valued data for the operator '{name}', expected binary data: binarize them "
            "(--set data.binarize=stochastic, where the data set offers it) or choose a Gaussian operator."
        )
    return space


@final
class BernoulliMLP(ParametrizedOperator[BernoulliParametrization]):
    """Bernoulli operator with a residual MLP.

    Args:
        space: One binary tensor of any shape.
        mean: Form of the logits; "mix" is the paper's.
        alpha: α of the mixing form.
        learn_alpha: Whether α is learned, starting from `alpha`.
        flip: ε, probability of a flip at T = 1 without a network.
        heating: "tied" (the paper) or independent "flips".
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
        mean: Mean = "preconditioned",
        alpha: Fraction = 0.5,
        learn_alpha: bool = False,
        flip: FlipProbability = 0.02,
        heating: Heating = "flips",
        hidden: PositiveInt = 512,
        depth: PositiveInt = 3,
        dropout: Share = 0.0,
        conditioning: Conditioning = "film",
        level_norms: NonNegativeInt = 0,
        norms_per_doubling: Positive = 1.0,
    ) -> None:
        shape = binary_space(space, "bernoulli-mlp").shape
        parametrization = BernoulliParametrization(
            mean=mean, alpha=alpha, learn_alpha=learn_alpha, flip=flip, heating=heating
        )
        network = ResidualMLP(
            shape,
            heads=1,
            width=hidden,
            depth=depth,
            dropout=dropout,
            level=LevelOptions(conditioning, level_norms, norms_per_doubling),
        )
        super().__init__(parametrization, network)


@final
class BernoulliConv(ParametrizedOperator[BernoulliParametrization]):
    """Bernoulli operator with the paper's convolutional encoder-decoder.

    The options that `BernoulliMLP` has too mean the same; the tables themselves are `norm = "table"` with
    `conditioning = "none"`.

    Args:
        space: Binary images `(C, H, W)`.
        channels: Feature maps of the convolutions; None takes the paper's for the image.
        hidden: Units of the fully connected layers; None takes the paper's.
        norm: Normalization of the layers: the table's, with its nonlinearities, or one kind everywhere.
        dropout: Share of the bottleneck's units left out in training.
    """

    def __init__(
        self,
        space: StateSpace,
        *,
        mean: Mean = "preconditioned",
        alpha: Fraction = 0.5,
        learn_alpha: bool = False,
        flip: FlipProbability = 0.02,
        heating: Heating = "flips",
        channels: tuple[PositiveInt, ...] | None = None,
        hidden: PositiveInt | None = None,
        norm: Norm = "batch",
        dropout: Share = 0.0,
        conditioning: Conditioning = "film",
        level_norms: NonNegativeInt = 0,
        norms_per_doubling: Positive = 1.0,
    ) -> None:
        shape = binary_space(space, "bernoulli-conv").shape
        parametrization = BernoulliParametrization(
            mean=mean, alpha=alpha, learn_alpha=learn_alpha, flip=flip, heating=heating
        )
        network = ConvEncoderDecoder(
            shape,
            heads=1,
            channels=channels,
            width=hidden,
            norm=norm,
            dropout=dropout,
            level=LevelOptions(conditioning, level_norms, norms_per_doubling),
        )
        super().__init__(parametrization, network)
