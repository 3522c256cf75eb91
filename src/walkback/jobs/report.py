"""The request for a page on a run or a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from walkback.building.devices import autocast
from walkback.configuration.settings import SampleSettings
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.inputs import ModelRequest
from walkback.pictures.figures import draw_chains, draw_samples
from walkback.reporting.content import content_of, read_png
from walkback.reporting.page import PageContent, Picture, page
from walkback.storage.files import require_target, write_text
from walkback.support.seeding import generator
from walkback.support.watch import Watch

HTML = (".html", ".htm")


@dataclass(frozen=True, slots=True)
class ReportJob:
    """Write a page.

    Attributes:
        source: A run directory, or a checkpoint, of which samples and chains are drawn for the page.
        out: The `.html` file.
        overwrite: Whether a file that is there may be replaced.
        device: Where samples of a checkpoint are drawn.
    """

    source: Path
    out: Path
    overwrite: bool = False
    device: str = "auto"

    def check(self, registry: Registry, watch: Watch) -> CheckedReport:
        """Read the run; see `Job`.

        Raises:
            ConfigurationError: There is no run, or the file cannot be written.
            CheckpointError: The checkpoint cannot be read.
        """
        require_target(self.out, HTML, overwrite=self.overwrite)
        if not self.source.exists():
            raise ConfigurationError(
                f"{self.source} does not exist, expected a run directory or a checkpoint."
            )
        content = content_of(self.source)
        if self.source.is_dir() and content.run.state == "damaged" and not content.history:
            raise ConfigurationError(f"{self.source} is not a run directory: {content.run.problem}")
        return CheckedReport(self, content, registry)


@dataclass(frozen=True, slots=True)
class CheckedReport:
    """A page that can be written."""

    job: ReportJob
    content: PageContent
    registry: Registry

    def run(self, watch: Watch) -> Path:
        """Write the page; returns its path.

        Raises:
            WalkbackError: The file cannot be written, or samples cannot be drawn.
        """
        content = self.content
        if not self.job.source.is_dir():
            content = replace(content, pictures=self._drawn(watch))
        write_text(self.job.out, page(content))
        return self.job.out

    def _drawn(self, watch: Watch) -> tuple[Picture, ...]:
        """Samples and chains of a checkpoint, as a run draws them at its end."""
        watch.stage("Drawing samples", 0)
        loaded = ModelRequest(self.job.source, self.job.device, "auto").open(self.registry, watch)
        model, info = loaded.model, loaded.info
        # Only how states are shown comes from the file: sizes of its own could take hours.
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
    """Settings with the readout of a checkpoint, if it has one that can be used."""
    try:
        return SampleSettings.model_validate(
            {"readout": samples["readout"]} if isinstance(samples, dict) else {}
        )
    except (KeyError, ValidationError):
        return SampleSettings.model_validate({})
