"""The hooks through which plugins extend walkback: one a kind.

A plugin is a module (entry-point group `walkback`) with some of these functions, each marked `@hookimpl` and
yielding light records::

    from walkback.hookspecs import hookimpl
    from walkback.component import Component

    @hookimpl
    def walkback_operators():
        yield Component("my-operator", "my_package.operators:MyOperator", summary="…")

The keyword-only arguments of the component's `__init__` are its configuration: their annotations are checked,
unknown keys are refused, and their defaults show in `walkback run --dry-run`. An argument annotated with a class of
`walkback.component.INTERFACES` is a component itself, and is configured by a table of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from walkback.component import Command, Component, DatasetSource, Recipe

ENTRY_POINT_GROUP = "walkback"

hookspec = pluggy.HookspecMarker("walkback")
hookimpl = pluggy.HookimplMarker("walkback")


@hookspec
def walkback_operators() -> Iterable[Component]:  # type: ignore[empty-body]
    """Transition operators: `walkback.operators.TransitionOperator`, built as `cls(space, **options)`."""


@hookspec
def walkback_networks() -> Iterable[Component]:  # type: ignore[empty-body]
    """Networks inside operators: `walkback.networks.Network`, built as `cls(**options)`."""


@hookspec
def walkback_temperature_laws() -> Iterable[Component]:  # type: ignore[empty-body]
    """Temperature laws: `walkback.temperature.TemperatureLaw`, built as `cls(**options)`."""


@hookspec
def walkback_schedules() -> Iterable[Component]:  # type: ignore[empty-body]
    """Annealing schedules: `walkback.schedules.Schedule`, built as `cls(**options)`."""


@hookspec
def walkback_priors() -> Iterable[Component]:  # type: ignore[empty-body]
    """Priors p*: `walkback.priors.Prior`, built as `cls(space, **options)`."""


@hookspec
def walkback_processes() -> Iterable[Component]:  # type: ignore[empty-body]
    """Heating processes q: `walkback.processes.Process`, built as `cls(**options)`."""


@hookspec
def walkback_objectives() -> Iterable[Component]:  # type: ignore[empty-body]
    """Objectives: `walkback.objectives.Objective` (of a step) or `PathObjective` (of a walk), as `cls(**options)`."""


@hookspec
def walkback_datasets() -> Iterable[Component]:  # type: ignore[empty-body]
    """Data sets: `walkback.data.Dataset`, built as `cls(**options)`."""


@hookspec(firstresult=True)
def walkback_dataset_source(source: str) -> DatasetSource | None:
    """Which data component reads `source`, a `--data` value that is no component's name (a path, a hub id)."""


@hookspec
def walkback_diagnostics() -> Iterable[Component]:  # type: ignore[empty-body]
    """Diagnostics of a trained operator: `walkback.diagnostics.Diagnostic`, built as `cls(**options)`."""


@hookspec
def walkback_loggers() -> Iterable[Component]:  # type: ignore[empty-body]
    """Metric loggers: `walkback.loggers.Logger`, built as `cls(**options)`, opened with the run directory."""


@hookspec
def walkback_metrics() -> Iterable[Component]:  # type: ignore[empty-body]
    """Columns of `metrics.jsonl`: `walkback.metrics.Metric`, built as `cls(**options)`."""


@hookspec
def walkback_recipes() -> Iterable[Recipe]:  # type: ignore[empty-body]
    """Recipes: configurations by name, TOML files inside the plugin's package."""


@hookspec
def walkback_commands() -> Iterable[Command]:  # type: ignore[empty-body]
    """Further commands of the `walkback` program."""
