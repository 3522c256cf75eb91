"""The request to measure how a trained operator behaves, by a diagnostic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from walkback.building.assembly import LoadedModel
from walkback.data import Dataset
from walkback.diagnostics import Diagnostic
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.inputs import DataRequest, ModelRequest
from walkback.jobs.job import Say, at_least, keywords
from walkback.measuring.diagnose import build_diagnostic, diagnose_model
from walkback.measuring.provenance import Provenance
from walkback.pictures.plots import check_plot_target
from walkback.report import Report
from walkback.storage.files import require_apart
from walkback.storage.work_cache import WorkCache
from walkback.support.watch import Silent, Watch


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was measured.

    Attributes:
        report: The figures.
        beyond: A sentence for each figure above its threshold.
        unknown: What is wrong with a threshold whose figure the report has not; "" if nothing is.
    """

    report: Report
    beyond: tuple[str, ...] = ()
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class DiagnoseJob:
    """Carry out a diagnostic.

    Attributes:
        diagnostic: Its name, or an instance.
        model: The model; "auto" precision is fp32.
        options: Of a diagnostic given by name.
        data: What it compares with, where it compares.
        thresholds: Names of figures ("": the headline), and what they should not exceed.
        cache: Directory of finished pieces, to go on from; None keeps none.
        plot: File that the report is to be drawn into.
        overwrite: Whether it may be there already.
        seed: Of all randomness.
        say: How refusals name options.
    """

    diagnostic: str | Diagnostic
    model: ModelRequest
    options: Mapping[str, Any] = field(default_factory=dict)
    data: DataRequest = field(default_factory=DataRequest)
    thresholds: tuple[tuple[str, float], ...] = ()
    cache: Path | None = None
    plot: Path | None = None
    overwrite: bool = False
    seed: int = 0
    say: Say = keywords

    def check(self, registry: Registry, watch: Watch) -> CheckedDiagnosis:
        """See `Job`; the model's own data are prepared only if the diagnostic asks for them, which not all do."""
        at_least(0, self.say, seed=self.seed)
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
        loaded = self.model.open(registry, watch, densities=True)
        data = cache(partial(self.data.open, loaded, registry, Silent(), comparable=True))
        if self.data.source is not None:
            watch.stage(f"Preparing {self.data.name or 'data'}", 0)
            data()
        provenance = Provenance.of(loaded, self.seed, diagnostic=table)
        facts = {**provenance.to_dict(), "device": str(loaded.device), "data": self.data.name}
        pieces = WorkCache(self.cache, facts)
        return CheckedDiagnosis(loaded, diagnostic, provenance, data, pieces, self.thresholds)

    def _built(self, registry: Registry) -> tuple[Diagnostic, dict[str, Any]]:
        """The diagnostic, and what the protocol says of it."""
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
    """A diagnostic that can be carried out.

    Attributes:
        loaded: The model.
        diagnostic: What measures it.
        provenance: How the figures are made.
        data: Gives what is compared with.
        cache: Of finished pieces.
        thresholds: See `DiagnoseJob`.
    """

    loaded: LoadedModel
    diagnostic: Diagnostic
    provenance: Provenance
    data: Callable[[], Dataset]
    cache: WorkCache
    thresholds: tuple[tuple[str, float], ...]

    def run(self, watch: Watch) -> Diagnosis:
        """Measure, and compare with the thresholds."""
        with self.cache.noted():
            report = diagnose_model(
                self.loaded, self.diagnostic, self.provenance, self.data, self.cache, watch
            )
        beyond: list[str] = []
        for name, limit in self.thresholds:
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
