"""Cases, checks and outcomes of the conformance kit.

Case     a component with its options, by name, class or factory
Check    one law: a name, what it proves, and a function of the case
Outcome  the result of one check
"""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

from walkback.building.assembly import built_options
from walkback.component import Kind
from walkback.configuration.components import Options, configure
from walkback.configuration.schema import component_options, nested_in, validate
from walkback.data import Dataset
from walkback.diagnostics import Diagnostic
from walkback.errors import ConfigurationError, PluginError
from walkback.extensions.loader import quiet_stdout
from walkback.extensions.registry import Registry
from walkback.loggers import Logger
from walkback.metrics import Metric
from walkback.networks import Network
from walkback.objectives import Objective, PathObjective
from walkback.operators import TransitionOperator
from walkback.priors import Prior
from walkback.processes import Process
from walkback.schedules import Schedule
from walkback.state import Space, StateSpace
from walkback.support.seeding import lent_seed
from walkback.support.text import one_line, spoken
from walkback.temperature import TemperatureLaw

Status: TypeAlias = Literal["passed", "failed", "expected", "skipped"]

BASES: Mapping[Kind, tuple[type, ...]] = {
    "operator": (TransitionOperator,),
    "network": (Network,),
    "temperature_law": (TemperatureLaw,),
    "schedule": (Schedule,),
    "prior": (Prior,),
    "process": (Process,),
    "objective": (Objective, PathObjective),
    "dataset": (Dataset,),
    "diagnostic": (Diagnostic,),
    "logger": (Logger,),
    "metric": (Metric,),
}
"""Base classes of the components of each kind."""

SPACES: tuple[StateSpace, ...] = (
    *(Space((2,)), Space((1, 8, 8)), Space((3, 8, 8))),
    *(Space((5,), "binary"), Space((1, 8, 8), "binary")),
)
"""Spaces to try if a case names none: points and images, real and binary."""

SYMBOLS: tuple[StateSpace, ...] = (Space((3, 4), "one-hot"),)
"""Spaces that are tried where a component refuses all of `SPACES`."""


class ConformanceError(PluginError):
    """A component breaks a law of its kind; the message says which one, and how to fix it."""


class NotApplicable(unittest.SkipTest):
    """A check does not apply to a component; pytest and unittest count it as skipped."""


@final
@dataclass(frozen=True, slots=True)
class Case:
    """A component to check.

    Attributes:
        label: Its name in messages.
        component: A name in the registry, the component's class, or a factory with the same positional arguments
            (`space` for operators and priors, none for other kinds).
        options: Keyword arguments. With a name or a class, they are validated as in a configuration. With a class,
            nested components are instances.
        spaces: Spaces to try for operators, priors and processes.
        registry: Resolves names.
        thorough: Whether to run checks that take minutes.
    """

    label: str
    component: str | Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    spaces: tuple[StateSpace, ...] = SPACES
    registry: Registry | None = None
    thorough: bool = False

    @classmethod
    def of(
        cls,
        component: str | Callable[..., Any],
        options: Mapping[str, Any] | None = None,
        *,
        spaces: Sequence[StateSpace] = (),
        registry: Registry | None = None,
        thorough: bool = False,
    ) -> Case:
        """Return a case for a registered name, a class or a factory; see the attributes.

        Args:
            component: The component to check.
            options: Its options.
            spaces: Spaces that it accepts; by default, `SPACES`.
            registry: Resolves names; None discovers the installed plugins.
            thorough: Whether to run checks that take minutes.
        """
        by_name = isinstance(component, str)
        label = component if isinstance(component, str) else getattr(component, "__name__", repr(component))
        found = Registry.discover() if by_name and registry is None else registry
        return cls(label, component, dict(options or {}), tuple(spaces) or SPACES, found, thorough)

    def build(self, kind: Kind, *arguments: Any, seed: int = 0) -> Any:
        """Build a new component; `seed` determines its initial weights.

        Raises:
            ConfigurationError: The component rejects the arguments, or the options are invalid.
            ConformanceError: The component cannot be built, or is of another kind.
        """
        make, options = self._maker(kind, *arguments)
        try:
            with lent_seed(seed), quiet_stdout():
                part = make(*arguments, **options)
        except (ConfigurationError, ConformanceError, unittest.SkipTest):
            raise
        except Exception as error:
            raise ConformanceError(
                f"Got {one_line(error)} while building the {spoken(kind)} {self.label!r}, expected a component, or a "
                "ConfigurationError that says what is not supported."
            ) from error
        if not isinstance(part, BASES[kind]):
            bases = " or ".join(f"{base.__module__}.{base.__qualname__}" for base in BASES[kind])
            raise ConformanceError(
                f"Got {type(part).__qualname__} as the {spoken(kind)} {self.label!r}, expected a subclass of {bases}."
            )
        return part

    def _maker(self, kind: Kind, *arguments: Any) -> tuple[Callable[..., Any], Mapping[str, Any]]:
        component = self.component
        if isinstance(component, str):
            registry = self.registry or Registry.discover()
            registered = registry.find(kind, component)
            config = configure(registry, kind, registered, [Options(self.options)])
            return registry.load(registered), built_options(registry, kind, config, *arguments)
        if isinstance(component, type):
            fields = component_options(component).model_fields.items()
            nested = [name for name, entry in fields if nested_in(entry) is not None]
            parts = {name: self.options[name] for name in nested if name in self.options}
            return component, validate(kind, component, {**self.options, **dict.fromkeys(parts)}) | parts
        return component, self.options


