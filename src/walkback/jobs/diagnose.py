"""The request to run a diagnostic on a trained operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from walkback.building.assembly import LoadedModel
from walkback.data import Dataset
from walkback.diagnostics import Diagnostic
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.inputs import DataRequest, ModelRequest, joined
from walkback.jobs.job import Say, at_least, keywords
from walkback.measuring.diagnose import build_diagnostic, diagnose_model
from walkback.measuring.divided_calls import divided_calls
from walkback.measuring.provenance import Provenance
from walkback.pictures.plots import check_plot_target
from walkback.report import Report
from walkback.sampling.excursions import own_chain, there_and_back
from walkback.storage.files import require_apart
from walkback.storage.work_cache import WorkCache
from walkback.support.watch import Silent, Watch


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of a diagnostic.

    Attributes:
        report: The figures.
        beyond: A sentence for each figure above its threshold.
        unknown: An error message if a threshold names a figure that is not in the report; "" otherwise.
    """

    report: Report
    beyond: tuple[str, ...] = ()
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class DiagnoseJob:
    """Run a diagnostic.

    Attributes:
        diagnostic: Its name, or an instance.
        model: The model; "auto" precision means fp32.
        options: Options of a diagnostic given by name.
        data: Data to compare with, if the diagnostic uses any.
        thresholds: Pairs of the name of a figure ("" for the headline) and its upper limit.
        cache: Directory of finished parts, to resume from; None keeps none.
        excursion: Levels that each step of a chain heats and cools back; None measures single steps.
        plot: File to plot the report to; None writes none.
        overwrite: Whether an existing plot may be replaced.
        seed: Seed of all randomness.
        say: Spells options in error messages.
    """

    diagnostic: str | Diagnostic
    model: ModelRequest
    options: Mapping[str, Any] = field(default_factory=dict)
    data: DataRequest = field(default_factory=DataRequest)
    thresholds: tuple[tuple[str, float], ...] = ()
    cache: Path | None = None
    excursion: int | None = None
    plot: Path | None = None
    overwrite: bool = False
    seed: int = 0
    say: Say = keywords

    def check(self, registry: Registry, watch: Watch) -> CheckedDiagnosis:
        """Check the request and load the model; see `Job.check`.

        The data of the checkpoint are prepared later, and only if the diagnostic uses them.
        """
        at_least(0, self.say, seed=self.seed)
        at_least(1, self.say, excursion=self.excursion)
        self.data.check(self.say)
        for name, limit in self.thresholds:
            if math.isnan(limit):
                raise ConfigurationError(
                    f"Got a threshold of {limit} for {name or 'the headline'}, expected a number."
                )
        if self.plot is not None:
            require_apart(self.plot, (*self.model.files, *self.data.files))
            check_plot_target(self.plot, self.overwrite)
        diagnostic, table = self._built(registry)
        loaded, chain = self.model.open(registry, watch, densities=True), {}
        if self.excursion is None:
            loaded = replace(loaded, model=own_chain(loaded.model))
        else:
            loaded = replace(loaded, model=there_and_back(loaded.model, self.excursion))
            chain = {"excursion": self.excursion}
        data = cache(partial(self.data.open, loaded, registry, Silent(), comparable=True))
        if self.data.source is not None:
            watch.stage(f"Preparing {self.data.name or 'data'}", 0)
            data()
        provenance = Provenance.of(loaded, self.seed, diagnostic=table, **chain)
        facts = {**provenance.to_dict(), "device": str(loaded.device), "data": self.data.name}
        pieces = WorkCache(self.cache if self.model.writes else None, facts)
        launched = self.model.launched
        return CheckedDiagnosis(loaded, diagnostic, provenance, data, pieces, self.thresholds, launched)

    def _built(self, registry: Registry) -> tuple[Diagnostic, dict[str, Any]]:
        """Return the diagnostic and its description in the protocol."""
        if isinstance(self.diagnostic, str):
            return build_diagnostic(registry, self.diagnostic, self.options)
        if self.options:
            option = next(iter(self.options))
            raise ConfigurationError(
                f"The option {option!r} cannot be set for an instance: set it when you create the diagnostic."
            )
        return self.diagnostic, {"name": type(self.diagnostic).__qualname__}


@dataclass(frozen=True, slots=True)
class CheckedDiagnosis:
    """A checked diagnostic.

    Attributes:
        loaded: The model.
        diagnostic: The diagnostic.
        provenance: How the figures are made.
        data: Returns the data to compare with, prepared on the first call.
        cache: Cache of finished parts.
        thresholds: See `DiagnoseJob`.
        launched: See `ModelRequest`.
    """

    loaded: LoadedModel
    diagnostic: Diagnostic
    provenance: Provenance
    data: Callable[[], Dataset]
    cache: WorkCache
    thresholds: tuple[tuple[str, float], ...]
    launched: bool = False

    def run(self, watch: Watch) -> Diagnosis:
        """Measure and compare the figures with the thresholds; raises WalkbackError if the diagnostic fails.

        Several processes measure the same and divide the rows of network calls.
        """
        with (
            self.cache.noted(),
            joined(self.loaded.device, self.launched) as world,
            divided_calls(self.loaded.model.operator, world),
        ):
            cache = self.cache.divided(world)
            report = diagnose_model(self.loaded, self.diagnostic, self.provenance, self.data, cache, watch)
        return judged(report, self.thresholds)


def judged(report: Report, thresholds: tuple[tuple[str, float], ...]) -> Diagnosis:
    """Compare the figures of a report with thresholds."""
    beyond: list[str] = []
    for name, limit in thresholds:
        try:
            figure = report[name or report.headline]
        except KeyError:
            names = ", ".join(figure.name for figure in report.figures)
            unknown = f"The report has no figure {name!r} to compare with a threshold; it has {names}."
            return Diagnosis(report, tuple(beyond), unknown)
        if figure.value > limit:
            beyond.append(
                f"{figure.name} = {figure.value:.5g} {figure.unit} is above the threshold of {limit:g}."
            )
    return Diagnosis(report, tuple(beyond))
