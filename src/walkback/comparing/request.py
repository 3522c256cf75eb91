"""The request to compare methods, a TOML file.

title = "Swiss roll"
seeds = [0, 1, 2]

[base]                    # recipe and sections of a configuration, shared by all methods
recipe = "swiss-roll"

[measure]                 # what is measured of every model, see `MeasureSettings`
samples = 500

[[methods]]               # sections that are layered over the base
name = "conditional"
label = "VW, conditional rule"
objective.name = "conditional"

[[methods]]
name = "old"
checkpoint = "old/final.safetensors"
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from walkback.configuration.config import SECTIONS
from walkback.configuration.documents import parse_toml
from walkback.configuration.overrides import Tables, assign, assignments, refuse_unknown_tables
from walkback.configuration.schema import check
from walkback.configuration.settings import Settings
from walkback.errors import ConfigurationError, shortened
from walkback.support.textfile import read_text

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
"""Names of methods, which are also those of directories."""

_OWN = ("name", "label", "recipe", "checkpoint")
"""Keys of a method that are not sections of a configuration."""


class MeasureSettings(Settings):
    """What is measured of every model."""

    split: Literal["train", "validation", "test"] = Field("test", description="Split to measure on.")
    examples: PositiveInt = Field(
        500, description="Maximum number of examples whose likelihood is estimated."
    )
    paths: PositiveInt = Field(16, description="Heating paths per example.")
    simulated: NonNegativeInt = Field(100, description="Samples whose likelihood is bracketed; 0 omits it.")
    samples: PositiveInt = Field(
        500, description="Chains, which are compared with as many held-out examples."
    )
    chain: tuple[NonNegativeInt, ...] = Field(
        (0, 1000, 10_000), description="Steps at T = 1 after which chains are compared with data."
    )
    excursion: NonNegativeInt = Field(
        0, description="Levels of chains there and back, compared after as many network calls; 0 omits them."
    )
    classifier: bool | None = Field(
        None, description="Whether to train a classifier on the labels; by default, if there are labels."
    )
    diagnose: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Diagnostics by name, with their options."
    )
    pictured: PositiveInt = Field(64, description="Maximum number of samples in a picture.")
    batch_size: PositiveInt = Field(250, description="Number of examples heated at a time.")
    seed: NonNegativeInt = Field(0, description="Seed of all measurements.")


class _Head(Settings):
    """Keys of the file besides its tables."""

    title: str = "Comparison"
    seeds: tuple[NonNegativeInt, ...] = (0,)
    same_network: bool = True
    same_calls: bool = True
    tolerance: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05


@dataclass(frozen=True, slots=True)
class Method:
    """A method to compare.

    Attributes:
        name: Its name, and that of its directory.
        label: Its name for people.
        recipe: Recipe that its configuration is based on, if any.
        settings: `section.option=value` assignments of base and method.
        checkpoints: Finished checkpoints or run directories to measure; if there are none, runs are trained.
    """

    name: str
    label: str
    recipe: str | None = None
    settings: tuple[str, ...] = ()
    checkpoints: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """A request to compare methods.

    Attributes:
        path: The file.
        title: Title of table and page.
        seeds: Seeds of the runs of each method.
        methods: The methods, in the order of the table.
        measure: What is measured.
        same_network: Whether methods with different networks are refused.
        same_calls: Whether methods with different numbers of network calls in training are refused.
        tolerance: Relative difference of these numbers that is accepted.
    """

    path: Path
    title: str
    seeds: tuple[int, ...]
    methods: tuple[Method, ...]
    measure: MeasureSettings
    same_network: bool = True
    same_calls: bool = True
    tolerance: float = 0.05


def read_comparison(path: Path) -> Comparison:
    """Read a request.

    Raises:
        ConfigurationError: The file cannot be read, or an entry is unknown, missing or invalid.
    """
    document = parse_toml(read_text(path), str(path))
    tables = {name: document.pop(name, default) for name, default in _TABLES.items()}
    for name, default in _TABLES.items():
        if not isinstance(tables[name], type(default)):
            shape = "entries [[methods]]" if name == "methods" else f"a table [{name}]"
            raise ConfigurationError(
                f"{path} has {name} = {shortened(str(tables[name]), 40)}, expected {shape}."
            )
    head = check("comparison", _Head, document)
    measure = _measured(tables["measure"])
    if not head.seeds or len(set(head.seeds)) < len(head.seeds):
        raise ConfigurationError(f"Got seeds = {list(head.seeds)} in {path}, expected different seeds.")
    base = tables["base"]
    refuse_unknown_tables(base, f"[base] of {path}", SECTIONS, extra=("recipe",))
    if not tables["methods"]:
        raise ConfigurationError(f"{path} has no methods, expected entries [[methods]].")
    methods = tuple(_method(path, base, number, entry) for number, entry in enumerate(tables["methods"], 1))
    names = [method.name for method in methods]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"{path} has two methods called {twice!r}: rename one of them.")
    return Comparison(
        path, head.title, head.seeds, methods, measure, head.same_network, head.same_calls, head.tolerance
    )


_TABLES: Mapping[str, Any] = {"base": {}, "measure": {}, "methods": []}


def _measured(table: Mapping[str, Any]) -> MeasureSettings:
    found = check("measure", MeasureSettings, table)
    steps = tuple(sorted({0, *found.chain}))
    return found.model_copy(update={"chain": steps})


def _method(path: Path, base: Mapping[str, Any], number: int, entry: object) -> Method:
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"{path} has {entry!r:.40} as a method, expected a table [[methods]].")
    name = entry.get("name")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"Got name = {shortened(repr(name), 60)} of method {number} in {path}, expected letters, digits, '.', '_' "
            "and '-', at most 40."
        )
    where = f"Method '{name}' of {path}"
    refuse_unknown_tables(entry, where, SECTIONS, extra=_OWN)
    label, recipe = (_text(where, key, entry.get(key)) for key in ("label", "recipe"))
    checkpoints = entry.get("checkpoint", [])
    listed = [checkpoints] if isinstance(checkpoints, str) else checkpoints
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise ConfigurationError(f"{where} has checkpoint = {checkpoints!r:.60}, expected paths.")
    sections = {key: value for key, value in entry.items() if key not in _OWN}
    if listed and (sections or recipe):
        raise ConfigurationError(
            f"{where} has a checkpoint and a configuration ({next(iter(sections), 'recipe')}): leave one of them out."
        )
    if listed:
        # Like paths in a TOML file of other programs, they are relative to the file.
        paths = tuple(path.parent / Path(each).expanduser() for each in listed)
        return Method(name, label or name, checkpoints=paths)
    own = recipe or _text(f"[base] of {path}", "recipe", base.get("recipe"))
    return Method(name, label or name, own, tuple(layered(base, sections)))


def _text(where: str, key: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{where} has {key} = {value!r:.60}, expected text.")
    return value


def layered(base: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Return assignments for the sections of `own` over those of `base`; another component drops the base's options.

    >>> layered({"objective": {"name": "a", "x": 1}, "training": {"lr": 0.1}}, {"objective": {"name": "b"}})
    ['objective.name="b"', 'training.lr=0.1']
    """
    tables: Tables = {}
    for table in (base, own):
        for path, value in _entries({key: table[key] for key in table if key in SECTIONS}):
            assign(tables, path, value)
    flat: dict[str, Any] = {}
    for section, options in tables.items():
        named = {"name": options} if isinstance(options, str) else options
        flat |= {f"{section}.{_quoted(option)}": value for option, value in named.items()}
    return assignments(flat)


def _entries(table: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the leaves of nested tables by path; the name of a component comes first, as the value of its table."""
    if prefix and isinstance(table.get("name"), str):
        yield prefix, table["name"]
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _entries(value, (*prefix, key))
        elif key != "name" or not isinstance(value, str) or not prefix:
            yield (*prefix, key), value


def _quoted(option: str) -> str:
    return f'"{option}"' if "." in option else option
