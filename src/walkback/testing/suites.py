"""The checks of each kind, and functions that run them on a component."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from walkback.component import KINDS, Kind
from walkback.errors import ConfigurationError
from walkback.extensions.loader import quiet_stdout
from walkback.extensions.registry import Registry
from walkback.state import StateSpace
from walkback.support.text import nearest, spoken
from walkback.testing.bridged import BRIDGED
from walkback.testing.cases import Case, Check, Outcome
from walkback.testing.compiled import OPERATORS
from walkback.testing.datasets import DATASETS
from walkback.testing.diagnostics import DIAGNOSTICS
from walkback.testing.divergences import OPERATOR_DIVERGENCES, PROCESS_DIVERGENCES
from walkback.testing.jumping import JUMPING
from walkback.testing.labels import LABELS
from walkback.testing.loggers import LOGGERS
from walkback.testing.metrics import METRICS
from walkback.testing.networks import NETWORKS
from walkback.testing.objectives import OBJECTIVES
from walkback.testing.priors import PRIORS
from walkback.testing.processes import PROCESSES
from walkback.testing.ranges import OPERATOR_RANGES, PRIOR_RANGES
from walkback.testing.reconstructing import RECONSTRUCTING
from walkback.testing.schedules import SCHEDULES
from walkback.testing.temperature_laws import TEMPERATURE_LAWS

SUITES: Mapping[Kind, Iterable[Check]] = {
    "operator": (*OPERATORS, *LABELS, *OPERATOR_DIVERGENCES, *OPERATOR_RANGES),
    "network": NETWORKS,
    "temperature_law": TEMPERATURE_LAWS,
    "schedule": SCHEDULES,
    "prior": (*PRIORS, *PRIOR_RANGES),
    "process": (*PROCESSES, *JUMPING, *BRIDGED, *RECONSTRUCTING, *PROCESS_DIVERGENCES),
    "objective": OBJECTIVES,
    "dataset": DATASETS,
    "diagnostic": DIAGNOSTICS,
    "logger": LOGGERS,
    "metric": METRICS,
}
"""The checks of each kind."""


def checks(kind: Kind, expected: Mapping[str, str] | None = None) -> tuple[Check, ...]:
    """Return the checks of a kind, each to be called with a `Case`.

    Args:
        kind: For instance "operator".
        expected: Reasons for known failures, by check; such a check fails if the component passes.

    Raises:
        ConfigurationError: There is no such kind or check, or a reason is empty.
    """
    if kind not in KINDS:
        raise ConfigurationError(
            f"Unknown kind {kind!r}{nearest(kind, KINDS)}; available: {', '.join(KINDS)}."
        )
    reasons = dict(expected or {})
    suite = tuple(SUITES[kind])
    names = [check.name for check in suite]
    for name, reason in reasons.items():
        if name not in names:
            raise ConfigurationError(
                f"Unknown check {name!r} of a {spoken(kind)}{nearest(name, names)}; available: {', '.join(names)}."
            )
        if not reason:
            raise ConfigurationError(f"Got an empty reason for the failure of {name!r}, expected one.")
    return tuple(replace(check, expected=reasons.get(check.name, "")) for check in suite)


def outcomes(
    kind: Kind,
    case: Case,
    *,
    expected: Mapping[str, str] | None = None,
    watch: Callable[[Outcome], None] | None = None,
) -> tuple[Outcome, ...]:
    """Run every check of a kind on a case and return the outcomes.

    Output of the component is redirected to stderr, and its warnings are suppressed.

    Args:
        kind: Kind of the component.
        case: The component.
        expected: See `checks`.
        watch: Called with each outcome as soon as it is known.

    Raises:
        ConfigurationError: There is no such kind or check.
    """
    found = []
    with quiet_stdout(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for check in checks(kind, expected):
            found.append(check.outcome(case))
            if watch is not None:
                watch(found[-1])
    return tuple(found)


def check_component(
    registry: Registry,
    kind: Kind,
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    spaces: Sequence[StateSpace] = (),
    thorough: bool = False,
    expected: Mapping[str, str] | None = None,
    watch: Callable[[Outcome], None] | None = None,
) -> tuple[Outcome, ...]:
    """Run every check on a registered component and return the outcomes.

    Args:
        registry: The plugins.
        kind: For instance "operator".
        name: `name` or `distribution:name`.
        options: Options of the component.
        spaces: Spaces that it accepts; () tries the usual ones.
        thorough: Whether to run checks that take minutes.
        expected: See `checks`.
        watch: Called with each outcome as soon as it is known.

    Raises:
        ConfigurationError: No plugin provides the name, or there is no such kind or check.
        PluginError: The component cannot be imported.
    """
    checks(kind, expected)
    registry.load(registry.find(kind, name))
    case = Case.of(name, options, spaces=spaces, registry=registry, thorough=thorough)
    return outcomes(kind, case, expected=expected, watch=watch)


def failed(results: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """Return the failed outcomes."""
    return tuple(outcome for outcome in results if outcome.status == "failed")
