"""Projection of states of any shape to the plane: points unchanged, others to their leading principal components.

    z = (x - m) / d          columns of mean 0 and deviation 1, moments of the data
    u_k = z · a_k            a_1, a_2, …: eigenvectors of the covariance of z, by decreasing eigenvalue

Gaussian energy, a projection that is sensitive to tails and correlations in any dimension:

    E(x) = ½ Σ_k u_k² / λ_k      nats; for Gaussian data, ½ χ² with one degree of freedom per direction
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from walkback.data import DataInfo

_MOST_ROWS = 2000
"""Maximum number of states from which directions are computed."""

_ROWS_A_DIRECTION = 20
"""Number of states required per direction of the energy: with fewer, its variance is too uncertain."""


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """Principal directions of states, by decreasing variance.

    Attributes:
        mean: m, `(D,)`; all tensors are float64 on the CPU.
        deviation: d, `(D,)`.
        axes: a_k, `(D, K)`.
        variances: λ_k, `(K,)`.
    """

    mean: Tensor
    deviation: Tensor
    axes: Tensor
    variances: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Directions:
        """Compute the directions of values `(N, *E)`; at most N / 20 of them, and at least 2 if D ≥ 2."""
        rows = _rows(values[:_MOST_ROWS])
        mean, deviation = rows.mean(0), rows.std(0, correction=0)
        # A constant column has no direction: it is 0 after centering, so dividing by 1 gives it no weight.
        deviation = torch.where(deviation > 1e-12 * mean.abs(), deviation, 1.0)
        scaled = (rows - mean) / deviation
        _, singular, axes = torch.linalg.svd(scaled, full_matrices=False)
        variances = singular.square() / len(rows)
        wanted = max(2, min(len(variances), len(rows) // _ROWS_A_DIRECTION))
        kept = int((variances > 1e-9 * variances[0]).sum().clamp(min=1))
        if kept < 2 and len(variances) >= 2:
            kept = 2
        num = min(wanted, kept, len(variances))
        return cls(mean, deviation, axes[:num].T, variances[:num])

    def __len__(self) -> int:
        """K, the number of directions."""
        return len(self.variances)

    @property
    def shares(self) -> list[float]:
        """Share of the total variance of each direction."""
        whole = max(float((self.deviation > 0).sum()), 1.0)
        return [float(variance) / whole for variance in self.variances]

    def components(self, values: Tensor) -> Tensor:
        """Return u `(N, K)` of values `(N, *E)`."""
        return ((_rows(values) - self.mean) / self.deviation) @ self.axes

    def energy(self, values: Tensor) -> Tensor:
        """Return E `(N,)` of values `(N, *E)`, in nats."""
        variances = self.variances.clamp(min=1e-12)
        return 0.5 * (self.components(values).square() / variances).sum(1)


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """A projection of values `(N, *E)` to points `(N, 2)`.

    Attributes:
        directions: Directions to project to; None for points, which are shown unchanged.
        label: Description of the axes; empty for points.
    """

    directions: Directions | None = None
    label: str = ""

    @classmethod
    def of(cls, values: Tensor, info: DataInfo) -> Plane:
        """Choose the plane of values `(N, *E)`; points with unnamed columns are shown unchanged."""
        if info.shape == (2,) and not info.columns:
            return cls()
        directions = Directions.of(values)
        shares = directions.shares[:2]
        return cls(
            directions,
            f"across and up: principal components 1 and 2 of standardized columns, with "
            f"{' and '.join(f'{share:.0%}' for share in shares)} of the variance",
        )

    def points(self, values: Tensor) -> Tensor:
        """Return points `(N, 2)`; states with one dimension become `(u, 0)`."""
        if self.directions is None:
            return values.flatten(1)
        found = self.directions.components(values)[:, :2]
        return torch.nn.functional.pad(found, (0, 2 - found.shape[1]))


def _rows(values: Tensor) -> Tensor:
    return values.detach().double().cpu().flatten(1)
