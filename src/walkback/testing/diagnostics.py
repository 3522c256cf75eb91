"""Laws of diagnostics: figures have units and errors, are reproducible, and are refused if they would be wrong.

The checks measure a model that is in detailed balance and stationary from the start (`reference`), on data drawn from
its stationary distribution.
"""

from __future__ import annotations

import math

import torch

from walkback.diagnostics import Diagnostic, Subject
from walkback.errors import ConfigurationError, WalkbackError
from walkback.report import Report
from walkback.state import Space, State
from walkback.testing.cases import Case, ConformanceError, Suite
from walkback.testing.probes import drawn_from
from walkback.testing.reference import Drawn, reversible_model

DIAGNOSTICS = Suite()

_SPACE = Space((2,))
_LIMIT = 6.0
"""Largest |z| between two seeds: standard errors estimated from few chains are themselves imprecise."""


def _subject(seed: int = 0, memory: float | None = None) -> Subject:
    data = Drawn(_SPACE)
    return Subject(reversible_model(_SPACE, memory), data.info, lambda: data, seed=seed)


def _measured(case: Case, seed: int = 0) -> Report:
    diagnostic: Diagnostic = case.build("diagnostic")
    report = diagnostic.measure(_subject(seed))
    if not isinstance(report, Report):
        raise ConformanceError(f"Got {type(report).__name__} of measure, expected a walkback.report.Report.")
    return report


@DIAGNOSTICS.check("builds", "it is a diagnostic, built from its options, that returns a report")
def _builds(case: Case) -> None:
    _measured(case)


@DIAGNOSTICS.check(
    "figures", "figures are finite and have a unit, and an error or a meaning that says why there is none"
)
def _figures(case: Case) -> None:
    for figure in _measured(case).figures:
        if not figure.unit:
            raise ConformanceError(f"Got {figure.name} without a unit, expected one; '1' for a plain number.")
        if figure.error is None and not figure.meaning:
            raise ConformanceError(
                f"Got {figure.name} = {figure.value:.4g} {figure.unit} without a standard error, expected one, or a "
                "meaning that says why there is none."
            )
        if not (math.isfinite(figure.value) and (figure.error or 0.0) >= 0):
            raise ConformanceError(
                f"Got {figure.name} = {figure.value} ± {figure.error}, expected a finite value and an error ≥ 0."
            )


@DIAGNOSTICS.check(
    "repeats", "the same seed gives the same figures, and global randomness is neither read nor changed"
)
def _repeats(case: Case) -> None:
    reports: list[Report] = []

    def measure(_: torch.Generator) -> State:
        reports.append(_measured(case))
        return ()

    drawn_from(measure, "measurement")
    first, second = reports
    if first.figures != second.figures or first.series != second.series:
        raise ConformanceError(
            "Got different figures from the same seed, expected equal ones: draw from subject.generator(…) only."
        )


@DIAGNOSTICS.check("errors", "two seeds differ by no more than the standard error of the headline allows")
def _errors(case: Case) -> None:
    first, second = (report[report.headline] for report in (_measured(case), _measured(case, seed=1)))
    if first.error is None or second.error is None:
        return
    gap, error = abs(first.value - second.value), math.hypot(first.error, second.error)
    if gap > _LIMIT * error + 1e-9:
        raise ConformanceError(
            f"Got {first.name} = {first.value:.4g} ± {first.error:.2g} and {second.value:.4g} ± {second.error:.2g} of "
            f"two seeds, {gap / max(error, 1e-300):.0f} standard errors apart, expected less than {_LIMIT:g}: the "
            "error is too small."
        )


@DIAGNOSTICS.check(
    "refuses-nan", "an operator that returns nan is refused with a WalkbackError, not measured"
)
def _refuses_nan(case: Case) -> None:
    diagnostic: Diagnostic = case.build("diagnostic")
    try:
        report = diagnostic.measure(_subject(memory=math.nan))
    except ConfigurationError:
        raise
    except WalkbackError:
        return
    raise ConformanceError(
        f"Got {report.headline} = {report[report.headline].value:.4g} for an operator whose kernels are nan, expected "
        "a WalkbackError: a meaningless figure is worse than none."
    )
