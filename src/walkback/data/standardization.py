"""The affine map between values in their own units and standardized states.

    s = (x - m) / d          states, which the operator acts on, of mean 0 and deviation 1
    x = m + d s              values, which are shown, sampled and written
    log p(x) = log p(s) - Σ log d

m and d are fitted to the training split, per column of a table; arrays of higher rank have one m and one d for all
entries. They are part of the description of the data (`DataInfo.standardized`) and so of every checkpoint. Columns of
whole numbers become x + u with u ~ U[-½, ½) before they are standardized, so that the density of x + u bounds the
probability of x, and are rounded on the way back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Standardization:
    """Mean and deviation by which states are standardized; the equations are in the module's docstring.

    Attributes:
        mean: m, one for each column, or a single one for all entries.
        deviation: d, as many.
        columns: Names of the columns; empty if they have none.
        whole: Whether each column, or all entries, hold whole numbers.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    columns: tuple[str, ...] = ()
    whole: tuple[bool, ...] = (False,)

    @classmethod
    def fitted(
        cls, values: Tensor, columns: tuple[str, ...], whole: tuple[bool, ...], *, by_column: bool
    ) -> Standardization:
        """Fit the moments of values `(N, *E)`, per column of `(N, D)` or for all entries together."""
        rows = values.double() if by_column else values.double().reshape(-1, 1)
        # The two passes keep a mean far from 0 from cancelling the deviation.
        mean = rows.mean(0)
        variance = (rows - mean).square().mean(0)
        rounded = torch.tensor(whole if by_column else whole[:1], dtype=torch.float64)
        deviation = (variance + rounded / 12).sqrt()
        return cls(tuple(mean.tolist()), tuple(deviation.tolist()), columns, tuple(rounded.bool().tolist()))

    def states(self, values: Tensor) -> Tensor:
        """Return s `(N, *E)`, float32, of values x `(N, *E)`, without the noise of whole numbers."""
        mean, deviation = self._moments(values)
        return ((values.double() - mean) / deviation).float()

    def values(self, states: Tensor) -> Tensor:
        """Return x `(N, *E)`, float64, of states s `(N, *E)`."""
        mean, deviation = self._moments(states)
        values = mean + deviation * states.double()
        if not any(self.whole):
            return values
        return torch.where(torch.tensor(self.whole, device=states.device), values.round(), values)

    def lengths(self, displacements: Tensor) -> Tensor:
        """Return differences of values, float64, from differences of states `(N, *E)`."""
        return self._moments(displacements)[1] * displacements.double()

    def dequantized(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """Add the noise u / d to the columns of whole numbers of states `(N, *E)` on the generator's device."""
        if not any(self.whole):
            return states
        uniform = torch.rand(states.shape, generator=generator, device=states.device) - 0.5
        width = torch.tensor(self.whole, device=states.device) / self._moments(states)[1]
        return states + uniform * width.to(states.dtype)

    def log_volume(self, size: int) -> float:
        """Return Σ log d over the `size` dimensions of a state: -log p(x) is that much larger than -log p(s)."""
        return sum(map(math.log, self.deviation)) * (size / len(self.deviation))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types."""
        return {
            "mean": list(self.mean),
            "deviation": list(self.deviation),
            "columns": list(self.columns),
            "whole": list(self.whole),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Standardization:
        """Invert `to_dict`; raises KeyError, TypeError or ValueError if `record` is not such a dictionary."""
        return cls(
            tuple(float(value) for value in record["mean"]),
            tuple(float(value) for value in record["deviation"]),
            tuple(str(name) for name in record["columns"]),
            tuple(bool(value) for value in record["whole"]),
        )

    def suits(self, shape: tuple[int, ...]) -> bool:
        """Return whether this may standardize states of an event shape: as many finite numbers as there are columns."""
        size = len(self.mean)
        return (
            (size == 1 or shape == (size,))
            and len(self.deviation) == len(self.whole) == size
            and (not self.columns or (len(self.columns),) == shape == (size,))
            and all(map(math.isfinite, self.mean))
            and all(0 < value < math.inf for value in self.deviation)
        )

    def _moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return m and d, float64, on the device of `like`."""
        mean = torch.tensor(self.mean, dtype=torch.float64, device=like.device)
        return mean, torch.tensor(self.deviation, dtype=torch.float64, device=like.device)
