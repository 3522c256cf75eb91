"""The request to measure the speed of a configuration on its device."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from walkback.building.preparation import Prepared, prepare
from walkback.extensions.registry import Registry
from walkback.jobs.configuration import Choices
from walkback.jobs.job import Say, at_least, keywords
from walkback.jobs.trainable import require_consistent, require_trainable
from walkback.pictures.plots import check_plot_target
from walkback.report import Report
from walkback.speed.growth import growth_report
from walkback.speed.records import BenchmarkPlan
from walkback.speed.report import benchmark_protocol, benchmark_report
from walkback.speed.timings import time_configuration
from walkback.support.watch import Watch
from walkback.training.precision import settled


@dataclass(frozen=True, slots=True)
class BenchJob:
    """Measure how fast a configuration trains and samples.

    Attributes:
        choices: The configuration to measure.
        plan: The number and length of the measurements.
        scaling: Whether to measure growth with batch, K, image size, chain length and processes instead.
        plot: File to plot the report to; None writes none.
        overwrite: Whether an existing plot may be replaced.
        say: Spells options in error messages.
    """

    choices: Choices = field(default_factory=Choices)
    plan: BenchmarkPlan = field(default_factory=BenchmarkPlan)
    scaling: bool = False
    plot: Path | None = None
    overwrite: bool = False
    say: Say = keywords

    def check(self, registry: Registry, watch: Watch) -> CheckedBenchmark:
        """Check the request and prepare the configuration; see `Job.check`."""
        at_least(1, self.say, repeats=self.plan.repeats)
        if self.plot is not None:
            check_plot_target(self.plot, self.overwrite)
        config, instances = self.choices.resolve(registry), self.choices.instances
        require_consistent(config, registry, instances)
        watch.stage(f"Preparing {config.data.name}", 0)
        prepared = prepare(config, registry, instances=instances.copied(), watch=watch)
        require_trainable(prepared)
        return CheckedBenchmark(settled(prepared, watch), self.plan, self.scaling)


@dataclass(frozen=True, slots=True)
class CheckedBenchmark:
    """A checked measurement.

    Attributes:
        prepared: The prepared configuration; copies of its model are trained.
        plan: The number and length of the measurements.
        scaling: See `BenchJob`.
    """

    prepared: Prepared
    plan: BenchmarkPlan
    scaling: bool = False

    def run(self, watch: Watch) -> Report:
        """Measure and return a report; raises WalkbackError if the loss of the configuration is not finite."""
        if self.scaling:
            protocol = benchmark_protocol(self.prepared, self.plan)
            return growth_report(self.prepared, self.plan.repeats, protocol, watch)
        timings = time_configuration(self.prepared, self.plan, watch)
        return benchmark_report(self.prepared, self.plan, timings)
