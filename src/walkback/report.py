"""Reports of measurements: figures with unit and error, series to plot, and the protocol behind them.

The protocol of a `Report` holds what is needed to reproduce its figures: checkpoint, data, split, sample sizes, seed,
levels and version.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from walkback.errors import WalkbackError
from walkback.support import html as markup
from walkback.support.numbers import with_error
from walkback.support.text import columns

FEWEST = 4
"""Independent values below which no standard error is given."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number.

    Attributes:
        name: Name in snake_case, unique in its report.
        value: The estimate.
        unit: For instance "nats", "bits/dim", "nats/step", "steps", "s", "%", "×" (a factor); "1" for any other
            dimensionless number.
        error: One standard error, in the unit; includes the bias if only limits of the bias are known. None if the
            value is exact or has no error estimate, as explained in `meaning`.
        interval: Ends of the 95 % confidence interval, unless it is ± 1.96 errors.
        meaning: One line that explains the figure and the value to expect.
        side: "above" if the value is an upper bound on the quantity of interest, apart from its error, "below" if it is
            a lower bound, None if it is neither.
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
        name: Name in snake_case, unique in its report.
        x: Positions.
        y: Values, one per position.
        x_label: Label of `x`, with its unit in parentheses: "path length (steps)".
        y_label: Label of `y`. Series with equal labels share a panel.
        error: One standard error of each value; None if there is none.
        marks: Whether values are drawn as markers without a line.
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
        name: Name of the measurement: "evaluate", or that of the diagnostic.
        headline: Name of the figure that a threshold is compared with.
        figures: All figures, in reading order.
        series: Series to plot.
        warnings: Caveats that a reader must know before using a figure, one sentence each.
        protocol: How the figures were made, in plain JSON types.
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
        """Return the figure called `name`; raises KeyError if there is none."""
        for figure in self.figures:
            if figure.name == name:
                return figure
        raise KeyError(name)

    def stamped(self, protocol: Mapping[str, Any], warnings: Iterable[str] = ()) -> Report:
        """Return a copy with more protocol entries (existing ones win) and with `warnings` before its own."""
        return replace(self, protocol={**protocol, **self.protocol}, warnings=(*warnings, *self.warnings))

    def __str__(self) -> str:
        """Figures and warnings, without series and protocol."""
        rows = [(figure.name, number(figure), figure.unit) for figure in self.figures]
        return columns([(self.name, "", ""), *rows], [f"warning: {warning}" for warning in self.warnings])

    def plot(self) -> Any:
        """Draw the series as a matplotlib figure (extra viz); see `walkback.support.curves.drawn`."""
        from walkback.support.curves import drawn

        return drawn(self.name, self.series)

    def _repr_html_(self) -> str:
        """Render figures, warnings and protocol in a notebook."""
        rows = [(figure.name, number(figure), figure.unit, figure.meaning) for figure in self.figures]
        return (
            markup.heading(self.name)
            + markup.table(rows, ("figure", "value", "unit", "meaning"))
            + markup.notes(f"warning: {warning}" for warning in self.warnings)
            + markup.folded("protocol", markup.table(self.protocol.items()))
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types; see docs/measuring.md for the schema."""
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
    """Format `value ± error` to two digits of the error, with `≤` or `≥` before a bound; without error, the interval.

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
    return sign + with_error(figure.value, figure.error)
