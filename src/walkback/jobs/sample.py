"""The request to draw samples and chains.

noise         s_K ~ p*, cooled to s_0, `extra` steps at T = 1, then the recorded chain
data, file    given s_0, `extra` steps at T = 1, then the recorded chain
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, final

import torch
from torch import Tensor

from walkback.building.assembly import LoadedModel
from walkback.building.data_of_model import first_examples
from walkback.data import SPLITS, Batch, DataInfo, Split
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.inputs import DataRequest, ModelRequest, joined, require_states
from walkback.jobs.job import Say, at_least, keywords, one_of
from walkback.jobs.labels import NONE, LabelRequest, unlabelled
from walkback.measuring.provenance import Provenance
from walkback.pictures.frames import open_sink
from walkback.pictures.sinks import as_values
from walkback.pictures.starts import read_starts
from walkback.sampling import SamplePlan, sample_frames
from walkback.sampling.excursions import own_chain, there_and_back
from walkback.sampling.finite import require_finite
from walkback.sampling.readout import read_out, require_readout
from walkback.schedules import Levels
from walkback.state import Context
from walkback.storage.files import require_apart
from walkback.support.processes import world_size
from walkback.support.readouts import Readout
from walkback.support.sizes import require_room
from walkback.support.watch import Watch

NUM = 64
"""Default number of samples, unless the initial states determine it."""

_FRAMES = 20
"""Default number of recorded frames after the first."""


@dataclass(frozen=True, slots=True)
class SampleResult:
    """Drawn samples.

    Attributes:
        num: Number of samples, or of chains.
        steps: Number of steps at T = 1 before each recorded frame.
        protocol: How the samples were made, as plain JSON types.
        info: Description of the states.
        frames: States `(F, N, *E)` in the units of the data, on the CPU in float32 (float64 if standardized); F = 0 if
            they were written to a file.
        labels: Class of each sample, `(N,)`, -1 for unconditional; None for an unconditional model.
    """

    num: int
    steps: tuple[int, ...]
    protocol: Mapping[str, Any]
    info: DataInfo
    frames: Tensor
    labels: Tensor | None = None


@dataclass(frozen=True, slots=True)
class SampleJob:
    """Draw samples.

    Attributes:
        model: The model.
        num: Number of samples, or of chains; None takes all initial states, or 64.
        start: "noise", "data" for held-out examples, a file of samples or an image, or states `(N, *E)` in the units of
            the data.
        split: Split of "data"; None means test.
        trust_data: Whether "data" named by the checkpoint may be read and downloaded, see `data_for`.
        levels: Number of annealing levels; None takes those of the schedule.
        extra: Steps at T = 1 before the recorded chain.
        chain: Length of the recorded chain at T = 1, in steps.
        every: Steps between two recorded frames; None records about 20 frames.
        excursion: Levels that each step at T = 1 heats and cools back; None takes single steps.
        readout: How states are shown, see `walkback.sampling.readout`.
        labels: Class labels and guidance. Without a requested label, chains started from data have the labels of the
            data, and chains started from a file none.
        out: File to stream frames to; None keeps them in memory.
        overwrite: Whether an existing file may be replaced.
        batch_size: Number of samples computed at a time; each batch has its own random stream.
        compiled: Whether steps at T = 1 are compiled.
        seed: Seed of all randomness.
        say: Spells options in error messages.
    """

    model: ModelRequest
    num: int | None = None
    start: str | Tensor = "noise"
    split: Split | None = None
    trust_data: bool = False
    levels: int | None = None
    extra: int = 0
    chain: int = 0
    every: int | None = None
    excursion: int | None = None
    readout: Readout = "state"
    labels: LabelRequest = field(default_factory=LabelRequest)
    out: Path | None = None
    overwrite: bool = False
    batch_size: int = 1000
    compiled: bool = False
    seed: int = 0
    say: Say = keywords

    def check(self, registry: Registry, watch: Watch) -> CheckedSampling:
        """Check the request, load the model and read initial states; see `Job.check`."""
        self._require_consistent()
        if self.out is not None:
            started = () if isinstance(self.start, Tensor) else (Path(self.start),)
            require_apart(self.out, (*self.model.files, *started))
        loaded = self.model.open(registry, watch)
        require_readout(loaded.model, self.readout)
        labels = self.labels.check(loaded, self.say)
        chains = self._chains(labels.guide(loaded))
        require_room(self.say("num", self.num), (self.num or 0) * loaded.info.space.size)
        start, data, levels = None, None, self._levels(loaded) if self._origin == "noise" else ()
        own: Context = None
        if self._origin != "noise":
            begin, data = self._starts(loaded, registry, watch)
            start, own = begin.states, begin.context
        plan = SamplePlan(
            num=(self.num or NUM) if start is None else len(start),
            extra=self.extra,
            chain=self.chain,
            every=self.every or max(1, self.chain // _FRAMES),
            seed=self.seed,
            batch_size=self.batch_size,
            compiled=self.compiled,
        )
        facts = labels.facts("as in training" if start is None else "of the data" if data else NONE)
        protocol = self._protocol(loaded, levels, data, facts)
        recorder = self._recorder(loaded.info, plan, protocol)
        context = labels.of(plan.num, self.seed, own)
        if self.model.launched and world_size() > -(-plan.num // plan.batch_size):
            watch.note(
                f"{world_size()} processes divide {-(-plan.num // plan.batch_size)} batches: lower "
                f"{self.say('batch_size')} to use all of them."
            )
        drawing = CheckedSampling(chains, plan, levels, start, context, self.readout, protocol, recorder)
        return replace(drawing, launched=self.model.launched)

    @property
    def _origin(self) -> str:
        """The kind of initial states, in one word or as a file name."""
        if isinstance(self.start, Tensor):
            return "states"
        return self.start if self.start in ("noise", "data") else Path(self.start).name

    def _require_consistent(self) -> None:
        say, origin = self.say, self.start if isinstance(self.start, str) else "states"
        counts = {"num": self.num, "levels": self.levels, "every": self.every, "excursion": self.excursion}
        at_least(1, say, **counts, batch_size=self.batch_size)
        at_least(0, say, extra=self.extra, chain=self.chain, seed=self.seed)
        one_of(SPLITS, say, split=self.split)
        if self.every is not None and self.every > max(self.chain, 1):
            raise ConfigurationError(
                f"{say('every', self.every)} is longer than the chain ({say('chain', self.chain)}): lower it, or raise "
                f"{say('chain')}."
            )
        if self.excursion is not None and not (self.chain or self.extra):
            raise ConfigurationError(
                f"{say('excursion', self.excursion)} has no effect without steps at T = 1: add {say('chain')} or "
                f"{say('extra')}."
            )
        if self.compiled and (self.excursion is not None or not (self.chain or self.extra)):
            raise ConfigurationError(
                f"{say('compile', True)} compiles single steps at T = 1: add {say('chain')} or {say('extra')}, and "
                f"leave out {say('excursion')}."
            )
        if origin != "noise" and self.levels is not None:
            raise ConfigurationError(
                f"{say('levels', self.levels)} has no effect with {say('start', origin)}, which starts at T = 1 "
                f"without annealing: leave it out, or use {say('start', 'noise')}."
            )
        if origin != "data" and self.split is not None:
            raise ConfigurationError(
                f"{say('split', self.split)} has no effect with {say('start', origin)}: add {say('start', 'data')}."
            )

    def _chains(self, loaded: LoadedModel) -> LoadedModel:
        """Return the model whose steps at T = 1 are those of the chain."""
        model = loaded.model
        chain = own_chain(model) if self.excursion is None else there_and_back(model, self.excursion)
        return replace(loaded, model=chain)

    def _levels(self, loaded: LoadedModel) -> Levels:
        model = loaded.model
        return model.levels() if self.levels is None else model.levels_of_length(self.levels)

    def _starts(self, loaded: LoadedModel, registry: Registry, watch: Watch) -> tuple[Batch, DataInfo | None]:
        """Return initial states `(num, *E)` on the CPU with their labels, and the dataset they are from, if any."""
        if isinstance(self.start, Tensor):
            states = require_states(self.start, loaded.info, "start")
            if self.num is not None and self.num > len(states):
                raise ConfigurationError(
                    f"{self.say('num', self.num)} is more than the {len(states)} states to start from: lower it."
                )
            return unlabelled(states[: self.num]), None
        if self.start != "data":
            return unlabelled(read_starts(Path(self.start), loaded.info, self.num)), None
        dataset = DataRequest(trusted=self.trust_data).open(loaded, registry, watch, comparable=False)
        return first_examples(dataset, self.split or "test", self.num or NUM, self.seed), dataset.info

    def _protocol(
        self, loaded: LoadedModel, levels: Levels, data: DataInfo | None, labels: Mapping[str, Any]
    ) -> dict[str, Any]:
        details: dict[str, Any] = {} if data is None else {"split": self.split or "test"}
        details |= {
            "from": self._origin,
            "annealing_steps": len(levels),
            "extra": self.extra,
            "chain": self.chain,
            **({} if self.excursion is None else {"excursion": self.excursion}),
            "readout": self.readout,
            "batch_size": self.batch_size,
            **({"compiled": True} if self.compiled else {}),
            **labels,
        }
        return Provenance.of(loaded, self.seed, **details).on(data).to_dict()

    def _recorder(
        self, info: DataInfo, plan: SamplePlan, protocol: Mapping[str, Any]
    ) -> AbstractContextManager[Recorder]:
        if self.out is None or not self.model.writes:
            return nullcontext(_Memory())
        return open_sink(
            self.out,
            info,
            num_frames=plan.num_frames,
            num_chains=plan.num,
            overwrite=self.overwrite,
            protocol=protocol,
        )


class Recorder(Protocol):
    """A receiver of recorded frames, in order."""

    def add(self, step: int, state: Tensor) -> None:
        """Add the states `(N, *E)`, in the units of the data, after `step` steps."""


@final
@dataclass(frozen=True, slots=True)
class _Memory:
    """Keeps frames in memory."""

    frames: list[Tensor] = field(default_factory=list)

    def add(self, step: int, state: Tensor) -> None:
        """Add the next frame."""
        self.frames.append(as_values(state))


@dataclass(frozen=True, slots=True)
class CheckedSampling:
    """A checked request for samples.

    Attributes:
        loaded: The model.
        plan: Numbers of samples and steps.
        levels: Levels to cool through first.
        start: Initial states `(N, *E)`; None draws them from the prior.
        labels: Class of each sample, `(N,)` on the CPU; None for an unconditional model.
        readout: How states are shown.
        protocol: How the samples are made.
        recorder: Receives the frames.
        launched: See `ModelRequest`.
    """

    loaded: LoadedModel
    plan: SamplePlan
    levels: Levels
    start: Tensor | None
    labels: Tensor | None
    readout: Readout
    protocol: Mapping[str, Any]
    recorder: AbstractContextManager[Recorder]
    launched: bool = False

    def run(self, watch: Watch) -> SampleResult:
        """Draw samples and record frames as they are computed; of several processes, the first one records them.

        Raises:
            WalkbackError: A state is not finite, or the file cannot be written.
        """
        model, names, steps, nameless = self.loaded.model, self.loaded.info.categories, [], 0
        device, together = self.loaded.device, joined(self.loaded.device, self.launched)
        with together as world, self.recorder as recorder, self.loaded.drawing():
            watch.stage("Sampling", self.plan.total_steps(self.levels))
            context = None if self.labels is None else self.labels.to(device)
            drawn = sample_frames(model, self.levels, self.plan, device, self.start, context, world)
            for done, step, state in drawn:
                if step is not None and state is not None and world.is_main:
                    shown = read_out(model.operator, state, self.readout, context)
                    shown = require_finite(shown, f"the readout '{self.readout}'")
                    recorder.add(step, self.loaded.info.values(shown))
                    steps.append(step)
                    nameless += 0 if names is None else names.nameless(shown)
                watch.advance(done, {})
        if nameless:
            watch.warn(
                f"{nameless:,} of {len(steps) * self.plan.num * self.loaded.info.shape[0]:,} sampled symbols have no "
                "category, because their columns have fewer than others: tables contain them as missing values."
            )
        kept = recorder.frames if isinstance(recorder, _Memory) else ()
        frames = torch.stack(kept) if kept else torch.empty(0, self.plan.num, *self.loaded.info.shape)
        return SampleResult(self.plan.num, tuple(steps), self.protocol, self.loaded.info, frames, self.labels)
