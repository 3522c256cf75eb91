"""A residual multilayer perceptron.

h_0 = W x,   h_{l+1} = h_l + W₂ drop(silu(W₁ told(norm(h_l)))),   heads = V norm(h_L)

told(x) is x after the conditioning on the temperature and the label (`conditioning`).
"""

from __future__ import annotations

import math
from typing import final

from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import silu

from walkback.networks import Network, Ports, Told
from walkback_networks.conditioning import Conditioning, conditioner
from walkback_networks.layers import Positive, Share, zero
from walkback_networks.level import LevelFeatures, LevelInput, LevelOptions
from walkback_networks.norms import SharedNorm, row_norm


@final
class _Block(nn.Module):
    def __init__(self, width: int, dropout: float, level: LevelOptions) -> None:
        super().__init__()
        # Shared by all levels, a scale and shift would be what W₁ can do by itself.
        plain = SharedNorm(nn.LayerNorm(width, elementwise_affine=False))
        self.norm = row_norm("layer", width, level.norms) if level.norms else plain
        self.conditioner = conditioner(level.conditioning, width)
        self.inner = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(width, width)

    def forward(self, hidden: Tensor, level: LevelFeatures) -> Tensor:
        told = self.conditioner(self.norm(hidden, level.norms), level.embedding)
        change: Tensor = self.outer(self.dropout(silu(self.inner(told))))
        return hidden + change


@final
class ResidualMLP(nn.Module):
    """`(B, *E)` → `heads` tensors `(B, *E)`.

    Args:
        ports: What is asked for.
        width: Hidden units.
        depth: Residual blocks.
        dropout: Share of hidden units left out in training.
        level: How the network knows its level; its norms are layer norms.
    """

    def __init__(self, ports: Ports, *, width: int, depth: int, dropout: float, level: LevelOptions) -> None:
        super().__init__()
        size = math.prod(ports.shape)
        self.level = LevelInput(level, ports.classes)
        self.input = nn.Linear(size, width)
        self.blocks = nn.ModuleList(_Block(width, dropout, level) for _ in range(depth))
        self.norm = row_norm("layer", width, level.norms)
        self.heads = nn.ModuleList(zero(nn.Linear(width, size)) for _ in range(ports.heads))

    def forward(self, state: Tensor, told: Told) -> tuple[Tensor, ...]:
        """One tensor `(B, *E)` a head."""
        level = self.level(told)
        hidden = self.input(state.flatten(1))
        for block in self.blocks:
            hidden = block(hidden, level)
        hidden = self.norm(hidden, level.norms)
        return tuple(head(hidden).reshape(state.shape) for head in self.heads)


@final
class MLP(Network):
    """A residual multilayer perceptron, for states of any shape.

    Args:
        hidden: Units per layer.
        depth: Residual blocks.
        dropout: Share of hidden units left out in training.
        conditioning: How the network is given log T, and labels.
        level_norms: Sets of norm parameters, one for each level from T = 1 up; 0: all levels share one.
        norms_per_doubling: Sets to a doubling of T.
    """

    def __init__(
        self,
        *,
        hidden: PositiveInt = 512,
        depth: PositiveInt = 3,
        dropout: Share = 0.0,
        conditioning: Conditioning = "film",
        level_norms: NonNegativeInt = 0,
        norms_per_doubling: Positive = 1.0,
    ) -> None:
        self._hidden = hidden
        self._depth = depth
        self._dropout = dropout
        self._level = LevelOptions(conditioning, level_norms, norms_per_doubling)

    def build(self, ports: Ports) -> ResidualMLP:
        """A new network for these ports."""
        return ResidualMLP(
            ports, width=self._hidden, depth=self._depth, dropout=self._dropout, level=self._level
        )
