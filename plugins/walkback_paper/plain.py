"""Operators with the paper's plain network (appendix E.1: the MLP of 2×1200 units behind the MNIST bound).

The paper's own settings are `mean = "mix"`, `variance = "softplus"`, `temperature_law = "std"`, `conditioning = "none"`
and as many `level_norms` as there are levels.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias, final

from pydantic import Field, NonNegativeInt, PositiveInt

from walkback.kernels import TemperatureLaw
from walkback.state import StateSpace
from walkback_paper.bernoulli import BernoulliParametrization, FlipProbability, Heating, binary_space
from walkback_paper.gaussian import GaussianOperator, GaussianParametrization, Variance, real_space
from walkback_paper.networks.conditioning import Conditioning
from walkback_paper.networks.level import LevelOptions
from walkback_paper.networks.norms import RowNorm
from walkback_paper.networks.plain import PlainMLP
from walkback_paper.parametrized import Fraction, Mean, NonNegative, ParametrizedOperator, Positive, Share

Widths: TypeAlias = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


@final
class GaussianPlainMLP(GaussianOperator):
    """Gaussian operator with fully connected layers.

    The options that `GaussianMLP` has too mean the same.

    Args:
        space: One real tensor of any shape.
        hidden: Units of each layer.
        norm: Normalization of the layers.
        dropout: Share of hidden units left out in training.
        level_norms: See `GaussianMLP`; several are the paper's, which shares no batch norm among steps.
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
        hidden: Widths = (1200, 1200),
        norm: RowNorm = "batch",
        dropout: Share = 0.0,
        conditioning: Conditioning = "film",
        level_norms: NonNegativeInt = 0,
        norms_per_doubling: Positive = 1.0,
    ) -> None:
        shape = real_space(space, "gaussian-plain-mlp").shape
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
        network = PlainMLP(
            shape,
            heads=parametrization.heads(variance),
            hidden=hidden,
            norm=norm,
            dropout=dropout,
            level=LevelOptions(conditioning, level_norms, norms_per_doubling),
        )
        super().__init__(parametrization, network)


@final
class BernoulliPlainMLP(ParametrizedOperator[BernoulliParametrization]):
    """Bernoulli operator with fully connected layers.

    The options that `BernoulliMLP` has too mean the same.

    Args:
        space: One binary tensor of any shape.
        hidden: Units of each layer.
        norm: Normalization of the layers.
        dropout: Share of hidden units left out in training.
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
        hidden: Widths = (1200, 1200),
        norm: RowNorm = "batch",
        dropout: Share = 0.0,
        conditioning: Conditioning = "film",
        level_norms: NonNegativeInt = 0,
        norms_per_doubling: Positive = 1.0,
    ) -> None:
        shape = binary_space(space, "bernoulli-plain-mlp").shape
        parametrization = BernoulliParametrization(
            mean=mean, alpha=alpha, learn_alpha=learn_alpha, flip=flip, heating=heating
        )
        network = PlainMLP(
            shape,
            heads=1,
            hidden=hidden,
            norm=norm,
            dropout=dropout,
            level=LevelOptions(conditioning, level_norms, norms_per_doubling),
        )
        super().__init__(parametrization, network)
