"""Diagnostics of a checkpoint by name, as reports stamped with their protocol.

checkpoint + name + options → Subject → Diagnostic.measure → Report
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from walkback.configuration.config import ComponentConfig, component_table
from walkback.configuration.schema import validate
from walkback.data import Dataset
from walkback.diagnostics import Diagnostic, Subject, Watch
from walkback.engine.assembly import LoadedModel, build_part
from walkback.engine.devices import Precision, autocast
from walkback.engine.protocols import data_protocol
from walkback.errors import PluginError
from walkback.extensions.registry import Registry
from walkback.memory import within_memory
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
    diagnostic: Diagnostic,
    table: Mapping[str, Any],
    protocol: Mapping[str, Any],
    data: Callable[[], Dataset],
    *,
    source: str | None,
    device: torch.device,
    precision: Precision,
    seed: int,
    directory: Path | None = None,
    watch: Watch,
) -> Report:
    """Carry out one diagnostic.

    Args:
        loaded: The model, on `device`.
        diagnostic: See `build_diagnostic`.
        table: What the protocol says of it: its name and options, plain JSON types.
        protocol: See `protocol_of`.
        data: Gives the data to compare with, prepared; called where the diagnostic asks for them, once.
        source: Their name, where they are not those of the checkpoint.
        device: Where to compute.
        precision: Of the networks.
        seed: Of all randomness.
        directory: Keeps finished pieces, so that an interrupted measurement can go on; None keeps nothing.
        watch: Is told of progress.

    Raises:
        PluginError: The diagnostic returns no report.
        WalkbackError: It refuses to give a figure.
    """
    stamp = {**protocol, "diagnostic": dict(table)}
    wanted: list[Dataset] = []

    def once() -> Dataset:
        if not wanted:
            wanted.append(data())
        return wanted[0]

    subject = Subject(
        model=loaded.model,
        info=loaded.info,
        data=once,
        device=device,
        seed=seed,
        ledger=Ledger(directory, {**stamp, "device": str(device), "data": source}),
        watch=watch,
    )
    sizes = ", ".join(f"{name} = {value}" for name, value in table.items() if type(value) is int)
    limit = within_memory(
        f"the diagnostic '{table['name']}' with {sizes}", "ask for fewer chains or examples"
    )
    with limit, loaded.model.evaluating(), autocast(device, precision):
        report = diagnostic.measure(subject)
    if not isinstance(report, Report):
        raise PluginError(
            f"Got {type(report).__name__} from the diagnostic '{table['name']}', "
            "expected a walkback.report.Report."
        )
    return report.stamped({**stamp, **(data_protocol(wanted[0].info) if wanted else {})})
