"""The paper's plain network (appendix E.1, the MNIST bound): fully connected layers, and a final one for each head.

h_0 = x,   h_{l+1} = drop(relu(norm(W_l h_l))),   heads = V h_L
"""

from __future__ import annotations

import math
from typing import final

from torch import Tensor, nn

from walkback_paper.networks.conditioning import conditioner
from walkback_paper.networks.layers import Layer, zero
from walkback_paper.networks.level import LevelInput, LevelOptions
from walkback_paper.networks.norms import RowNorm, row_norm


@final
class PlainMLP(nn.Module):
    """`(B, *E)` → `heads` tensors `(B, *E)`.

    Args:
        shape: Event shape E.
        heads: Number of outputs.
        hidden: Units of each layer.
        norm: Normalization of the layers.
        dropout: Share of hidden units left out in training.
        level: How the network knows its level.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        heads: int,
        hidden: tuple[int, ...],
        norm: RowNorm,
        dropout: float,
        level: LevelOptions,
    ) -> None:
        super().__init__()
        level.require_norm(norm)
        size = math.prod(shape)
        self.level = LevelInput(level)
        self.layers = nn.ModuleList(
            Layer(
                nn.Linear(source, target),
                row_norm(norm, target, level.norms),
                conditioner(level.conditioning, target),
                nn.ReLU(),
                dropout,
            )
            for source, target in zip((size, *hidden), hidden, strict=False)
        )
        self.heads = nn.ModuleList(zero(nn.Linear(hidden[-1], size)) for _ in range(heads))

    def forward(self, state: Tensor, log2_temperature: Tensor) -> tuple[Tensor, ...]:
        """One tensor `(B, *E)` a head."""
        level = self.level(log2_temperature)
        features = state.flatten(1)
        for layer in self.layers:
            features = layer(features, level)
        return tuple(head(features).reshape(state.shape) for head in self.heads)
