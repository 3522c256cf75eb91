"""Transforms of columns with bounds or heavy tails, between the values x of a column and y, which is standardized.

    none           x = y
    log(a)         x = a + exp y                     x > a         log dx/dy = y
    logit(a, b)    x = a + (b - a) / (1 + exp -y)    a < x < b     log dx/dy = log (b - a) - |y| - 2 log (1 + exp -|y|)
    asinh(m, c)    x = m + c sinh y                  heavy tails   log dx/dy = log c + log cosh y

`log` means `log(0)`, `logit` means `logit(0, 1)`, and `asinh` fits m and c to the data, so that the distribution of y
is closest to normal.
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
    """One of the module's transforms.

    Attributes:
        kind: Its name.
        numbers: Its parameters: (a,), (a, b) or (m, c).
    """

    kind: Kind = "none"
    numbers: tuple[float, ...] = ()

    @classmethod
    def parsed(cls, text: str) -> Transform:
        """Parse "log", "logit(0, 100)", …; "asinh" has no numbers until it is fitted.

        Raises:
            ConfigurationError: The text has another form, or its numbers are invalid.
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
        """Whether there are as many numbers as the kind needs, all finite, with a < b and c > 0."""
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
        """The open interval of values."""
        if self.kind == "logit":
            return self.numbers[0], self.numbers[1]
        return (self.numbers[0] if self.kind == "log" else -math.inf), math.inf

    def forward(self, values: Tensor) -> Tensor:
        """Return y for values x, float64."""
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
        """Return x for y, float64."""
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
            # log cosh y = |y| + log (1 + exp(-2|y|)) - log 2, which does not overflow
            return math.log(self.numbers[1]) + y.abs() + softplus(-2 * y.abs()) - math.log(2)
        return torch.zeros_like(y)

    def fitted(self, column: Tensor) -> Transform:
        """Return the transform, with numbers fitted to a column `(N,)` if it is `asinh` without any.

        m is the median. c maximizes the likelihood of a normal y, -log deviation(y) - mean log dx/dy, among multiples
        of the interquartile range.
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
        wanted: A transform for all columns, or transforms by column.
        table: A table `(N, *E)`.

    Raises:
        ConfigurationError: A transform does not exist.
        DataError: A column does not exist.
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
    """Check that values are inside the bounds of their transforms; an integer x represents x - ½ to x + ½.

    Raises:
        DataError: A value is outside; the message names the column.
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
    """Return a transform, as text, whose bounds contain values from `least` to `most` with a margin."""
    room = 0.01 * (most - least)
    low, high = transform.bounds
    low = low if low < least else least - room
    high = high if most < high else most + room
    return (
        f"{transform.kind}({low:.6g})"
        if transform.kind == "log"
        else f"{transform.kind}({low:.6g}, {high:.6g})"
    )
