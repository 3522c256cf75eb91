"""What a network is told: an embedding of log2 T and of the label, and which set of norms is the level's own.

    set = min(max(round(d · log2 T), 0), L - 1)      L sets, d of them to a doubling of T

A set belongs to a temperature, not to a step: all steps at T = 1 share one, so that the chain at T = 1 has one kernel.
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
    """How a network knows its level.

    Attributes:
        conditioning: How the temperature enters the layers.
        norms: L, sets of norm parameters and statistics; 0: one, shared by all levels.
        norms_per_doubling: d.
    """

    conditioning: Conditioning = "film"
    norms: int = 0
    norms_per_doubling: float = 1.0

    def require_norm(self, norm: str) -> None:
        """Raise ConfigurationError where there is no norm to have sets of."""
        if self.norms and norm == "none":
            raise ConfigurationError(
                f"Got operator.network.level_norms = {self.norms} with operator.network.norm = 'none', expected 0: "
                "choose a norm, or leave out operator.network.level_norms."
            )


@dataclass(frozen=True, slots=True)
class LevelFeatures:
    """What each layer gets: an embedding `(1, E)` or `(B, E)`, and numbers of sets `(1,)` or `(B,)`; None: not told."""

    embedding: Tensor | None
    norms: Tensor | None


@final
class LevelInput(nn.Module):
    """What the network is told → what its layers are told.

    Args:
        options: How the network knows its level.
        classes: Number of class labels that it may be told.

    Raises:
        ConfigurationError: There are labels, and no conditioning to tell them by.
    """

    def __init__(self, options: LevelOptions, classes: int = 0) -> None:
        super().__init__()
        if classes and options.conditioning == "none":
            raise ConfigurationError(
                f"Got operator.network.conditioning = 'none' with {classes} classes, expected 'film' or 'embedding': "
                "labels are told in the way of the temperature."
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
