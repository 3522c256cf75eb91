"""The paper's plain network (appendix E.1, the MNIST bound): fully connected layers, and a final one for each head.

h_0 = x,   h_{l+1} = drop(relu(norm(W_l h_l))),   heads = V h_L
"""

from __future__ import annotations

import math
from typing import final

from pydantic import NonNegativeInt
from torch import Tensor, nn

from walkback.networks import Network, Ports, Told
from walkback_networks.conditioning import Conditioning, conditioner
from walkback_networks.layers import Layer, Positive, Share, Widths, zero
from walkback_networks.level import LevelInput, LevelOptions
from walkback_networks.norms import RowNorm, row_norm


@final
class FullyConnected(nn.Module):
    """`(B, *E)` → `heads` tensors `(B, *E)`.

    Args:
        ports: What is asked for.
        hidden: Units of each layer.
        norm: Normalization of the layers.
        dropout: Share of hidden units left out in training.
        level: How the network knows its level.

    Raises:
        ConfigurationError: There are sets of norms without a norm.
    """

    def __init__(
        self, ports: Ports, *, hidden: tuple[int, ...], norm: RowNorm, dropout: float, level: LevelOptions
    ) -> None:
        super().__init__()
        level.require_norm(norm)
        size = math.prod(ports.shape)
        self.level = LevelInput(level, ports.classes)
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
        self.heads = nn.ModuleList(zero(nn.Linear(hidden[-1], size)) for _ in range(ports.heads))

    def forward(self, state: Tensor, told: Told) -> tuple[Tensor, ...]:
        """One tensor `(B, *E)` a head."""
        level = self.level(told)
        features = state.flatten(1)
        for layer in self.layers:
            features = layer(features, level)
        return tuple(head(features).reshape(state.shape) for head in self.heads)


@final
class PlainMLP(Network):
    """Fully connected layers, for states of any shape.

    The paper's own settings are `conditioning = "none"` and as many `level_norms` as there are levels.

    Args:
        hidden: Units of each layer.
        norm: Normalization of the layers.
        dropout: Share of hidden units left out in training.
        conditioning: How the network is given log T, and labels.
        level_norms: Sets of norm parameters, one for each level from T = 1 up; 0: all levels share one. Several are the
            paper's, which shares no batch norm among steps.
        norms_per_doubling: Sets to a doubling of T.
    """

    def __init__(
        self,
        *,
        hidden: Widths = (1200, 1200),
        norm: RowNorm = "batch",
        dropout: Share = 0.0,
        conditioning: Conditioning = "film",
        level_norms: NonNegativeInt = 0,
        norms_per_doubling: Positive = 1.0,
    ) -> None:
        self._hidden = hidden
        self._norm: RowNorm = norm
        self._dropout = dropout
        self._level = LevelOptions(conditioning, level_norms, norms_per_doubling)

    def build(self, ports: Ports) -> FullyConnected:
        """A new network for these ports."""
        return FullyConnected(
            ports, hidden=self._hidden, norm=self._norm, dropout=self._dropout, level=self._level
        )
