"""Checks that values have a density: if columns are constant or depend on others, -log p has no lower bound."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from walkback.data.tables import Table, quoted
from walkback.errors import DataError

_LARGEST_CHECKED = 1024
_DEPENDENT = 1e-10
"""Smallest eigenvalue of the correlation matrix below which columns count as dependent; rounding leaves about 1e-14."""

_CONSTANT = 1e-12
"""Deviation, relative to the largest value, below which a column counts as constant: float64 has 16 digits."""


def require_density(table: Table) -> None:
    """Check that training values have a density; otherwise, -log p has no lower bound.

    Raises:
        DataError: A column is constant, has an infinite variance, equals another one up to scale and shift, or is a
            linear combination of others.
    """
    rows = table.values.double()
    if rows.dim() != 2:
        rows = rows.reshape(-1, 1)
    mean = rows.mean(0)
    deviation = (rows - mean).square().mean(0).sqrt()
    names = [quoted(name) for name in table.shown] if table.values.dim() == 2 else ["array"]
    for name, spread, largest in zip(names, deviation.tolist(), rows.abs().amax(0).tolist(), strict=True):
        what = f"Column {name} of {table.name}" if table.values.dim() == 2 else table.name
        if not spread < float("inf"):
            raise DataError(f"{what} has values up to {largest:.3g}, whose variance is infinite: rescale it.")
        if spread <= _CONSTANT * largest:
            raise DataError(f"{what} is constant, so it has no density: leave it out with data.columns.")
    if 1 < rows.shape[1] <= _LARGEST_CHECKED:
        _require_independent((rows - mean) / deviation, names, table)


def _require_independent(white: Tensor, names: Sequence[str], table: Table) -> None:
    correlation = white.T @ white / len(white)
    pairs = (correlation.abs().triu(1) > 1 - _DEPENDENT).nonzero().tolist()
    if pairs:
        first, second = pairs[0]
        raise DataError(
            f"Columns {names[first]} and {names[second]} of {table.name} are the same up to scale and shift, so they "
            "have no joint density: leave one of them out with data.columns."
        )
    if any(table.whole) or len(white) <= len(names):
        return
    values, vectors = torch.linalg.eigh(correlation)
    if values[0] < _DEPENDENT:
        involved = [
            name for name, part in zip(names, vectors[:, 0].abs().tolist(), strict=True) if part > 1e-3
        ]
        raise DataError(
            f"Columns {', '.join(involved[:10])} of {table.name} are linearly dependent, so they have no joint "
            "density: leave one of them out with data.columns."
        )
