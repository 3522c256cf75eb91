"""The configuration of a resumed run: the one that it was trained with, except for explicitly named changes.

Three configurations are compared: that of the checkpoint, that of `config.toml`, and the requested one, which is
`config.toml` overridden by the command line. `config.toml` contains its own digest, so that edits of the file can be
distinguished from changes named by an earlier command line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from walkback.configuration.config import (
    COMPONENT_SECTIONS,
    SECTIONS,
    RunConfig,
    is_edited,
    with_moved_options,
)
from walkback.configuration.layering import resolve
from walkback.configuration.overrides import parse_overrides
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.support.textfile import read_text

_FIXED = (*COMPONENT_SECTIONS, "run.seed")
"""Sections and options that weights depend on: they change only if `accepted` names them."""


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """Requested changes of a resumed run.

    Attributes:
        components: See `resolve`.
        overrides: See `resolve`.
        accepted: Sections and options whose changes are accepted although weights depend on them: "data",
            "operator.sigma".
    """

    components: Mapping[str, str | None] | None = None
    overrides: Sequence[str] = ()
    accepted: Collection[str] = ()

    def names(self, path: str) -> bool:
        """Return whether the request sets an option, or a table that contains it."""
        tables = parse_overrides(self.overrides, SECTIONS)
        named = [
            *_paths(tables),
            *(f"{section}.name" for section, name in (self.components or {}).items() if name),
        ]
        return any(_contains(name, path) for name in named)


def resumed_config(
    registry: Registry,
    directory: Path,
    request: ResumeRequest,
    trained: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Return the configuration with which the run in `directory` is resumed.

    The number of steps, rates, logging, pictures and execution may change if the request names them. Components and the
    seed may change only if the request accepts the change, because weights and the order of data depend on them.

    Args:
        registry: The plugins.
        directory: The run directory, with its `config.toml`.
        request: The changes.
        trained: The configuration of the checkpoint to resume from; None if there is none.

    Raises:
        ConfigurationError: The configuration differs from that of the checkpoint in an option that is not named.
        PluginError: A required plugin is broken.
    """
    path = directory / "config.toml"
    _refuse_unknown(request.accepted)
    config = resolve(registry, recipe=str(path), components=request.components, overrides=request.overrides)
    text = read_text(path)
    written = RunConfig.from_toml(text, registry)
    recorded = (
        written if trained is None else RunConfig.from_dict(with_moved_options(trained, registry), registry)
    )
    old, new = recorded.to_dict(), config.to_dict()
    edited = trained is not None and is_edited(text)
    for section in SECTIONS:
        for option, before, value in _changes(section, old[section], new[section]):
            _refuse_change(directory, request, _Change(option, before, value), edited)
    return replace(config, recipe=written.recipe)


@dataclass(frozen=True, slots=True)
class _Change:
    """A changed option: dotted path, value that the run was trained with, current value."""

    path: str
    before: Any
    value: Any


def _refuse_change(directory: Path, request: ResumeRequest, change: _Change, edited: bool) -> None:
    if any(_contains(name, change.path) for name in request.accepted):
        return
    named = request.names(change.path)
    fixed = any(_contains(name, change.path) for name in _FIXED)
    if fixed and named:
        raise ConfigurationError(
            f"Got {change.path} = {change.value!r} for the run in {directory}, which has been trained with "
            f"{change.before!r}: leave that out to resume the run, accept the change with --accept {change.path}, or "
            "start another run with --out."
        )
    if fixed or (edited and not named):
        cure = f"--accept {change.path}" if fixed else f"--set {change.path}=VALUE"
        raise ConfigurationError(
            f"{directory / 'config.toml'} has {change.path} = {change.value!r}, but the run has been trained with "
            f"{change.before!r}: restore it, name the change with {cure}, or start another run with --out."
        )


def _refuse_unknown(accepted: Collection[str]) -> None:
    for name in accepted:
        if name.partition(".")[0] not in (*COMPONENT_SECTIONS, "run"):
            raise ConfigurationError(
                f"Got --accept {name}, expected data, or an option that the weights depend on, such as operator.sigma."
            )


def _contains(path: str, other: str) -> bool:
    """Return whether `other` is `path`, or an option inside it."""
    return other == path or other.startswith(f"{path}.")


def _paths(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted paths of the values in nested tables."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _changes(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted path, old value and new value of options that differ; None stands for a missing value."""
    for option in {**new, **old}:
        before, value = old.get(option), new.get(option)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            yield from _changes(f"{path}.{option}", before, value)
        elif value != before:
            yield f"{path}.{option}", before, value
