"""The request to measure recorded chains, without an operator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from walkback.diagnostics import Diagnostic
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.diagnose import Diagnosis, judged
from walkback.measuring.diagnose import build_diagnostic
from walkback.measuring.recordings import ENDINGS, MeasuresRecordings, Recording, read_recording
from walkback.pictures.plots import check_plot_target
from walkback.storage.files import require_apart
from walkback.support.watch import Watch

__all__ = ["ENDINGS", "TraceJob"]


@dataclass(frozen=True, slots=True)
class TraceJob:
    """Run a diagnostic on recorded chains.

    Attributes:
        diagnostic: Its name, or an instance.
        trace: A `.npz` or `.npy` file, or a recording.
        array: Name of the array in a `.npz` file.
        options: Options of a diagnostic given by name.
        thresholds: See `DiagnoseJob`.
        plot: File to plot the report to; None writes none.
        overwrite: Whether an existing plot may be replaced.
    """

    diagnostic: str | Diagnostic
    trace: Path | Recording
    array: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    thresholds: tuple[tuple[str, float], ...] = ()
    plot: Path | None = None
    overwrite: bool = False

    def check(self, registry: Registry, watch: Watch) -> CheckedTrace:
        """See `Job`."""
        if any(math.isnan(limit) for _, limit in self.thresholds):
            raise ConfigurationError("Got a threshold of nan, expected a number.")
        if self.plot is not None:
            require_apart(self.plot, () if isinstance(self.trace, Recording) else (self.trace,))
            check_plot_target(self.plot, self.overwrite)
        if isinstance(self.diagnostic, str):
            diagnostic, table = build_diagnostic(registry, self.diagnostic, self.options)
        else:
            diagnostic, table = self.diagnostic, {"name": type(self.diagnostic).__qualname__}
        if not isinstance(diagnostic, MeasuresRecordings):
            raise ConfigurationError(
                f"Got a trace for the diagnostic '{table['name']}', which needs an operator, expected mixing or "
                "stationarity: give a checkpoint, or choose one of these."
            )
        trace = self.trace
        recording = trace if isinstance(trace, Recording) else read_recording(trace, self.array)
        return CheckedTrace(diagnostic, recording, self.thresholds)


@dataclass(frozen=True, slots=True)
class CheckedTrace:
    """A checked diagnostic of recorded chains; see `TraceJob`."""

    diagnostic: MeasuresRecordings
    recording: Recording
    thresholds: tuple[tuple[str, float], ...]

    def run(self, watch: Watch) -> Diagnosis:
        """Measure and compare the figures with the thresholds."""
        watch.stage("Measuring", 0)
        report = self.diagnostic.measure_recording(self.recording)
        facts = {**self.recording.facts(), "walkback": version("walkback")}
        return judged(report.stamped(facts), self.thresholds)
