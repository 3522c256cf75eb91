"""The request to evaluate a model: the likelihood of data with errors, and baselines to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from walkback.building.assembly import LoadedModel
from walkback.data import SPLITS, Dataset
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.inputs import DataRequest, ModelRequest, joined
from walkback.jobs.job import Say, at_least, keywords, one_of
from walkback.known import require_density
from walkback.measuring.bound import NO_BOUND
from walkback.measuring.estimates import FEWEST, require_error_of_mean
from walkback.measuring.evaluate import evaluate_model, plan_facts
from walkback.measuring.jackknife import FEWEST_ROWS
from walkback.measuring.path_works import EvaluationPlan
from walkback.measuring.provenance import Provenance
from walkback.measuring.quality.features import require_labels
from walkback.measuring.some_levels import require_some_levels
from walkback.pictures.plots import check_plot_target
from walkback.processes import without_bound
from walkback.report import Report
from walkback.sampling.readout import require_readout
from walkback.schedules import Levels
from walkback.storage.files import require_apart
from walkback.storage.work_cache import WorkCache
from walkback.support.extras import require
from walkback.support.seeding import generator
from walkback.support.sizes import require_room
from walkback.support.watch import Watch


@dataclass(frozen=True, slots=True)
class EvaluateJob:
    """Evaluate a model.

    Attributes:
        model: The model; "auto" precision means fp32.
        data: Data to evaluate it on.
        plan: The quantities to compute.
        cache: Directory of finished batches, to resume from; None keeps none.
        plot: File to plot the report to; None writes none.
        overwrite: Whether an existing plot may be replaced.
        say: Spells options in error messages.
    """

    model: ModelRequest
    data: DataRequest = field(default_factory=DataRequest)
    plan: EvaluationPlan = field(default_factory=EvaluationPlan)
    cache: Path | None = None
    plot: Path | None = None
    overwrite: bool = False
    say: Say = keywords

    def check(self, registry: Registry, watch: Watch) -> CheckedEvaluation:
        """Check the request, load the model and prepare the data; see `Job.check`."""
        self._require_consistent()
        self._require_libraries()
        plan, seed = self.plan, self.plan.seed
        loaded = self.model.open(registry, watch, densities=True)
        prior = loaded.model.prior
        require_density(
            loaded.model.operator, prior.sample(1, generator(loaded.device, 0, "look")), "a likelihood"
        )
        require_readout(loaded.model, plan.readout)
        if without_bound(loaded.model.process) and not (plan.baselines or plan.samples):
            raise ConfigurationError(NO_BOUND)
        levels = loaded.model.levels() if plan.levels is None else loaded.model.levels_of_length(plan.levels)
        if plan.levels_per_path is not None:
            require_some_levels(loaded.model, levels, plan.levels_per_path)
        dataset = self.data.open(loaded, registry, watch, comparable=True)
        self._require_enough(dataset)
        facts = plan_facts(plan, levels, dataset)
        protocol = Provenance.of(loaded, seed, **facts).on(dataset.info).to_dict()
        directory = self.cache if self.model.writes else None
        cache = WorkCache(directory, {**protocol, "device": str(loaded.device)})
        return CheckedEvaluation(loaded, dataset, plan, levels, protocol, cache, self.model.launched)

    def _require_consistent(self) -> None:
        plan, say = self.plan, self.say
        at_least(1, say, limit=plan.limit, paths=plan.paths, levels=plan.levels, batch_size=plan.batch_size)
        at_least(0, say, simulated=plan.simulated, samples=plan.samples, seed=plan.seed)
        one_of(SPLITS, say, split=plan.split)
        if plan.levels_per_path is not None and plan.simulated:
            raise ConfigurationError(
                f"{say('simulated', plan.simulated)} needs whole paths, which "
                f"{say('levels_per_path', plan.levels_per_path)} does not take: add {say('simulated', 0)}."
            )
        self.data.check(say)
        comparing = {"classifier": plan.classifier, "readout": plan.readout}
        for name, value in comparing.items():
            if value not in (False, "state") and not plan.samples:
                raise ConfigurationError(
                    f"{say(name, value)} needs samples to compare: add {say('samples')}."
                )
        for name, number, fewest in (
            ("simulated", plan.simulated, FEWEST),
            ("samples", plan.samples, FEWEST_ROWS),
        ):
            if 0 < number < fewest:
                raise ConfigurationError(
                    f"Got {say(name, number)}, expected at least {fewest} for a standard error, or 0 for none."
                )

    def _require_libraries(self) -> None:
        """Require the libraries of requested figures; default figures are omitted with a warning without theirs."""
        if self.plan.samples:
            require("geomloss", "eval")
        if self.plan.classifier:
            require("torchmetrics", "eval")
        if self.plot is not None:
            require_apart(self.plot, (*self.model.files, *self.data.files))
            check_plot_target(self.plot, self.overwrite)

    def _require_enough(self, dataset: Dataset) -> None:
        plan, say = self.plan, self.say
        require_room(
            say("paths", plan.paths), 2 * plan.paths * min(plan.limit, len(dataset.examples(plan.split)))
        )
        require_room(say("simulated", plan.simulated), 2 * plan.paths * plan.simulated)
        require_room(say("samples", plan.samples), plan.samples * dataset.info.space.size)
        require_error_of_mean(dataset, plan.split, plan.limit, say("limit"), say("split"))
        held_out, train = len(dataset.examples(plan.split)), len(dataset.examples("train"))
        where = f"the {plan.split} split of {dataset.info.name}"
        if plan.samples > held_out:
            raise ConfigurationError(
                f"{plan.samples} samples cannot be compared with the {held_out} examples of {where}: lower "
                f"{say('samples')}."
            )
        if plan.samples and train < FEWEST_ROWS:
            raise ConfigurationError(
                f"Samples are compared with at least {FEWEST_ROWS} training examples, and {dataset.info.name} has "
                f"{train}: leave {say('samples')} out."
            )
        if plan.classifier:
            require_labels(dataset)


@dataclass(frozen=True, slots=True)
class CheckedEvaluation:
    """A checked evaluation.

    Attributes:
        loaded: The model.
        dataset: Data to evaluate it on.
        plan: The quantities to compute.
        levels: Levels of the heating paths.
        protocol: How the figures are made.
        cache: Cache of finished batches.
        launched: See `ModelRequest`.
    """

    loaded: LoadedModel
    dataset: Dataset
    plan: EvaluationPlan
    levels: Levels
    protocol: Mapping[str, Any]
    cache: WorkCache
    launched: bool = False

    def run(self, watch: Watch) -> Report:
        """Evaluate and return the report; of several processes, that of the first one is complete."""
        with self.cache.noted(), joined(self.loaded.device, self.launched) as world:
            parts = self.loaded, self.dataset, self.plan, self.levels, self.protocol
            return evaluate_model(*parts, self.cache.divided(world), watch, world)
