"""The request to compare methods on one data set: train them alike, measure them alike, one table.

OUT/runs/METHOD/seed=0      runs, as of a sweep: finished ones are kept, interrupted ones resumed
OUT/measured/METHOD/seed=0  finished measurements
OUT/comparison.{json,csv,html}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from walkback.comparing.fairness import require_same_calls, require_same_network
from walkback.comparing.page import PicturedSamples, comparison_page
from walkback.comparing.published import published_figures
from walkback.comparing.request import Comparison, Method, read_comparison
from walkback.comparing.table import Column, ComparisonTable, Measured
from walkback.data import Dataset
from walkback.extensions.registry import Registry
from walkback.jobs.compare_measure import Meter, Subject
from walkback.jobs.compare_methods import (
    Entry,
    MethodRequest,
    checked_method,
    is_judged,
    require_measurable,
    require_same_data,
)
from walkback.jobs.job import Say, keywords, resumable
from walkback.measuring.quality.features import label_classifier
from walkback.reporting.content import read_png
from walkback.reporting.record import read_run
from walkback.storage.description import read_description
from walkback.storage.files import write_json, write_text
from walkback.storage.store import FINAL
from walkback.support.threads import cpu_threads
from walkback.support.watch import Watch


@dataclass(frozen=True, slots=True)
class CompareJob:
    """Compare methods.

    Attributes:
        path: The TOML file, see `walkback.comparing.request`.
        out: Directory of runs, measurements and results; None means `runs/NAME-comparison`.
        published: Whether to show published figures beside the table.
        device: Device of the measurements.
        say: Spells options in error messages.
    """

    path: Path
    out: Path | None = None
    published: bool = False
    device: str = "auto"
    say: Say = keywords

    def check(self, registry: Registry, watch: Watch) -> CheckedComparison:
        """Resolve and build every method, and check that they are comparable; see `Job.check`.

        Raises:
            ConfigurationError: The file or a configuration is invalid, or methods differ in data, network or number of
                network calls.
        """
        comparison = read_comparison(self.path)
        out = self.out or Path("runs") / f"{self.path.stem}-comparison"
        request = MethodRequest(out, self.device, self.say)
        entries = tuple(
            checked_method(method, comparison, request, registry, watch) for method in comparison.methods
        )
        require_same_data(entries)
        contenders = [entry.contender for entry in entries]
        if comparison.same_network:
            require_same_network(contenders)
        if comparison.same_calls:
            require_same_calls(contenders, comparison.tolerance)
        dataset = entries[0].dataset
        require_measurable(comparison, dataset, registry)
        return CheckedComparison(self, comparison, out, registry, entries, dataset)


@dataclass(frozen=True, slots=True)
class CheckedComparison:
    """A checked comparison."""

    job: CompareJob
    comparison: Comparison
    out: Path
    registry: Registry
    entries: tuple[Entry, ...]
    dataset: Dataset = field(repr=False)

    def plan(self) -> list[dict[str, Any]]:
        """Return what will be trained and measured, one record per method, in plain JSON types."""
        return [
            {
                "method": entry.method.name,
                "label": entry.method.label,
                "parameters": entry.contender.parameters,
                "calls": entry.contender.calls,
                "gradient_calls": entry.contender.gradient_calls,
                "steps": entry.contender.steps,
                "network": dict(entry.contender.network),
                "runs": (
                    {str(path): "checkpoint" for path in entry.files}
                    if entry.sweep is None
                    else {str(m.out): _state(m.out) for m in entry.sweep.members}
                ),
            }
            for entry in self.entries
        ]

    def run(self, watch: Watch) -> ComparisonTable:
        """Train what is not trained, measure what is not measured, and write table and page.

        Raises:
            Interrupted: A stop was requested; the same request resumes the comparison.
            WalkbackError: A run failed for another reason than divergence, or a file cannot be written.
        """
        with resumable(watch, "the comparison"):
            return self._run(watch)

    def _run(self, watch: Watch) -> ComparisonTable:
        meter = self._meter()
        columns: list[Column] = []
        headlines: dict[str, str] = {}
        pictures: list[PicturedSamples] = []
        for entry in self.entries:
            if entry.sweep is not None:
                watch.note(f"Method {entry.method.name}")
                entry.sweep.run(watch)
            models: list[Measured] = []
            with cpu_threads(0 if entry.config is None else entry.config.run.threads):
                for subject, reason in self._subjects(entry):
                    if subject is None:
                        lost = dict.fromkeys((group.name for group in meter.groups({})), reason)
                        models.append(Measured(None, reasons=lost))
                        continue
                    found, named = meter.measured(subject, watch)
                    headlines |= named
                    models.append(found)
                    if len(models) == 1:
                        pictures += self._pictures(meter, entry.method, subject)
            columns.append(Column(entry.method.name, entry.method.label, tuple(models)))
        table = ComparisonTable(
            title=self.comparison.title,
            data=self.dataset.info.name,
            columns=tuple(columns),
            groups=meter.groups(headlines),
            protocol=self._protocol(),
            warnings=tuple(self._warnings(columns)),
            published=published_figures() if self.job.published else (),
        )
        for warning in table.warnings:
            watch.warn(warning)
        self._write(table, pictures)
        return table

    def _meter(self) -> Meter:
        wanted = self.comparison.measure
        judged = is_judged(wanted.classifier, self.dataset)
        judge = cache(partial(label_classifier, self.dataset, wanted.seed)) if judged else None
        return Meter(self.registry, self.dataset, wanted, self.job.device, judge)

    def _subjects(self, entry: Entry) -> list[tuple[Subject | None, str]]:
        """Return the models of a method; None with a reason for a run without a model."""
        place = self.out / "measured" / entry.method.name
        if entry.sweep is None:
            return [
                (Subject(entry.method.name, _seed_of(file), file, place / f"checkpoint={number}"), "")
                for number, file in enumerate(entry.files)
            ]
        found: list[tuple[Subject | None, str]] = []
        for seed, member in zip(self.comparison.seeds, entry.sweep.members, strict=True):
            run, file = read_run(member.out), member.out / FINAL
            if run.state == "finished" and file.is_file():
                found.append((Subject(entry.method.name, seed, file, place / member.out.name), ""))
            else:
                found.append((None, f"The run with seed {seed} is {run.state}."))
        return found

    def _pictures(self, meter: Meter, method: Method, subject: Subject) -> list[PicturedSamples]:
        files = {steps: meter.picture(subject, steps) for steps in self.comparison.measure.chain}
        return [
            PicturedSamples(method.label, steps, read_png(file))
            for steps, file in files.items()
            if file.is_file()
        ]

    def _protocol(self) -> dict[str, Any]:
        comparison = self.comparison
        return {
            "file": comparison.path.name,
            "seeds": list(comparison.seeds),
            "data": self.dataset.info.name,
            "fingerprint": self.dataset.info.fingerprint,
            "same_network": comparison.same_network,
            "same_calls": comparison.same_calls,
            "tolerance": comparison.tolerance,
            "measure": comparison.measure.model_dump(mode="json"),
            "methods": self.plan(),
            "walkback": version("walkback"),
        }

    def _warnings(self, columns: Sequence[Column]) -> list[str]:
        """Compare the calls that were counted in training with one another."""
        if not self.comparison.same_calls:
            return ["Methods may differ in the number of network calls in training (same_calls = false)."]
        counted: Mapping[str, list[float]] = {
            column.name: [
                figure.value
                for model in column.models
                for figure in model.figures.get("training", ())
                if figure.name == "calls"
            ]
            for column in columns
        }
        means = {name: sum(calls) / len(calls) for name, calls in counted.items() if calls}
        found = [
            f"The network calls of '{column.name}' are not known, so its compute may differ."
            for column in columns
            if column.name not in means and column.models
        ]
        if means and max(means.values()) - min(means.values()) > self.comparison.tolerance * max(
            means.values()
        ):
            most, least = (choose(means, key=means.__getitem__) for choose in (max, min))
            found.append(
                f"Training took {means[most]:,.0f} network calls of '{most}' and {means[least]:,.0f} of '{least}'."
            )
        return found

    def _write(self, table: ComparisonTable, pictures: Sequence[PicturedSamples]) -> None:
        write_json(self.out / "comparison.json", table.to_dict())
        write_text(self.out / "comparison.csv", table.to_csv())
        write_text(self.out / "comparison.html", comparison_page(table, pictures))


def _seed_of(file: Path) -> int | None:
    """Return the seed of the run that wrote a checkpoint, if it says so."""
    settings = read_description(file).config.get("run")
    seed = settings.get("seed") if isinstance(settings, dict) else None
    return seed if isinstance(seed, int) else None


def _state(path: Path) -> str:
    return read_run(path).state if path.exists() else "new"
