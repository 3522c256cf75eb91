"""What a measurement says: figures with unit and error, series to plot, and the protocol that they were made under.

A figure without its protocol is hearsay. A `Report` therefore carries what is needed to make it again: checkpoint,
data, split, numbers, seed, levels, version.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from walkback.errors import WalkbackError
from walkback.support import html as markup

FEWEST = 4
"""Independent values below which no standard error is given."""

_MOST_PLACES = 8
_ROUNDING = 1e-12  # relative; an error below it is that of floating point


@dataclass(frozen=True, slots=True)
class Figure:
    """One number.

    Attributes:
        name: In snake_case, unique in its report.
        value: The estimate.
        unit: For instance "nats", "bits/dim", "nats/step", "steps", "s", "%", "×" (times as much); "1" for any other
            number without dimension.
        error: One standard error, in the unit; where the bias is known to be within limits only, these are in it. None
            where the value is exact or has none, which `meaning` says.
        interval: Ends of the 95 % confidence interval, where it is not ± 1.96 errors.
        meaning: One line for people: what it is, and what it should be.
        side: Where the value lies, apart from its error: "above" what is asked for, which is at most the value, or
            "below" it; None where it is neither.
    """

    name: str
    value: float
    unit: str
    error: float | None = None
    interval: tuple[float, float] | None = None
    meaning: str = ""
    side: Literal["above", "below"] | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers in order, for a plot.

    Attributes:
        name: In snake_case, unique in its report.
        x: Positions.
        y: Values, as many.
        x_label: What `x` is, with its unit in brackets: "path length (steps)".
        y_label: The same for `y`. Series with equal labels are drawn into one panel.
        error: One standard error of each value; None where there is none.
        marks: Whether values are drawn as marks without a line.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    x_label: str
    y_label: str
    error: tuple[float, ...] | None = None
    marks: bool = False

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or (self.error is not None and len(self.error) != len(self.y)):
            raise ValueError(
                f"Got a series {self.name!r} of unequal lengths, expected as many x as y and errors."
            )


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a measurement.

    Attributes:
        name: Of the measurement: "evaluate", or the diagnostic.
        headline: Name of the figure that a threshold is compared with.
        figures: All figures, in the order to be read.
        series: What to plot.
        warnings: What a reader must know before using a figure, one sentence each.
        protocol: How the figures were made, plain JSON types.
    """

    name: str
    headline: str
    figures: tuple[Figure, ...]
    series: tuple[Series, ...] = ()
    warnings: tuple[str, ...] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [figure.name for figure in self.figures]
        if len(set(names)) != len(names) or self.headline not in names:
            raise ValueError(
                f"Got figures {names} with the headline {self.headline!r}, expected different names, one of "
                "them the headline's."
            )
        for figure in self.figures:
            if not (math.isfinite(figure.value) and math.isfinite(figure.error or 0.0)):
                raise WalkbackError(
                    f"Got {figure.name} = {figure.value} ± {figure.error} {figure.unit}, expected finite "
                    "numbers: this measurement cannot be trusted."
                )

    def __getitem__(self, name: str) -> Figure:
        """The figure called `name`; raises KeyError."""
        for figure in self.figures:
            if figure.name == name:
                return figure
        raise KeyError(name)

    def stamped(self, protocol: Mapping[str, Any], warnings: Iterable[str] = ()) -> Report:
        """The same with a wider protocol (its own entries win) and further warnings before its own."""
        return replace(self, protocol={**protocol, **self.protocol}, warnings=(*warnings, *self.warnings))

    def _repr_html_(self) -> str:
        """The report in a notebook: figures, warnings, protocol."""
        rows = [(figure.name, number(figure), figure.unit, figure.meaning) for figure in self.figures]
        return (
            markup.heading(self.name)
            + markup.table(rows, ("figure", "value", "unit", "meaning"))
            + markup.notes(f"warning: {warning}" for warning in self.warnings)
            + markup.folded("protocol", markup.table(self.protocol.items()))
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; see docs/measuring.md for the schema."""
        record = asdict(self)
        record["figures"] = [
            {**asdict(figure), "interval": None if figure.interval is None else list(figure.interval)}
            for figure in self.figures
        ]
        record["series"] = [
            {
                **asdict(series),
                "x": list(series.x),
                "y": list(series.y),
                "error": None if series.error is None else list(series.error),
            }
            for series in self.series
        ]
        record["warnings"] = list(self.warnings)
        record["protocol"] = dict(self.protocol)
        return record


def number(figure: Figure) -> str:
    """`value ± error`, to two digits of the error; `≤` or `≥` before a bound, both ends where there is no error.

    >>> number(Figure("a", 1.23456, "nats", 0.0123)), number(Figure("a", 1234.5, "nats"))
    ('1.235 ± 0.012', '1234.5')
    >>> number(Figure("a", 1.23456, "nats", 0.0123, side="above")), number(Figure("a", 7.0, "steps", side="below"))
    ('≤ 1.235 ± 0.012', '≥ 7')
    >>> number(Figure("a", 0.0, "1/step", interval=(0.0, 0.00123)))
    '0 to 0.00123'
    """
    sign = {"above": "≤ ", "below": "≥ ", None: ""}[figure.side]
    if figure.error is None and figure.interval is not None:
        return f"{sign}{figure.interval[0]:.4g} to {figure.interval[1]:.4g}"
    return sign + _with_error(figure.value, figure.error)


def _with_error(value: float, error: float | None) -> str:
    if error is None:
        return f"{value:.5g}"
    if error <= _ROUNDING * max(1.0, abs(value)):
        return f"{value:.5g} ± 0"
    places = max(0, 1 - math.floor(math.log10(error)))
    if places > _MOST_PLACES:
        return f"{value:.4g} ± {error:.2g}"
    return f"{value:.{places}f} ± {error:.{places}f}"
