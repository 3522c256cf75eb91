"""Measurements of one model of a comparison, each kept in a directory of its own.

    measured/METHOD/seed=0/likelihood-1f3a…/reports.json     finished
                                           /work/            finished parts, to resume from

The name of a directory contains a digest of checkpoint, data, settings and version, so a changed request measures
again, and an unchanged one never does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from walkback.building.assembly import LoadedModel
from walkback.comparing.request import MeasureSettings
from walkback.comparing.table import Group, Measured
from walkback.data import Dataset, states_of
from walkback.errors import WalkbackError
from walkback.extensions.registry import Registry
from walkback.jobs.diagnose import DiagnoseJob
from walkback.jobs.evaluate import EvaluateJob
from walkback.jobs.inputs import DataRequest, ModelRequest
from walkback.measuring.long_chains import ChainPlan, ChainQuality, chain_quality
from walkback.measuring.path_works import EvaluationPlan
from walkback.measuring.quality.features import Classifier
from walkback.pictures.images import save_png
from walkback.pictures.states import draw_states
from walkback.report import Figure, Report
from walkback.reporting.content import report_from
from walkback.reporting.record import is_run, read_run
from walkback.storage.files import sha256, write_json
from walkback.storage.work_cache import WorkCache
from walkback.support.seeding import generator
from walkback.support.text import one_line
from walkback.support.textfile import read_text
from walkback.support.watch import Watch

_FILE = "reports.json"

_MOST_REPORT = 2**24

_LIKELIHOOD = ("bound", "is_nll", "simulated_below", "simulated_above")

_QUALITY = (
    *("calls_per_sample", "sliced_wasserstein", "mmd_squared", "coverage"),
    *("frechet_distance", "classifier_confident", "class_entropy"),
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to measure.

    Attributes:
        method: Name of its method.
        seed: Seed of its run; None if unknown.
        checkpoint: Its file.
        place: Directory of its measurements.
    """

    method: str
    seed: int | None
    checkpoint: Path
    place: Path


