"""The request to train one run per seed and combination of values, one after another.

DIR/sigma=0.03,seed=0    one run directory per run; finished runs are skipped, interrupted runs resumed
DIR/sigma=0.03,seed=1
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from walkback.configuration.config import RunConfig
from walkback.configuration.documents import NotTomlError, parse_toml
from walkback.configuration.overrides import assignments, parse_value
from walkback.errors import ConfigurationError, shortened
from walkback.extensions.registry import Registry
from walkback.jobs.configuration import Choices
from walkback.jobs.job import Say, at_least, keywords, resumable
from walkback.jobs.train import TrainJob
from walkback.reporting.record import CONFIG_FILE, flattened, read_run
from walkback.reporting.table import RunTable
from walkback.storage.rundir import default_stem, require_free
from walkback.support.processes import world_size
from walkback.support.text import one_line
from walkback.support.textfile import read_text
from walkback.support.watch import Watch
from walkback.training.finite import NotFiniteError

SEED = "run.seed"

_MOST = 1000
"""Maximum number of runs of a sweep."""

_LONGEST = 120
"""Maximum length of the name of a run's directory, in characters."""


@dataclass(frozen=True, slots=True)
class SweepJob:
    """Train several runs that differ in options.

    Attributes:
        job: The settings shared by all runs; `out` is the parent of the run directories, by default
            `runs/OPERATOR-DATA-sweep`.
        seeds: Number of consecutive seeds, starting with that of `job`; None uses only that of `job`.
        sweeps: `SECTION.OPTION=VALUE,VALUE,…`; all combinations are trained.
    """

    job: TrainJob
    seeds: int | None = None
    sweeps: Sequence[str] = ()

    def check(self, registry: Registry, watch: Watch) -> CheckedSweep:
        """Resolve the configuration of every run before the first one is trained; see `Job.check`.

        Raises:
            ConfigurationError: A sweep or a configuration is invalid, or a directory contains another run.
        """
        say = self.job.say
        if self.job.resume is not None or self.job.accept:
            raise ConfigurationError(
                f"A sweep resumes its own runs when the same command is repeated: leave out {say('resume')}."
            )
        config = self.job.choices.resolve(registry)
        if config.run.nproc > 1 or world_size() > 1:
            raise ConfigurationError(f"A sweep trains in one process: leave out {say('nproc')}.")
        axes = self._axes(config.run.seed)
        num = math.prod(len(values) for values in axes.values())
        if num > _MOST:
            raise ConfigurationError(f"The sweep has {num:,} runs, expected {_MOST:,} at most.")
        stem = default_stem(config.operator.name, config.data.name)
        root = self.job.out or stem.with_name(f"{stem.name}-sweep")
        combinations = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
        paths = [root / directory_name(values) for values in combinations]
        twice = next((path for path in paths if paths.count(path) > 1), None)
        if twice is not None:
            raise ConfigurationError(f"Two runs of the sweep would use {twice}: remove repeated values.")
        members = (
            self._member(registry, path, values) for path, values in zip(paths, combinations, strict=True)
        )
        return CheckedSweep(registry, tuple(members))

    def _axes(self, seed: int) -> dict[str, tuple[Any, ...]]:
        """Return the values of each option that varies between runs."""
        say = self.job.say
        at_least(1, say, seeds=self.seeds)
        axes: dict[str, tuple[Any, ...]] = {}
        for path, values in (parse_sweep(text, say) for text in self.sweeps):
            if path in axes:
                raise ConfigurationError(f"{say('sweep')} {path} is given twice: list all values in one.")
            axes[path] = values
        if self.seeds is not None:
            if SEED in axes:
                raise ConfigurationError(
                    f"{say('seeds')} and {say('sweep')} both set {SEED}: remove one of them."
                )
            axes[SEED] = tuple(range(seed, seed + self.seeds))
        return axes

    def _member(self, registry: Registry, path: Path, values: Mapping[str, Any]) -> Member:
        common = self.job.choices
        choices = replace(common, settings=(*common.settings, *assignments(values)))
        config = choices.resolve(registry)
        resumes = (path / CONFIG_FILE).exists()
        if resumes:
            _require_same(registry, path, config)
        else:
            require_free(path)
        if resumes:
            return Member(path, replace(self.job, choices=Choices(), out=None, resume=str(path)))
        return Member(path, replace(self.job, choices=choices, out=path))


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a sweep: its directory, and the job that starts or resumes it."""

    out: Path
    job: TrainJob = field(repr=False)

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do: the run has finished, or diverged and would diverge again."""
        return read_run(self.out).state in ("finished", "diverged") if self.out.exists() else False


