"""Precision, recall, density and coverage, based on balls around states that extend to their k-th neighbor.

    precision   share of samples inside any ball of the data           (Kynkäänniemi et al., 2019)
    recall      share of data inside any ball of the samples
    density     Σ 1 / (other data in the ball) over the balls of      (Naeem et al., 2020)
                the data that contain a sample, mean over samples
    coverage    share of balls of the data with a sample inside

A ball contains k other data, or more if there are ties, as for bits. For samples of the data's own distribution,
density is near 1 (and may exceed it), and coverage is 1 - 2^-k for large sets of equal size, or more with ties. The
large ball of a single outlier can inflate precision and recall, but not density and coverage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.measuring.quality.wasserstein import flat_pair


class Scores(NamedTuple):
    """Dimensionless numbers; all but `density` are between 0 and 1."""

    precision: float
    recall: float
    density: float
    coverage: float


@final
@dataclass(frozen=True, slots=True)
class Distances:
    """Euclidean distances between data `(N, N)`, between samples `(M, M)`, and from data to samples `(N, M)`."""

    data: Tensor
    samples: Tensor
    between: Tensor

    @classmethod
    def of(cls, data: Tensor, samples: Tensor) -> Distances:
        """Compute the distances of two sets of states or features, `(N, *E)` and `(M, *E)`.

        Raises:
            WalkbackError: A set is empty or not finite, or their event shapes differ.
        """
        first, second = flat_pair(data, samples)
        return cls(_distances(first, first), _distances(second, second), _distances(first, second))

    def among(self, rows: Tensor) -> Distances:
        """Return the distances of the rows with indices `(n,)` of both sets."""
        kept = rows.to(self.data.device)
        return Distances(self.data[kept][:, kept], self.samples[kept][:, kept], self.between[kept][:, kept])

    def scores(self, neighbors: int) -> Scores:
        """Compute precision, recall, density and coverage.

        Args:
            neighbors: k; a state is not a neighbor of itself.

        Raises:
            WalkbackError: A set has no more than k states.
        """
        fewest = min(len(self.data), len(self.samples))
        if not 0 < neighbors < fewest:
            raise WalkbackError(f"Got {neighbors} neighbors for {fewest} states, expected 1 to {fewest - 1}.")
        radii = _radii(self.data, neighbors)[:, None]
        inside_data = self.between <= radii
        others = (self.data <= radii).double().sum(1) - 1  # k, or more if there are ties
        inside_samples = self.between <= _radii(self.samples, neighbors)[None, :]
        return Scores(
            precision=_share(inside_data.any(0)),
            recall=_share(inside_samples.any(1)),
            density=float((inside_data.double() / others[:, None]).sum(0).mean()),
            coverage=_share(inside_data.any(1)),
        )


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # The matrix-product formula rounds the distance of equal states to nonzero values; binary data have many of them.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(distances: Tensor, neighbors: int) -> Tensor:
    """Return the distance of each state to its k-th neighbor, `(N,)`; the smallest distance is that to itself."""
    return distances.kthvalue(neighbors + 1, dim=1).values


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