@dataclass(frozen=True, slots=True)
class Meter:
    """Measures models on one data set with the same settings.

    Attributes:
        registry: The plugins.
        dataset: The prepared data.
        settings: What is measured.
        device: Device to compute on.
        judge: Returns the classifier, trained on the first call; None without one.
    """

    registry: Registry
    dataset: Dataset
    settings: MeasureSettings
    device: str
    judge: Callable[[], Classifier] | None

    def groups(self, headlines: Mapping[str, str]) -> tuple[Group, ...]:
        """Return the groups of rows; `headlines` are the names of the main figures of diagnostics."""
        return (
            Group("training", "training", ("parameters", "calls", "gradient_calls", "seconds")),
            Group("likelihood", "-log p of held-out data", _LIKELIHOOD),
            *(Group(_chain(steps), _after(steps), _QUALITY) for steps in self.settings.chain),
            *(
                Group(_chain(steps, "excursion"), _excursed(steps, self.settings.excursion), _QUALITY)
                for steps in self._excursions
            ),
            *(
                Group(name, name.replace("_", " "), (headlines.get(name, ""),))
                for name in self.settings.diagnose
            ),
        )

    def measured(self, subject: Subject, watch: Watch) -> tuple[Measured, dict[str, str]]:
        """Measure a model, or read what was measured before; return also the headlines of its diagnostics.

        A measurement that fails is a reason in the table and not the end of the comparison; it is tried again the next
        time.
        """
        figures: dict[str, Sequence[Figure]] = {
            "training": training_figures(subject.checkpoint, self._open(subject, watch))
        }
        reasons: dict[str, str] = {}
        headlines: dict[str, str] = {}
        names = ["likelihood", "chain", *(["excursion"] if self._excursions else []), *self.settings.diagnose]
        for name in names:
            try:
                reports = self._reports(subject, name, watch)
            except WalkbackError as error:
                lost = {
                    "chain": [_chain(steps) for steps in self.settings.chain],
                    "excursion": [_chain(steps, name) for steps in self._excursions],
                }.get(name, [name])
                reasons |= dict.fromkeys(lost, f"{one_line(error)}.")
                watch.warn(f"{subject.method}: no {name} ({one_line(error)}).")
                continue
            figures |= {group: report.figures for group, report in reports.items()}
            headlines |= {group: report.headline for group, report in reports.items()}
        return Measured(subject.seed, figures, reasons), headlines

    @property
    def _excursions(self) -> tuple[int, ...]:
        """Numbers of network calls after which chains there and back are compared."""
        return tuple(steps for steps in self.settings.chain if steps and self.settings.excursion)

    def picture(self, subject: Subject, steps: int) -> Path:
        """Return the file of the samples after `steps` steps at T = 1, which may not exist."""
        return self._directory(subject, "chain") / f"samples-{steps}.png"

    def _open(self, subject: Subject, watch: Watch) -> LoadedModel:
        return ModelRequest(subject.checkpoint, self.device).open(self.registry, watch, densities=True)

    def _directory(self, subject: Subject, name: str) -> Path:
        return subject.place / f"{name}-{_digest(self._request(subject, name))}"

    def _request(self, subject: Subject, name: str) -> dict[str, Any]:
        own = self.settings.model_dump(mode="json")
        options = own.pop("diagnose").get(name, {})
        wanted = {
            "likelihood": ("split", "examples", "paths", "simulated", "batch_size", "seed"),
            "chain": ("split", "samples", "chain", "pictured", "seed"),
            "excursion": ("split", "samples", "chain", "excursion", "pictured", "seed"),
        }.get(name, ("seed",))
        return {
            "measurement": name,
            "checkpoint": sha256(subject.checkpoint),
            "data": self.dataset.info.fingerprint,
            "walkback": version("walkback"),
            "classifier": name in ("chain", "excursion") and self.judge is not None,
            "options": options,
            **{key: own[key] for key in wanted},
        }

    def _reports(self, subject: Subject, name: str, watch: Watch) -> dict[str, Report]:
        """Return the reports of a measurement by group of the table, measuring unless it is finished."""
        directory = self._directory(subject, name)
        file = directory / _FILE
        finished = _finished(file)
        if finished is not None:
            return finished
        work = directory / "work"
        if name == "likelihood":
            reports = {name: self._likelihood(subject, work, watch)}
        elif name in ("chain", "excursion"):
            cache = WorkCache(work, self._request(subject, name))
            reports = self._chains(subject, name, directory, cache, watch)
        else:
            reports = {name: self._diagnosed(subject, name, work, watch)}
        plain = {group: report.to_dict() for group, report in reports.items()}
        write_json(file, {"request": self._request(subject, name), "reports": plain})
        return reports

    def _likelihood(self, subject: Subject, work: Path, watch: Watch) -> Report:
        wanted = self.settings
        plan = EvaluationPlan(
            split=wanted.split,
            limit=wanted.examples,
            paths=wanted.paths,
            simulated=wanted.simulated,
            baselines=False,
            batch_size=wanted.batch_size,
            seed=wanted.seed,
        )
        model = ModelRequest(subject.checkpoint, self.device)
        job = EvaluateJob(model, DataRequest(self.dataset), plan, cache=work)
        return job.check(self.registry, watch).run(watch)

    def _chains(
        self, subject: Subject, name: str, directory: Path, cache: WorkCache, watch: Watch
    ) -> dict[str, Report]:
        wanted, single = self.settings, name == "chain"
        plan = ChainPlan(
            wanted.samples,
            wanted.chain if single else self._excursions,
            None if single else wanted.excursion,
            wanted.split,
            wanted.seed,
        )
        judge = None if self.judge is None else self.judge()
        with cache.noted():
            found = chain_quality(
                self._open(subject, watch),
                self.dataset,
                plan,
                cache,
                watch,
                judge,
                {"method": subject.method},
            )
            reports = {}
            for each in found:
                reports[_chain(each.steps, name)] = each.report
                self._draw(directory / f"samples-{each.steps}.png", each)
        return reports

    def _draw(self, path: Path, quality: ChainQuality) -> None:
        """Draw samples, over data in gray if they are points."""
        info, most = self.dataset.info, self.settings.pictured
        some = quality.states if info.shape == (2,) else quality.states[:most]
        noise = generator("cpu", self.settings.seed, "comparison-reference")
        real = states_of(self.dataset, self.settings.split, slice(len(quality.states)), noise)
        picture = draw_states(info.values(some), info, None if info.is_image else info.values(real))
        save_png(path, picture, dict(quality.report.protocol))

    def _diagnosed(self, subject: Subject, name: str, work: Path, watch: Watch) -> Report:
        job = DiagnoseJob(
            name,
            ModelRequest(subject.checkpoint, self.device),
            self.settings.diagnose[name],
            DataRequest(self.dataset),
            cache=work,
            seed=self.settings.seed,
        )
        return job.check(self.registry, watch).run(watch).report


def training_figures(checkpoint: Path, loaded: LoadedModel) -> tuple[Figure, ...]:
    """Return what training took, as far as it is recorded: parameters, network calls and seconds."""
    weights = sum(weight.numel() for weight in loaded.model.operator.parameters())
    found = [Figure("parameters", weights, "parameters", meaning="parameters of the operator")]
    meanings = {
        "calls": "rows that the operator was evaluated at in training",
        "gradient_calls": "those with a gradient, which cost about three times as much",
    }
    for name, meaning in meanings.items():
        value = loaded.checkpoint.description.progress.get(name)
        if value is not None:
            found.append(Figure(name, value, "calls", meaning=meaning))
    seconds = read_run(checkpoint.parent).seconds if is_run(checkpoint.parent) else None
    if seconds is not None:
        found.append(Figure("seconds", seconds, "s", meaning="seconds of training on this machine"))
    return tuple(found)


def _finished(file: Path) -> dict[str, Report] | None:
    """Return the reports in a file; None if there is none, or it is damaged and must be made again."""
    if not file.exists():
        return None
    try:
        found = json.loads(read_text(file, _MOST_REPORT))["reports"]
        return {group: report_from(document) for group, document in found.items()}
    except (WalkbackError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _chain(steps: int, name: str = "chain") -> str:
    return f"{name}-{steps}"


def _excursed(calls: int, levels: int) -> str:
    return f"samples after {calls:,} network calls of excursions over {levels} levels"


def _after(steps: int) -> str:
    return f"samples after {steps:,} steps at T = 1" if steps else "annealed samples"


def _digest(request: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:12]
