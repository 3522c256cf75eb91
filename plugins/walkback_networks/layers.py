"""The layer that the paper's networks repeat: linear map, norm, conditioning, nonlinearity, dropout."""

from __future__ import annotations

from typing import Annotated, TypeAlias, TypeVar, final

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from walkback_networks.level import LevelFeatures

Positive: TypeAlias = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Share: TypeAlias = Annotated[float, Field(ge=0.0, lt=1.0)]
Widths: TypeAlias = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]

Linear = TypeVar("Linear", bound=nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d)


@final
class Layer(nn.Module):
    """Computes activation(told(norm(W x))), with dropout; `told` applies the conditioning.

    Args:
        linear: W, fully connected or a convolution.
        norm: From `norms`.
        conditioner: From `conditioning.conditioner`.
        activation: The nonlinearity.
        dropout: Dropout probability of the outputs.
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
    """Returns the layer with zero weights, for a head: the operator then starts as its skip connection."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
