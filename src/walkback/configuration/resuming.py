"""Resuming a run: under the configuration that it was trained with, changed only by name.

Three configurations are compared: that of the checkpoint, that of `config.toml`, and what is asked for, which is
`config.toml` with the command line on top. `config.toml` contains a digest of itself, so edits of the file can be told
from changes that an earlier command line has named.
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
"""What the weights depend on: sections and options that change only if `accepted` names them."""


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """What is asked of a run that is resumed.

    Attributes:
        components: As in `resolve`.
        overrides: As in `resolve`.
        accepted: Sections and options whose changes are accepted although the weights depend on them: "data",
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
    """The configuration with which the run in `directory` is resumed.

    Number of steps, rates, logging, pictures and execution may change if the request names them; components and the
    seed only if it accepts the change, because weights and the order of the data depend on them.

    Args:
        registry: The plugins.
        directory: The run directory, with its `config.toml`.
        request: The changes.
        trained: The configuration of the checkpoint to resume from; None if there is none.

    Raises:
        ConfigurationError: The configuration differs from that of the
            checkpoint in something that is not named.
        PluginError: A plugin that is wanted is at fault.
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
    """An option: dotted path, value that the run was trained with, value now."""

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
    """Dotted paths of the values in nested tables."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _changes(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Options that differ: dotted path, value before, value now (None where there is none)."""
    for option in {**new, **old}:
        before, value = old.get(option), new.get(option)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            yield from _changes(f"{path}.{option}", before, value)
        elif value != before:
            yield f"{path}.{option}", before, value
