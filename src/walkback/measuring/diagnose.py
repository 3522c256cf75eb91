"""Diagnostics of a checkpoint by name, as reports stamped with their protocol.

checkpoint + name + options → Subject → Diagnostic.measure → Report
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from walkback.building.assembly import LoadedModel, build_part
from walkback.configuration.components import Options, component_table, configure
from walkback.data import Dataset
from walkback.diagnostics import Diagnostic, Subject
from walkback.errors import PluginError
from walkback.extensions.registry import Registry
from walkback.measuring.provenance import Provenance
from walkback.report import Report
from walkback.storage.work_cache import WorkCache
from walkback.support.memory import within_memory
from walkback.support.watch import Watch


def build_diagnostic(
    registry: Registry, name: str, options: Mapping[str, Any]
) -> tuple[Diagnostic, dict[str, Any]]:
    """A diagnostic by name, and all of its options as plain JSON types.

    Raises:
        ConfigurationError: The name or an option is unknown or wrong.
        PluginError: It cannot be imported or built.
    """
    registered = registry.find("diagnostic", name)
    chosen = configure(registry, "diagnostic", registered, [Options(options)])
    built = build_part(registry, "diagnostic", chosen, Diagnostic)  # type: ignore[type-abstract]
    return built, component_table(chosen)


def diagnose_model(
    loaded: LoadedModel,
    diagnostic: Diagnostic,
    provenance: Provenance,
    data: Callable[[], Dataset],
    cache: WorkCache,
    watch: Watch,
) -> Report:
    """Carry out one diagnostic.

    Args:
        loaded: The model.
        diagnostic: See `build_diagnostic`.
        provenance: With the seed of all randomness, and the diagnostic's name and options among the details.
        data: Gives the data to compare with, prepared; called where the diagnostic asks for them, once.
        cache: Keeps finished pieces, so that an interrupted measurement can go on.
        watch: Is told of progress.

    Raises:
        PluginError: The diagnostic returns no report.
        WalkbackError: It refuses to give a figure.
    """
    wanted: list[Dataset] = []

    def once() -> Dataset:
        if not wanted:
            wanted.append(data())
        return wanted[0]

    subject = Subject(
        model=loaded.model,
        info=loaded.info,
        data=once,
        device=loaded.device,
        seed=provenance.seed,
        cache=cache,
        watch=watch,
    )
    table = provenance.details["diagnostic"]
    sizes = ", ".join(f"{name} = {value}" for name, value in table.items() if type(value) is int)
    limit = within_memory(
        f"the diagnostic '{table['name']}' with {sizes}", "ask for fewer chains or examples"
    )
    with limit, loaded.computing():
        report = diagnostic.measure(subject)
    if not isinstance(report, Report):
        raise PluginError(
            f"Got {type(report).__name__} from the diagnostic '{table['name']}', "
            "expected a walkback.report.Report."
        )
    return report.stamped(provenance.on(wanted[0].info if wanted else None).to_dict())
