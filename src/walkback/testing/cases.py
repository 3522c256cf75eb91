"""Cases, checks and outcomes of the conformance kit.

Case     a component with its options, by name, class or factory
Check    one law: a name, what it proves, and a function of the case
Outcome  how one check went
"""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

from walkback.building.assembly import built_options
from walkback.component import Kind, spoken
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
from walkback.support.text import one_line
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
"""What a component of each kind derives from."""

SPACES: tuple[StateSpace, ...] = (
    *(Space((2,)), Space((1, 8, 8)), Space((3, 8, 8))),
    *(Space((5,), "binary"), Space((1, 8, 8), "binary")),
)
"""Spaces that are tried where a case names none: points and images, real and binary."""

SYMBOLS: tuple[StateSpace, ...] = (Space((3, 4), "one-hot"),)
"""Spaces that are tried where a component refuses all of `SPACES`."""


class ConformanceError(PluginError):
    """A component breaks a law of its kind; the message says which, and what to do."""


class NotApplicable(unittest.SkipTest):
    """A check has nothing to say about a component; pytest and unittest count it as skipped."""


@final
@dataclass(frozen=True, slots=True)
class Case:
    """A component to check.

    Attributes:
        label: What messages call it.
        component: A name for the registry, or what makes the component: its class, or a factory with the same
            positional arguments (`space` for operators and priors, nothing for others).
        options: Keyword arguments; those of a name or a class are checked as in a configuration. Components among those
            of a class are instances.
        spaces: Spaces to try for operators, priors and processes.
        registry: Looks up names.
        thorough: Whether to check what takes minutes too.
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
        """A case from a registered name, a class or a factory; see the attributes.

        Args:
            component: What to check.
            options: Its options.
            spaces: Spaces that it accepts, where the usual ones (`SPACES`) are not for it.
            registry: Looks up names; None finds the installed plugins.
            thorough: Whether to check what takes minutes too.
        """
        by_name = isinstance(component, str)
        label = component if isinstance(component, str) else getattr(component, "__name__", repr(component))
        found = Registry.discover() if by_name and registry is None else registry
        return cls(label, component, dict(options or {}), tuple(spaces) or SPACES, found, thorough)

    def build(self, kind: Kind, *arguments: Any, seed: int = 0) -> Any:
        """A new component, its initial weights drawn from `seed`.

        Raises:
            ConfigurationError: It refuses the arguments, or the options are wrong.
            ConformanceError: It cannot be built, or is of another kind.
        """
        make, options = self._maker(kind, *arguments)
        try:
            with lent_seed(seed), quiet_stdout():
                part = make(*arguments, **options)
        except (ConfigurationError, ConformanceError, unittest.SkipTest):
            raise
        except Exception as error:
            raise ConformanceError(
                f"Got {one_line(error)} when the {spoken(kind)} {self.label!r} was built, expected a component, or a "
                "ConfigurationError that says what it cannot do."
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
        name: In words joined by dashes, unique within the kind.
        proves: What holds of a component that passes, one clause.
        function: Raises where it does not hold.
        expected: Why this component is expected to fail; "" where it is expected to pass.
    """

    name: str
    proves: str
    function: Callable[[Case], None]
    expected: str = ""

    def __str__(self) -> str:
        return self.name

    def __call__(self, case: Case) -> None:
        """Check a case; returns where the law holds.

        Raises:
            ConformanceError: It does not hold, or does where a failure was expected.
            unittest.SkipTest: There was nothing to check, or it failed as expected.
        """
        outcome, cause = self._judged(case)
        if outcome.status == "failed":
            raise ConformanceError(outcome.message) from cause
        if outcome.status != "passed":
            raise NotApplicable(outcome.message)

    def outcome(self, case: Case) -> Outcome:
        """The same as a record; raises nothing of the component's."""
        return self._judged(case)[0]

    def _judged(self, case: Case) -> tuple[Outcome, BaseException | None]:
        """The outcome, and the exception behind it."""
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
                "take the check out of `expected`."
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
    """How one check of a component went.

    Attributes:
        name: Of the check.
        status: "passed"; "failed"; "expected" for a failure with a reason; "skipped" where it does not apply.
        message: What is wrong, or why it was expected or skipped; "" where it passed.
        proves: What holds of a component that passes.
    """

    name: str
    status: Status
    message: str = ""
    proves: str = ""


_Collector: TypeAlias = Callable[[Callable[[Case], None]], Callable[[Case], None]]


@final
class Suite:
    """The checks of one kind, in the order in which they are written."""

    def __init__(self) -> None:
        self._checks: list[Check] = []

    def check(self, name: str, proves: str) -> _Collector:
        """Take in a function of a case as a check."""

        def take(function: Callable[[Case], None]) -> Callable[[Case], None]:
            self._checks.append(Check(name, proves, function))
            return function

        return take

    def __iter__(self) -> Iterator[Check]:
        return iter(self._checks)
