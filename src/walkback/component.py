"""The light, frozen records through which plugins offer what they have.

Nothing here imports torch: a plugin module that lists its components must load in milliseconds, and names the
heavy code as a string (`"module:attribute"`) that is imported when somebody asks for it.
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
"""Kinds of component that are configured by name; the hook of kind K is `walkback_Ks`."""

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
"""What a component of each kind derives from, `"module:class"`. An option annotated with one of them is a component."""


def spoken(kind: str) -> str:
    """A kind in a sentence.

    >>> spoken("temperature_law")
    'temperature law'
    """
    return kind.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Component:
    """Something that can be chosen by name in a configuration.

    Attributes:
        name: The name users type, e.g. `"gaussian-conv"`.
        target: Where the class is, `"module:attribute"`; imported only when asked for.
        summary: One line for listings.
        defaults: Settings that suit this component in *other* sections of a run's configuration, by section, e.g.
            `{"prior": {"name": "bernoulli"}, "data": {"binarize": "threshold"}}`. They apply only where the
            section has the option and neither the recipe nor the user says otherwise.
        preset: Options of this component itself, in place of the defaults of its class; several components may be
            presets of one class, e.g. `{"network": {"name": "unet"}}`.
        renamed: Former options by their new place, both dotted, e.g. `{"hidden": "network.hidden"}`: for files of an
            older version, and for the hint that whoever still types the former name gets.
    """

    name: str
    target: str
    summary: str = ""
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    preset: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A complete configuration shipped as a TOML file inside a plugin's package.

    Attributes:
        name: The name users type after `--recipe`.
        resource: Where the file is, `"package:path/inside/it.toml"`.
        summary: One line for listings.
        default: Whether `walkback run` without options means this recipe. One recipe at most.
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
    """A data component together with the options that make it read one source (a path, a hub id)."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
