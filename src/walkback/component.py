"""Lightweight frozen records with which plugins register components.

Nothing here imports torch. A plugin module that lists its components must load in milliseconds, so it refers to
heavy code by a string (`"module:attribute"`) that is imported only when the component is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

API_VERSION = 1
"""Version of the plugin interface (hooks, abstract classes); see docs/plugins.md."""

Kind = Literal[
    "operator",
    "network",
    "temperature_law",
    "schedule",
    "prior",
    "process",
    "objective",
    "dataset",
    "diagnostic",
    "logger",
    "metric",
]
"""Kinds of component that are configured by name. The hook for kind K is `walkback_Ks`."""

KINDS: tuple[Kind, ...] = get_args(Kind)

INTERFACES: Mapping[Kind, tuple[str, ...]] = {
    "operator": ("walkback.operators:TransitionOperator",),
    "network": ("walkback.networks:Network",),
    "temperature_law": ("walkback.temperature:TemperatureLaw",),
    "schedule": ("walkback.schedules:Schedule",),
    "prior": ("walkback.priors:Prior",),
    "process": ("walkback.processes:Process",),
    "objective": ("walkback.objectives:Objective", "walkback.objectives:PathObjective"),
    "dataset": ("walkback.data:Dataset",),
    "diagnostic": ("walkback.diagnostics:Diagnostic",),
    "logger": ("walkback.loggers:Logger",),
    "metric": ("walkback.metrics:Metric",),
}
"""Base classes of each kind, as `"module:class"`. An option annotated with one of them is itself a component."""


@dataclass(frozen=True, slots=True)
class Component:
    """A component that can be chosen by name in a configuration.

    Attributes:
        name: The name users type, e.g. `"gaussian-conv"`.
        target: Location of the class, `"module:attribute"`; imported only when it is used.
        summary: One line for listings.
        defaults: Settings that suit this component in *other* sections of the run configuration, by section, e.g.
            `{"prior": {"name": "bernoulli"}, "data": {"binarize": "threshold"}}`. They apply only if the
            section has the option and neither the recipe nor the user sets it.
        preset: Options that override the defaults of the class, e.g. `{"network": {"name": "unet"}}`; one of several.
        renamed: Current options by former ones, dotted: `{"hidden": "network.hidden"}`; for older files and hints.
        self_contained: Whether a dataset is made from its options alone; a checkpoint may use only such data unasked.
        instances: Classes (`"module:class"`) whose instances, given in Python, are configured as this component.
    """

    name: str
    target: str
    summary: str = ""
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    preset: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    self_contained: bool = False
    instances: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """A complete configuration, shipped as a TOML file inside a plugin's package.

    Attributes:
        name: The name users type after `--recipe`.
        resource: Location of the file, `"package:path/inside/it.toml"`.
        summary: One line for listings.
        default: Whether `walkback run` without options uses this recipe. At most one recipe may set it.
    """

    name: str
    resource: str
    summary: str = ""
    default: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A group of commands added to `walkback` (a `typer.Typer` at `target`)."""

    name: str
    target: str
    summary: str = ""


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A dataset component, with the options that make it read one source (a path or a hub id)."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
