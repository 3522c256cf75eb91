"""A residual multilayer perceptron.

h_0 = W x,   h_{l+1} = h_l + W₂ drop(silu(W₁ told(norm(h_l)))),   heads = V norm(h_L)

told(x) is x after the conditioning on the temperature (`networks.conditioning`).
"""

from __future__ import annotations

import math
from typing import final

from torch import Tensor, nn
from torch.nn.functional import silu

from walkback_paper.networks.conditioning import conditioner
from walkback_paper.networks.layers import zero
from walkback_paper.networks.level import LevelFeatures, LevelInput, LevelOptions
from walkback_paper.networks.norms import SharedNorm, row_norm


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
        shape: Event shape E.
        heads: Number of outputs.
        width: Hidden units.
        depth: Residual blocks.
        dropout: Share of hidden units left out in training.
        level: How the network knows its level; its norms are layer norms.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        heads: int,
        width: int,
        depth: int,
        dropout: float,
        level: LevelOptions,
    ) -> None:
        super().__init__()
        size = math.prod(shape)
        self.level = LevelInput(level)
        self.input = nn.Linear(size, width)
        self.blocks = nn.ModuleList(_Block(width, dropout, level) for _ in range(depth))
        self.norm = row_norm("layer", width, level.norms)
        self.heads = nn.ModuleList(zero(nn.Linear(width, size)) for _ in range(heads))

    def forward(self, state: Tensor, log2_temperature: Tensor) -> tuple[Tensor, ...]:
        """One tensor `(B, *E)` a head."""
        level = self.level(log2_temperature)
        hidden = self.input(state.flatten(1))
        for block in self.blocks:
            hidden = block(hidden, level)
        hidden = self.norm(hidden, level.norms)
        return tuple(head(hidden).reshape(state.shape) for head in self.heads)
