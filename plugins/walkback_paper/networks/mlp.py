"""A residual multilayer perceptron.

h_0 = W x,   h_{l+1} = h_l + W₂ drop(silu(W₁ FiLM(norm(h_l)))),   heads = V norm(h_L)
"""

from __future__ import annotations

import math
from typing import final

from torch import Tensor, nn
from torch.nn.functional import silu

from walkback_paper.networks.conditioning import FiLM, TemperatureEmbedding


@final
class _Block(nn.Module):
    def __init__(self, width: int, dropout: float, conditioned: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.film = FiLM(width, conditioned)
        self.inner = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(width, width)

    def forward(self, hidden: Tensor, embedding: Tensor | None) -> Tensor:
        change: Tensor = self.outer(self.dropout(silu(self.inner(self.film(self.norm(hidden), embedding)))))
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
        conditioned: Whether the temperature is an input.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        heads: int,
        width: int,
        depth: int,
        dropout: float,
        conditioned: bool,
    ) -> None:
        super().__init__()
        size = math.prod(shape)
        self.embedding = TemperatureEmbedding() if conditioned else None
        self.input = nn.Linear(size, width)
        self.blocks = nn.ModuleList(_Block(width, dropout, conditioned) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, size) for _ in range(heads))
        for head in self.heads:
            # Zero heads: the operator starts as its skip connection.
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, state: Tensor, log2_temperature: Tensor) -> tuple[Tensor, ...]:
        """One tensor `(B, *E)` a head."""
        embedding = None if self.embedding is None else self.embedding(log2_temperature)
        hidden = self.input(state.flatten(1))
        for block in self.blocks:
            hidden = block(hidden, embedding)
        hidden = self.norm(hidden)
        return tuple(head(hidden).reshape(state.shape) for head in self.heads)
