"""Conditioning inputs of a network: an embedding of log2 T and of the label, and the number of the level's set of
norms.

    set = min(max(round(d · log2 T), 0), L - 1)      L sets, d of them per doubling of T

A set belongs to a temperature, not to a step: all steps at T = 1 share one, so the chain at T = 1 has a single kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.networks import Told
from walkback_networks.conditioning import Conditioning, TemperatureEmbedding, embedded, label_embedding


@dataclass(frozen=True, slots=True)
class LevelOptions:
    """How a network is conditioned on its level.

    Attributes:
        conditioning: How the temperature enters the layers.
        norms: L, sets of norm parameters and statistics; 0 shares one set among all levels.
        norms_per_doubling: d.
    """

    conditioning: Conditioning = "film"
    norms: int = 0
    norms_per_doubling: float = 1.0

    def require_norm(self, norm: str) -> None:
        """Raises ConfigurationError if several sets are configured without a norm."""
        if self.norms and norm == "none":
            raise ConfigurationError(
                f"Got operator.network.level_norms = {self.norms} with operator.network.norm = 'none', expected 0: "
                "choose a norm, or leave out operator.network.level_norms."
            )


@dataclass(frozen=True, slots=True)
class LevelFeatures:
    """Inputs of each layer: an embedding `(1, E)` or `(B, E)`, and set numbers `(1,)` or `(B,)`; None if unused."""

    embedding: Tensor | None
    norms: Tensor | None


@final
class LevelInput(nn.Module):
    """Maps the conditioning of the network to the inputs of its layers.

    Args:
        options: How the network is conditioned on its level.
        classes: Number of class labels.

    Raises:
        ConfigurationError: There are labels, but conditioning is "none".
    """

    def __init__(self, options: LevelOptions, classes: int = 0) -> None:
        super().__init__()
        if classes and options.conditioning == "none":
            raise ConfigurationError(
                f"Got operator.network.conditioning = 'none' with {classes} classes, expected 'film' or 'embedding': "
                "labels are conditioned on in the same way as the temperature."
            )
        self.embedding = None if options.conditioning == "none" else TemperatureEmbedding()
        self.labels = label_embedding(classes)
        self._norms = options.norms
        self._norms_per_doubling = options.norms_per_doubling

    def forward(self, told: Told) -> LevelFeatures:
        """See the class."""
        embedding = None if self.embedding is None else embedded(self.embedding, self.labels, told)
        if not self._norms:
            return LevelFeatures(embedding, None)
        number = (self._norms_per_doubling * told.log2_temperature).round().clamp(0, self._norms - 1)
        return LevelFeatures(embedding, number.long())
