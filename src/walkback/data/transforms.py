"""Transforms of columns with bounds or heavy tails: between the values x of a column and y, which is standardized.

    none           x = y
    log(a)         x = a + exp y                     x > a         log dx/dy = y
    logit(a, b)    x = a + (b - a) / (1 + exp -y)    a < x < b     log dx/dy = log (b - a) - |y| - 2 log (1 + exp -|y|)
    asinh(m, c)    x = m + c sinh y                  heavy tails   log dx/dy = log c + log cosh y

`log` alone is `log(0)`, `logit` alone is `logit(0, 1)`, and `asinh` alone takes m and c from the data: those by which
the column comes closest to a normal distribution.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn.functional import softplus

from walkback.data.tables import Table, position, quoted
from walkback.errors import ConfigurationError, DataError

Kind: TypeAlias = Literal["none", "log", "logit", "asinh"]

_DEFAULTS: dict[Kind, tuple[float, ...]] = {"none": (), "log": (0.0,), "logit": (0.0, 1.0), "asinh": ()}
_MOST_FITTED = 20_000
_WIDTHS = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Transform:
    """One row of the module's table.

    Attributes:
        kind: Which.
        numbers: a, (a, b) or (m, c).
    """

    kind: Kind = "none"
    numbers: tuple[float, ...] = ()

    @classmethod
    def parsed(cls, text: str) -> Transform:
        """Read "log", "logit(0, 100)", …; "asinh" alone has no numbers yet.

        Raises:
            ConfigurationError: It is none of these.
        """
        found = re.fullmatch(r"\s*(none|log|logit|asinh)\s*(?:\(([^()]*)\))?\s*", text)
        try:
            kind: Kind = found.group(1) if found else "none"  # type: ignore[assignment]
            inside = found.group(2) if found else None
            given = _DEFAULTS[kind] if inside is None else tuple(map(float, inside.split(",")))
            made = cls(kind, given)
        except ValueError:
            found = None
        if found is None or not (made.possible or made == cls("asinh")):
            raise ConfigurationError(
                f"Got the transform {text!r}, expected 'log', 'log(a)', 'logit', 'logit(a, b)', 'asinh', "
                "'asinh(m, c)' or 'none'."
            )
        return made

    @property
    def possible(self) -> bool:
        """Whether the numbers are as many as the kind has, finite, with a < b and c > 0."""
        count = {"none": 0, "log": 1, "logit": 2, "asinh": 2}
        if self.kind not in get_args(Kind) or len(self.numbers) != count[self.kind]:
            return False
        if not all(map(math.isfinite, self.numbers)):
            return False
        if self.kind == "logit":
            return self.numbers[0] < self.numbers[1]
        return self.kind != "asinh" or self.numbers[1] > 0

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the open interval that values lie in."""
        if self.kind == "logit":
            return self.numbers[0], self.numbers[1]
        return (self.numbers[0] if self.kind == "log" else -math.inf), math.inf

    def forward(self, values: Tensor) -> Tensor:
        """Return y of values x, float64."""
        x = values.double()
        if self.kind == "log":
            return (x - self.numbers[0]).log()
        if self.kind == "logit":
            low, high = self.numbers
            return (x - low).log() - (high - x).log()
        if self.kind == "asinh":
            return ((x - self.numbers[0]) / self.numbers[1]).asinh()
        return x

    def inverse(self, straight: Tensor) -> Tensor:
        """Return x of y, float64."""
        y = straight.double()
        if self.kind == "log":
            return self.numbers[0] + y.exp()
        if self.kind == "logit":
            low, high = self.numbers
            return low + (high - low) * y.sigmoid()
        if self.kind == "asinh":
            return self.numbers[0] + self.numbers[1] * y.sinh()
        return y

    def log_slope(self, straight: Tensor) -> Tensor:
        """Return log dx/dy, float64."""
        y = straight.double()
        if self.kind == "log":
            return y
        if self.kind == "logit":
            return math.log(self.numbers[1] - self.numbers[0]) - y.abs() - 2 * softplus(-y.abs())
        if self.kind == "asinh":
            # log cosh y without overflow
            return math.log(self.numbers[1]) + y.abs() + softplus(-2 * y.abs()) - math.log(2)
        return torch.zeros_like(y)

    def fitted(self, column: Tensor) -> Transform:
        """Return the transform with its numbers; of `asinh` without any, those that suit a column `(N,)` best.

        m is the median, and c maximizes the likelihood of a normal y, -log deviation(y) - mean log dx/dy, among
        multiples of the distance of the quartiles.
        """
        if self.numbers or self.kind != "asinh":
            return self
        few = column.double()[:_MOST_FITTED]
        low, middle, high = few.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
        spread = high - low or few.std(correction=0).item()
        options = [Transform("asinh", (middle, share * spread)) for share in _WIDTHS]

        def loss(option: Transform) -> float:
            y = option.forward(few)
            return float(y.std(correction=0).log() + option.log_slope(y).mean())

        return min(options, key=loss)

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{number:.6g}' for number in self.numbers)})"


def transforms_of(wanted: str | Mapping[str, str], table: Table) -> tuple[Transform, ...]:
    """Return the transform of each column of a table, or a single one for all entries.

    Args:
        wanted: For all, or by the name of a column.
        table: `(N, *E)`.

    Raises:
        ConfigurationError: There is no such transform.
        DataError: There is no such column.
    """
    count = table.values.shape[1] if table.values.dim() == 2 else 1
    if isinstance(wanted, str):
        return (Transform.parsed(wanted),) * count
    if table.values.dim() != 2 and wanted:
        raise DataError(f"{table.name} has no columns: give one transform for all of its values.")
    found = [Transform()] * count
    for name, text in wanted.items():
        found[position(name, table.shown, table.name)] = Transform.parsed(text)
    return tuple(found)


def require_inside(transforms: Sequence[Transform], table: Table) -> None:
    """Refuse values outside the bounds of their transforms; whole numbers x stand for x - ½ to x + ½.

    Raises:
        DataError: There is one; the message names the column.
    """
    columns = table.values.unbind(1) if table.values.dim() == 2 else (table.values,)
    for index, transform in enumerate(transforms):
        column, (low, high) = columns[index].double(), transform.bounds
        half = 0.5 * table.whole[index % len(table.whole)]
        least, most = float(column.min()), float(column.max())
        exact = (low <= least - half and most + half <= high) if half else (low < least and most < high)
        if not exact:
            where = (
                f"Column {quoted(table.shown[index])} of {table.name}"
                if table.values.dim() == 2
                else table.name
            )
            raise DataError(
                f"{where} has values from {least:.6g} to {most:.6g}{' (± ½, as whole numbers)' * bool(half)}, expected "
                f"some between {low:.6g} and {high:.6g} for the transform {transform.kind}: give it other bounds, such "
                f"as {_wider(transform, least - half, most + half)}."
            )


def _wider(transform: Transform, least: float, most: float) -> str:
    """Return bounds that values from `least` to `most` have room in."""
    room = 0.01 * (most - least)
    low, high = transform.bounds
    low = low if low < least else least - room
    high = high if most < high else most + room
    return (
        f"{transform.kind}({low:.6g})"
        if transform.kind == "log"
        else f"{transform.kind}({low:.6g}, {high:.6g})"
    )
