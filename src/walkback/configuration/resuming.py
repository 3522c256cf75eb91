"""Going on with a run: under its own configuration, changed only where that agrees with what is trained already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from walkback.configuration.config import COMPONENT_SECTIONS, RunConfig
from walkback.configuration.layering import resolve
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.support.textfile import read_text

_FIXED: Mapping[str, str | None] = {**dict.fromkeys(COMPONENT_SECTIONS), "run": "seed"}
"""What a resumed run cannot change: whole sections, or one option of a section."""


def resumed_config(
    registry: Registry,
    directory: Path,
    components: Mapping[str, str | None] | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """The configuration with which the run in `directory` goes on.

    Number of steps, rates, logging, drawing and execution may change; components and seed may not, because weights
    and data order are theirs.

    Args:
        registry: The plugins.
        directory: The run directory.
        components: As in `resolve`.
        overrides: As in `resolve`.

    Raises:
        ConfigurationError: `directory` is no run directory, or the request contradicts its configuration.
        PluginError: A plugin that is wanted is at fault.
    """
    path = directory / "config.toml"
    if not path.is_file():
        raise ConfigurationError(f"Got --resume {directory}, expected a run directory with a config.toml.")
    config = resolve(registry, recipe=str(path), components=components, overrides=overrides)
    recorded = RunConfig.from_toml(read_text(path), registry)
    _refuse_changes(recorded, config, directory)
    return replace(config, recipe=recorded.recipe)


def _refuse_changes(recorded: RunConfig, config: RunConfig, directory: Path) -> None:
    old, new = recorded.to_dict(), config.to_dict()
    for section, only in _FIXED.items():
        options = new[section] if only is None else {only: new[section][only]}
        for path, before, value in _changes(section, old[section], options):
            raise ConfigurationError(
                f"Got {path} = {value!r} for the run in {directory}, which has been trained with "
                f"{before!r}: leave that out to go on with it, or start another run with --out."
            )


def _changes(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Options that differ: dotted path, value before, value now."""
    for option, value in new.items():
        before = old.get(option)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            yield from _changes(f"{path}.{option}", before, value)
        elif value != before:
            yield f"{path}.{option}", before, value
