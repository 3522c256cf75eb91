"""Run a diagnostic, chosen by name, on a checkpoint; the report carries its protocol.

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

_STANDARDIZED = (
    "Figures are of standardized states: lengths are in deviations of a column, densities are those of such states.",
)


def build_diagnostic(
    registry: Registry, name: str, options: Mapping[str, Any]
) -> tuple[Diagnostic, dict[str, Any]]:
    """Build a diagnostic by name; return it with all of its options as plain JSON types.

    Raises:
        ConfigurationError: The name or an option is unknown, or a value is invalid.
        PluginError: The diagnostic cannot be imported or built.
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
    """Run one diagnostic.

    Args:
        loaded: The model.
        diagnostic: See `build_diagnostic`.
        provenance: Record of the result, with the seed; its details contain the diagnostic's name and options.
        data: Returns the prepared dataset to compare with; called once, if the diagnostic needs data.
        cache: Stores finished pieces, so that an interrupted measurement can be resumed.
        watch: Receives progress.

    Raises:
        PluginError: The diagnostic does not return a report.
        WalkbackError: The diagnostic cannot return a trustworthy figure.
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
    stamps = provenance.on(wanted[0].info if wanted else None).to_dict()
    return report.stamped(stamps, _STANDARDIZED if loaded.info.standardized else ())