@final
@dataclass(frozen=True, slots=True)
class Check:
    """One law of a kind of component.

    Attributes:
        name: Words joined by hyphens, unique within the kind.
        proves: What is true of a component that passes, as one clause.
        function: Raises if the law does not hold.
        expected: Why this component is expected to fail; "" if it is expected to pass.
    """

    name: str
    proves: str
    function: Callable[[Case], None]
    expected: str = ""

    def __str__(self) -> str:
        return self.name

    def __call__(self, case: Case) -> None:
        """Check a case and return if the law holds.

        Raises:
            ConformanceError: The law does not hold, or it holds although a failure was expected.
            unittest.SkipTest: The check does not apply, or the component failed as expected.
        """
        outcome, cause = self._judged(case)
        if outcome.status == "failed":
            raise ConformanceError(outcome.message) from cause
        if outcome.status != "passed":
            raise NotApplicable(outcome.message)

    def outcome(self, case: Case) -> Outcome:
        """Check a case and return the outcome as a record; never raises the component's own errors."""
        return self._judged(case)[0]

    def _judged(self, case: Case) -> tuple[Outcome, BaseException | None]:
        """Return the outcome and the exception that caused it, if any."""
        try:
            self.function(case)
        except unittest.SkipTest as reason:
            return self._outcome("skipped", str(reason)), None
        except (Exception, SystemExit) as error:
            if self.expected:
                return self._outcome("expected", f"Fails as expected: {self.expected}."), error
            return self._outcome("failed", self._fault(error)), error
        if self.expected:
            message = (
                f"Got a pass of {self.name!r}, expected a failure ({self.expected}): "
                "remove the check from `expected`."
            )
            return self._outcome("failed", message), None
        return self._outcome("passed", ""), None

    def _outcome(self, status: Status, message: str) -> Outcome:
        return Outcome(self.name, status, message, self.proves)

    def _fault(self, error: BaseException) -> str:
        if isinstance(error, PluginError | ConfigurationError):
            return str(error)
        return f"Got {one_line(error)}, expected that {self.proves}."


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one check of a component.

    Attributes:
        name: Name of the check.
        status: "passed"; "failed"; "expected" for a declared failure; "skipped" if the check does not apply.
        message: What is wrong, or why the check was skipped or the failure expected; "" if it passed.
        proves: What is true of a component that passes.
    """

    name: str
    status: Status
    message: str = ""
    proves: str = ""


_Collector: TypeAlias = Callable[[Callable[[Case], None]], Callable[[Case], None]]


@final
class Suite:
    """The checks of one kind, in the order of their definition."""

    def __init__(self) -> None:
        self._checks: list[Check] = []

    def check(self, name: str, proves: str) -> _Collector:
        """Return a decorator that registers a function of a case as a check."""

        def take(function: Callable[[Case], None]) -> Callable[[Case], None]:
            self._checks.append(Check(name, proves, function))
            return function

        return take

    def __iter__(self) -> Iterator[Check]:
        return iter(self._checks)
