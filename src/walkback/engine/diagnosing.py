"""Diagnostics of a checkpoint by name, as reports stamped with their protocol.

checkpoint + name + options → Subject → Diagnostic.measure → Report
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from walkback.configuration.config import ComponentConfig, component_table
from walkback.configuration.schema import validate
from walkback.diagnostics import Diagnostic, Subject, Watch
from walkback.engine.assembly import LoadedModel, build_part
from walkback.engine.devices import Precision, autocast
from walkback.engine.protocols import evaluation_data
from walkback.errors import PluginError
from walkback.extensions.registry import Registry
from walkback.report import Report
from walkback.storage.ledger import Ledger


def build_diagnostic(
    registry: Registry, name: str, options: Mapping[str, Any]
) -> tuple[Diagnostic, dict[str, Any]]:
    """A diagnostic by name, and all of its options as plain JSON types.

    Raises:
        ConfigurationError: The name or an option is unknown or wrong.
        PluginError: It cannot be imported or built.
    """
    registered = registry.find("diagnostic", name)
    chosen = ComponentConfig(registered.reference, validate("diagnostic", registry.load(registered), options))
    built = build_part(registry, "diagnostic", chosen, Diagnostic)  # type: ignore[type-abstract]
    return built, component_table(chosen)


def diagnose_model(
    loaded: LoadedModel,
    registry: Registry,
    name: str,
    options: Mapping[str, Any],
    protocol: Mapping[str, Any],
    *,
    source: str | None = None,
    overrides: list[str] | None = None,
    device: torch.device,
    precision: Precision,
    seed: int,
    directory: Path | None = None,
    watch: Watch,
) -> Report:
    """Carry out one diagnostic; the arguments are those of `evaluate_model` and of `build_diagnostic`.

    Raises:
        PluginError: The diagnostic returns no report.
        WalkbackError: It refuses to give a figure.
    """
    diagnostic, table = build_diagnostic(registry, name, options)
    stamp = {**protocol, "diagnostic": table}
    subject = Subject(
        model=loaded.model,
        info=loaded.info,
        data=partial(evaluation_data, loaded, registry, source, overrides or []),
        device=device,
        seed=seed,
        ledger=Ledger(directory, {**stamp, "device": str(device), "data": source}),
        watch=watch,
    )
    with loaded.model.evaluating(), autocast(device, precision):
        report = diagnostic.measure(subject)
    if not isinstance(report, Report):
        raise PluginError(
            f"Got {type(report).__name__} from the diagnostic '{name}', expected a walkback.report.Report."
        )
    return report.stamped(stamp)
