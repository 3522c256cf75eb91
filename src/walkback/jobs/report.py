"""The request to write a page about a run or a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from pydantic import ValidationError

from walkback.building.devices import autocast
from walkback.configuration.settings import SampleSettings
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.diagnose import CheckedDiagnosis, DiagnoseJob, Diagnosis
from walkback.jobs.evaluate import CheckedEvaluation, EvaluateJob
from walkback.jobs.inputs import DataRequest, ModelRequest
from walkback.jobs.job import Say, keywords
from walkback.measuring.path_works import EvaluationPlan
from walkback.pictures.figures import draw_chains, draw_samples
from walkback.reporting.content import content_of, read_png
from walkback.reporting.page import PageContent, Picture, page
from walkback.storage.files import require_target, write_text
from walkback.storage.hub import fetch, is_hub_name
from walkback.support.seeding import generator
from walkback.support.watch import Watch

HTML = (".html", ".htm")


@dataclass(frozen=True, slots=True)
class MeasureRequest:
    """Measurements for a page, like those of the commands of the same names with default options.

    Attributes:
        evaluate: Whether to evaluate the likelihood of held-out data, with baselines.
        samples: Number of samples to compare with the data; 0 omits the comparison.
        diagnose: Names of diagnostics.
        trusted: Whether the data named by the checkpoint may be read and downloaded.
        say: Spells options in error messages.
    """

    evaluate: bool = False
    samples: int = 0
    diagnose: Sequence[str] = ()
    trusted: bool = False
    say: Say = keywords

    def check(self, source: Path, device: str, registry: Registry, watch: Watch) -> tuple[Measurement, ...]:
        """Check each measurement; see `Job.check`."""
        if self.samples and not self.evaluate:
            compares, evaluation = self.say("samples"), self.say("evaluate", True)
            raise ConfigurationError(f"{compares} compares samples in an evaluation: add {evaluation}.")
        model, data = ModelRequest(source, device), DataRequest(trusted=self.trusted)
        jobs: list[EvaluateJob | DiagnoseJob] = [
            DiagnoseJob(name, model, data=data, say=self.say) for name in dict.fromkeys(self.diagnose)
        ]
        if self.evaluate:
            plan = EvaluationPlan(samples=self.samples)
            jobs.insert(0, EvaluateJob(model, data, plan, say=self.say))
        return tuple(job.check(registry, watch) for job in jobs)


Measurement: TypeAlias = CheckedEvaluation | CheckedDiagnosis


@dataclass(frozen=True, slots=True)
class ReportJob:
    """Write a page about a run or a checkpoint.

    Attributes:
        source: A run directory; or a checkpoint, for which the page shows new samples and chains.
        out: The `.html` file.
        overwrite: Whether an existing file may be replaced.
        device: Device of measurements, and of the samples of a checkpoint.
        measure: Measurements to make for the page.
    """

    source: Path
    out: Path
    overwrite: bool = False
    device: str = "auto"
    measure: MeasureRequest = field(default_factory=MeasureRequest)

    def check(self, registry: Registry, watch: Watch) -> CheckedReport:
        """Read the run; see `Job.check`.

        Raises:
            ConfigurationError: There is no such run, or the file cannot be written.
            CheckpointError: The checkpoint cannot be read.
        """
        require_target(self.out, HTML, overwrite=self.overwrite)
        if is_hub_name(self.source):
            return replace(self, source=fetch(self.source)).check(registry, watch)
        if not self.source.exists():
            raise ConfigurationError(
                f"{self.source} does not exist, expected a run directory or a checkpoint."
            )
        content = content_of(self.source)
        if self.source.is_dir() and content.run.state == "damaged" and not content.history:
            raise ConfigurationError(f"{self.source} is not a run directory: {content.run.problem}")
        measurements = self.measure.check(self.source, self.device, registry, watch)
        return CheckedReport(self, content, registry, measurements)


@dataclass(frozen=True, slots=True)
class CheckedReport:
    """A checked request for a page."""

    job: ReportJob
    content: PageContent
    registry: Registry
    measurements: tuple[Measurement, ...] = ()

    def run(self, watch: Watch) -> Path:
        """Write the page and return its path.

        Raises:
            WalkbackError: The file cannot be written, or samples cannot be drawn.
        """
        content = self.content
        results = [each.run(watch) for each in self.measurements]
        measured = [each.report if isinstance(each, Diagnosis) else each for each in results]
        if measured:
            new = {report.name for report in measured}
            kept = [report for report in content.reports if report.name not in new]
            content = replace(content, reports=(*measured, *kept))
        if not self.job.source.is_dir():
            content = replace(content, pictures=self._drawn(watch))
        write_text(self.job.out, page(content))
        return self.job.out

    def _drawn(self, watch: Watch) -> tuple[Picture, ...]:
        """Draw samples and chains of a checkpoint, as at the end of a run."""
        watch.stage("Drawing samples", 0)
        loaded = ModelRequest(self.job.source, self.job.device, "auto").open(self.registry, watch)
        model, info = loaded.model, loaded.info
        # Only the readout is taken from the file, which is not trusted: its numbers of samples and steps could be huge.
        settings = _settings(loaded.checkpoint.description.config.get("samples"))
        noise = generator(loaded.device, 0, "samples")
        with (
            TemporaryDirectory(prefix="walkback-") as place,
            model.evaluating(),
            autocast(loaded.device, loaded.precision),
        ):
            samples, chains = Path(place, "annealed.png"), Path(place, "chain.png")
            start = draw_samples(samples, model, info, settings, noise, {})
            draw_chains(chains, model, info, settings, start, noise, {})
            return tuple(Picture(path.stem, read_png(path)) for path in (samples, chains))


def _settings(samples: object) -> SampleSettings:
    """Return default settings with the readout of a checkpoint, if that is valid."""
    try:
        return SampleSettings.model_validate(
            {"readout": samples["readout"]} if isinstance(samples, dict) else {}
        )
    except (KeyError, ValidationError):
        return SampleSettings.model_validate({})