@dataclass(frozen=True, slots=True)
class CheckedSweep:
    """A checked sweep.

    Attributes:
        registry: The plugins.
        members: The runs.
    """

    registry: Registry
    members: tuple[Member, ...]

    def run(self, watch: Watch) -> RunTable:
        """Train the unfinished runs; a run that diverges does not stop the others.

        Raises:
            Interrupted: A stop was requested; the same request resumes the sweep.
            WalkbackError: A run failed for another reason.
        """
        for number, member in enumerate(self.members, start=1):
            place = f"Run {number} of {len(self.members)}"
            if member.ended:
                watch.note(f"{place}: {member.out} has ended before.")
                continue
            watch.note(f"{place}: {member.out}")
            try:
                with resumable(watch, "the sweep"):
                    member.job.check(self.registry, watch).run(watch)
            except NotFiniteError as error:
                watch.warn(f"{member.out} diverged: {error}")
        return self.table()

    def table(self) -> RunTable:
        """Read the runs that exist so far."""
        return RunTable(tuple(read_run(member.out) for member in self.members if member.out.exists()))


def parse_sweep(text: str, say: Say = keywords) -> tuple[str, tuple[Any, ...]]:
    """Parse `SECTION.OPTION=VALUE,VALUE,…`; commas inside brackets, braces and quotes do not separate values.

    >>> parse_sweep("operator.sigma=0.03,0.05"), parse_sweep("data.name=swiss-roll,circle")
    (('operator.sigma', (0.03, 0.05)), ('data.name', ('swiss-roll', 'circle')))
    >>> parse_sweep("operator.network.channels=[16, 32],[32, 64]")
    ('operator.network.channels', ([16, 32], [32, 64]))

    Raises:
        ConfigurationError: The text has another form.
    """
    path, equals, listed = (part.strip() for part in text.partition("="))
    if not equals or not path or "." not in path:
        raise ConfigurationError(f"Got {say('sweep', text)}, expected SECTION.OPTION=VALUE,VALUE,….")
    try:
        # Parse the values as a TOML list, so that they have the same meaning as in `--set`.
        values = parse_toml(f"value = [{listed}]", f"The values of {shortened(path, 40)}")["value"]
    except NotTomlError:
        values = [parse_value(value.strip()) for value in listed.split(",")]
    if not values or "" in values:
        raise ConfigurationError(f"Got {say('sweep', text)}, expected values separated by commas.")
    return path, tuple(values)


def directory_name(values: Mapping[str, Any]) -> str:
    """Return the name of a run's directory, made from its values by option.

    >>> directory_name({"operator.sigma": 0.03, "run.seed": 1})
    'sigma=0.03,seed=1'
    """
    ends = [path.rpartition(".")[2] for path in values]
    shown = [path if ends.count(end) > 1 else end for path, end in zip(values, ends, strict=True)]
    pairs = (f"{name}={_short(value)}" for name, value in zip(shown, values.values(), strict=True))
    name = re.sub(r"[^\w.=+,-]+", "-", ",".join(pairs)).strip("-.")[:_LONGEST]
    return name or "run"


def _short(value: Any) -> str:
    return "-".join(map(_short, value)) if isinstance(value, list) else str(value)


def _require_same(registry: Registry, path: Path, config: RunConfig) -> None:
    """Raise ConfigurationError unless the run in `path` has this configuration and so can be resumed."""
    try:
        written = RunConfig.from_toml(read_text(path / CONFIG_FILE), registry)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path} cannot be resumed ({one_line(error)}): move it away.") from error
    found, wanted = (dict(flattened(each.to_dict())) for each in (written, config))
    different = [option for option in {**wanted, **found} if found.get(option) != wanted.get(option)]
    if different:
        option = different[0]
        raise ConfigurationError(
            f"{path} contains a run with {option} = {found.get(option)}, and this sweep has {wanted.get(option)}: "
            f"choose another directory with --out."
        )
