"""The map between values in their own units and standardized states.

    s = (y - m) / d          states, which the operator acts on, with mean 0 and deviation 1
    x = f(y), y = m + d s    values, which are shown, sampled and written; f is a column's transform (`transforms`)
    log p(x) = log p(s) - Σ log d - Σ log f'(y)

m and d are fitted to the training split, per column of a table; arrays of higher rank have one m and one d for all
entries. They are part of the description of the data (`DataInfo.standardized`) and thus of every checkpoint. Columns of
integers become x + u with u ~ U(-½, ½) before they are transformed, so that the density of x + u bounds the probability
of x; they are rounded in the other direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from walkback.data.transforms import Transform

_LEAST = 2.0**-24  # distance of u from ±½, which keeps x + u strictly inside the bounds of a transform
_GRID = 16  # number of values of u in [-½, ½] that represent its distribution in fitting


@dataclass(frozen=True, slots=True)
class Standardization:
    """Mean and deviation by which states are standardized; the equations are in the module's docstring.

    Attributes:
        mean: m, one per column, or a single one for all entries.
        deviation: d, in the same number.
        columns: Names of the columns; empty if they have none.
        whole: Whether each column (or all entries) contains integers.
        transforms: The transform of each column, or a single one; empty if no column is transformed.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    columns: tuple[str, ...] = ()
    whole: tuple[bool, ...] = (False,)
    transforms: tuple[Transform, ...] = ()

    @classmethod
    def fitted(
        cls,
        values: Tensor,
        columns: tuple[str, ...],
        whole: tuple[bool, ...],
        *,
        by_column: bool,
        transforms: tuple[Transform, ...] = (),
    ) -> Standardization:
        """Fit transforms and moments of values `(N, *E)`, per column of `(N, D)` or for all entries together.

        Values lie inside the bounds of their transforms.
        """
        rows = values.double() if by_column else values.double().reshape(-1, 1)
        flags = whole if by_column else whole[:1]
        maps = tuple(map(Transform.fitted, transforms, rows.unbind(1)))
        if not any(found.kind != "none" for found in maps):
            maps = ()
        moments = [
            _moments_of(column, flag, maps[index] if maps else Transform())
            for index, (column, flag) in enumerate(zip(rows.unbind(1), flags, strict=True))
        ]
        mean, deviation = zip(*moments, strict=True)
        return cls(mean, deviation, columns, tuple(map(bool, flags)), maps)

    def states(self, values: Tensor) -> Tensor:
        """Return s `(N, *E)`, float32, for values x `(N, *E)`, without the noise of integers."""
        mean, deviation = self._moments(values)
        straight = self._by_column(Transform.forward, values.double())
        return ((straight - mean) / deviation).float()

    def values(self, states: Tensor) -> Tensor:
        """Return x `(N, *E)`, float64, for states s `(N, *E)`."""
        values = self._unrounded(states)
        if not any(self.whole):
            return values
        return torch.where(torch.tensor(self.whole, device=states.device), values.round(), values)

    def dequantized(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """Add the noise u to the columns of integers of states `(N, *E)` on the generator's device."""
        if not any(self.whole):
            return states
        uniform = torch.rand(states.shape, generator=generator, device=states.device) - 0.5
        whole = torch.tensor(self.whole, device=states.device)
        if not self.transforms:
            return states + uniform * (whole / self._moments(states)[1]).to(states.dtype)
        inside = uniform.double().clamp(_LEAST - 0.5, 0.5 - _LEAST)
        return torch.where(whole, self.states(self.values(states) + inside).to(states.dtype), states)

    def log_volume(self, size: int) -> float:
        """Return Σ log d over the `size` dimensions of a state, a part of -log p(x) + log p(s)."""
        return sum(map(math.log, self.deviation)) * (size / len(self.deviation))

    def log_slopes(self, states: Tensor) -> Tensor | float:
        """Return Σ log f'(y) for states `(N, *E)`, the other part of -log p(x) + log p(s): `(N,)`, float64.

        0 without transforms.
        """
        if not self.transforms:
            return 0.0
        mean, deviation = self._moments(states)
        slopes = self._by_column(Transform.log_slope, mean + deviation * states.double())
        return slopes.flatten(1).sum(1)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types."""
        return {
            "mean": list(self.mean),
            "deviation": list(self.deviation),
            "columns": list(self.columns),
            "whole": list(self.whole),
            **({"transforms": [[t.kind, *t.numbers] for t in self.transforms]} if self.transforms else {}),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Standardization:
        """Invert `to_dict`; raises KeyError, TypeError or ValueError if `record` is not such a dictionary."""
        return cls(
            tuple(float(value) for value in record["mean"]),
            tuple(float(value) for value in record["deviation"]),
            tuple(str(name) for name in record["columns"]),
            tuple(bool(value) for value in record["whole"]),
            tuple(Transform(kind, tuple(map(float, rest))) for kind, *rest in record.get("transforms", ())),
        )

    def suits(self, shape: tuple[int, ...]) -> bool:
        """Return whether this can standardize states of an event shape: one finite mean and deviation per column."""
        size = len(self.mean)
        return (
            (size == 1 or shape == (size,))
            and len(self.deviation) == len(self.whole) == size
            and (not self.columns or (len(self.columns),) == shape == (size,))
            and (not self.transforms or len(self.transforms) == size)
            and all(found.possible for found in self.transforms)
            and all(map(math.isfinite, self.mean))
            and all(0 < value < math.inf for value in self.deviation)
        )

    def _unrounded(self, states: Tensor) -> Tensor:
        mean, deviation = self._moments(states)
        return self._by_column(Transform.inverse, mean + deviation * states.double())

    def _by_column(self, function: Callable[[Transform, Tensor], Tensor], numbers: Tensor) -> Tensor:
        """Apply `function` to each column with its transform; returns the numbers unchanged without transforms."""
        if len(self.transforms) == 1:
            return function(self.transforms[0], numbers)
        if not self.transforms:
            return numbers
        columns = zip(self.transforms, numbers.unbind(-1), strict=True)
        return torch.stack([function(transform, column) for transform, column in columns], -1)

    def _moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return m and d, float64, on the device of `like`."""
        mean = torch.tensor(self.mean, dtype=torch.float64, device=like.device)
        return mean, torch.tensor(self.deviation, dtype=torch.float64, device=like.device)


def _moments_of(column: Tensor, whole: bool, transform: Transform) -> tuple[float, float]:
    """Return mean and deviation of y for a column `(N,)`, including the noise of integers."""
    if whole and transform.kind != "none":
        middles = (torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID - 0.5
        column, whole = column[:, None] + middles, False
    straight = transform.forward(column)
    # Two passes: with E[y²] - E[y]², the deviation would cancel if the mean is far from 0. The variance of u is 1/12.
    mean = straight.mean()
    variance = (straight - mean).square().mean() + whole / 12
    return float(mean), float(variance.sqrt())
