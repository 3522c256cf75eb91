"""Operators with a residual U-Net, for the best samples rather than the network of 2017; see `networks.unet`."""

from __future__ import annotations

from typing import Annotated, TypeAlias, final

from pydantic import Field, PositiveInt

from walkback.kernels import TemperatureLaw
from walkback.state import StateSpace
from walkback_paper.bernoulli import (
    BernoulliParametrization,
    FlipProbability,
    Heating,
    binary_space,
)
from walkback_paper.gaussian import (
    GaussianOperator,
    GaussianParametrization,
    Variance,
    real_space,
)
from walkback_paper.networks.unet import UNet
from walkback_paper.parametrized import Fraction, Mean, NonNegative, ParametrizedOperator, Positive, Share

Widths: TypeAlias = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


@final
class GaussianUNet(GaussianOperator):
    """Gaussian operator with a residual U-Net.

    The options that `GaussianMLP` has too mean the same.

    Args:
        space: Images `(C, H, W)`.
        channels: Feature maps at each resolution, finest first.
        blocks: Residual blocks at each resolution, on either side.
        patch: Side of the squares of pixels that are folded into channels.
        attention: Whether positions attend to one another at the coarsest resolution.
        dropout: Share of features left out in training.
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
        channels: Widths = (64, 128, 256),
        blocks: PositiveInt = 2,
        patch: PositiveInt = 1,
        attention: bool = True,
        dropout: Share = 0.0,
    ) -> None:
        shape = real_space(space, "gaussian-unet").shape
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
        network = UNet(
            shape,
            heads=parametrization.heads(variance),
            channels=channels,
            blocks=blocks,
            patch=patch,
            attention=attention,
            dropout=dropout,
        )
        super().__init__(parametrization, network)


@final
class BernoulliUNet(ParametrizedOperator[BernoulliParametrization]):
    """Bernoulli operator with a residual U-Net.

    The options that `BernoulliMLP` and `GaussianUNet` have too mean the same.

    Args:
        space: Binary images `(C, H, W)`.
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
        channels: Widths = (64, 128, 256),
        blocks: PositiveInt = 2,
        patch: PositiveInt = 1,
        attention: bool = True,
        dropout: Share = 0.0,
    ) -> None:
        shape = binary_space(space, "bernoulli-unet").shape
        parametrization = BernoulliParametrization(
            mean=mean, alpha=alpha, flip=flip, heating=heating, learn_alpha=learn_alpha
        )
        network = UNet(
            shape,
            heads=1,
            channels=channels,
            blocks=blocks,
            patch=patch,
            attention=attention,
            dropout=dropout,
        )
        super().__init__(parametrization, network)
