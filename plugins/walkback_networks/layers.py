"""The layer that the paper's networks repeat: linear map, norm, what is told, nonlinearity, dropout."""

from __future__ import annotations

from typing import Annotated, TypeAlias, TypeVar, final

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from walkback_networks.level import LevelFeatures

Positive: TypeAlias = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Share: TypeAlias = Annotated[float, Field(ge=0.0, lt=1.0)]
Widths: TypeAlias = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]

Linear = TypeVar("Linear", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


@final
class Layer(nn.Module):
    """activation(told(norm(W x))), with dropout.

    Args:
        linear: W, fully connected or a convolution.
        norm: From `norms`.
        conditioner: From `conditioning.conditioner`.
        activation: The nonlinearity.
        dropout: Share of the outputs left out in training.
    """

    def __init__(
        self,
        linear: nn.Module,
        norm: nn.Module,
        conditioner: nn.Module,
        activation: nn.Module,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.linear = linear
        self.norm = norm
        self.conditioner = conditioner
        self.activation = activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, level: LevelFeatures) -> Tensor:
        """`(B, C, …)` → `(B, C', …)`."""
        normalized = self.norm(self.linear(features), level.norms)
        activated = self.activation(self.conditioner(normalized, level.embedding))
        output: Tensor = self.dropout(activated)
        return output


def zero(layer: Linear) -> Linear:
    """The layer with zero weights, for a head: the operator starts as its skip connection."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
