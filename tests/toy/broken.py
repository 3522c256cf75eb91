"""Components with one fault each, for what must find them; without a fault (`""`) each is sound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, final

import torch
from torch import Tensor, nn

from walkback.data import Augmented, Centred, DataInfo, Dataset, Labelled, Split
from walkback.diagnostics import Diagnostic, Subject
from walkback.errors import ConfigurationError, WalkbackError
from walkback.kernels import BernoulliKernel, Divergent, Expecting, Kernel, NormalKernel
from walkback.loggers import Logger
from walkback.objectives import Checkpointing, Objective, PathObjective
from walkback.operators import ClassConditional, Conditional, DataAware, Latent, TransitionOperator
from walkback.priors import Prior
from walkback.processes import StepwiseProcess
from walkback.report import Figure, Report
from walkback.schedules import Level, Levels, Schedule, levels_from
from walkback.state import Context, Space, State, StateSpace, leaves, spaces, sum_events
from walkback.support.constraints import Constrained, Constraint, positive
from walkback.walk import Transition

SIGMA = 0.3


def rows_of(level: Level, like: Tensor, fault: str) -> Tensor:
    """The temperature as a factor, read in one of several wrong ways."""
    if fault == "first row's temperature" and isinstance(level.temperature, Tensor):
        return like.new_full((1, 1), float(level.temperature.flatten()[0]))
    if fault == "temperature along events" and isinstance(level.temperature, Tensor):
        return level.temperature.to(like)
    return level.temperature_like(like)


@dataclass
class Broken(Kernel, Expecting, Divergent):
    """A Normal kernel."""

    mean: Tensor
    variance: Tensor
    fault: str = ""
    level: Level | None = None

    def sample(self, generator: torch.Generator) -> State:
        fault, variance, mean = self.fault, self.variance.detach(), self.mean.detach()
        if fault == "cold samples" and self.level is not None:
            variance = variance / self.level.temperature_like(mean)
        if fault == "variance for deviation":
            variance = variance.square()
        if fault == "shifted samples":
            mean = mean + 0.5 * variance.sqrt()
        if fault == "global samples":
            noise = torch.randn(mean.shape)
        elif fault == "own generator":
            noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
        else:
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        found = mean + variance.sqrt() * noise
        if fault == "double samples":
            return found.double()
        if fault == "flat samples":
            return found.flatten()
        if fault == "samples with gradient":
            return self.mean + variance.sqrt() * noise
        return found

    def expectation(self) -> State:
        if self.fault == "flat mean":
            return self.mean.detach().flatten()
        if self.fault == "mean with gradient":
            return self.mean
        return self.mean.detach() + (0.5 if self.fault == "mean elsewhere" else 0.0)

    def divergence_from(self, other: Kernel) -> Tensor | None:
        if not isinstance(other, Broken):
            return None
        own, others = (NormalKernel(part.mean, part.variance) for part in (self, other))
        return own.divergence_from(others) * (0.5 if self.fault == "half divergence" else 1.0)

    def log_prob(self, state: State) -> Tensor:
        (x,) = leaves(state)
        if self.fault == "in place":
            x.sub_(self.mean.detach()).add_(0.0)
            terms = x.square() / self.variance
        else:
            terms = (x - self.mean).square() / self.variance
        constant = 0.0 if self.fault == "no constant" else math.log(2 * math.pi)
        found = -0.5 * sum_events(terms + self.variance.log().expand_as(x) + constant)
        if self.fault == "half constant":
            found = found + 0.125
        if self.fault == "extra dimension":
            return found[:, None]
        if self.fault == "mean of batch":
            return found.mean()
        if self.fault == "one dimension a number":
            return -0.5 * (terms + constant)
        if self.fault == "double density":
            return found.double()
        return found


@final
class BrokenConditional(Conditional):
    def __init__(self, mean: Tensor, variance: Tensor, fault: str) -> None:
        self.mean, self.variance, self.fault = mean, variance, fault

    def cooling(self, level: Level) -> Kernel:
        factor = rows_of(level, self.mean, self.fault)
        if self.fault == "no temperature":
            factor = torch.ones_like(factor)
        if self.fault == "colder":
            factor = 1 / factor
        variance = self.variance * factor
        return Broken(self.mean, variance, self.fault, level)

    def heating(self, level: Level) -> Kernel:
        return self.cooling(level)


@final
class BrokenOperator(TransitionOperator, DataAware):
    """s' = F s + b + σ √T ε."""

    def __init__(self, space: StateSpace, *, fault: str = "") -> None:
        super().__init__()
        if spaces(space)[0].support == "binary":
            raise ConfigurationError("Got bits, expected numbers.")
        size = spaces(space)[0].size
        self.fault = fault
        self.network = nn.Linear(size, size)
        self.unused = nn.Parameter(torch.zeros(2)) if fault == "unused parameter" else None
        self.register_buffer("centre", torch.zeros(()), persistent=fault != "lost buffer")
        if fault == "undeclared buffer":
            self.register_buffer("spread", torch.ones(()))
        self.scale = 1.0

    def fit_data(self, data: Tensor) -> None:
        self.get_buffer("centre").fill_(float(data.mean()))
        self.scale = 2.0 if self.fault == "fitted attribute" else 1.0

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        (x,) = leaves(state)
        fault = self.fault
        if fault == "state in place":
            x.mul_(0.9)
        flat = x.flatten(1) - self.get_buffer("centre")
        if fault == "undeclared buffer":
            flat = flat * self.get_buffer("spread").sqrt()
        if fault == "batch leakage":
            flat = flat - flat.mean(0)
        if fault == "noise in evaluation":
            flat = flat + 0.1 * torch.randn_like(flat)
        mean = 0.3 * self.scale * self.network(flat).reshape(x.shape)
        if fault == "detached":
            mean = mean.detach()
        if fault == "overflow":
            mean = mean.square().exp()
        if fault == "compiled otherwise" and torch.compiler.is_compiling():
            mean = mean + 1.0
        if fault != "low precision":
            mean = mean.to(x.dtype)
        return BrokenConditional(mean, mean.new_full((1,) * x.dim(), SIGMA**2), fault)

    @property
    def max_temperature(self) -> float:
        return {"endless": math.inf, "cooler than one": 0.5}.get(self.fault, 10.0)


@final
class BrokenLabels(TransitionOperator, ClassConditional):
    """s' = ½ s + m_k + σ √T ε for a row of class k."""

    def __init__(self, space: StateSpace, *, fault: str = "") -> None:
        super().__init__()
        (own,) = spaces(space)
        if own.support == "binary":
            raise ConfigurationError("Got bits, expected numbers.")
        self.fault = fault
        self._classes = own.classes
        self.means = nn.Parameter(torch.zeros(own.classes + 1, *own.shape))

    @property
    def num_classes(self) -> int:
        return 2 if self.fault == "miscounted classes" and self._classes else self._classes

    @property
    def max_temperature(self) -> float:
        return 10.0

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        (x,) = leaves(state)
        none = x.new_full((len(x),), -1, dtype=torch.int64)
        label = none if context is None or self.fault == "deaf" else leaves(context)[0]
        if self.fault == "no label is class 0" and context is not None:
            label = label.clamp(min=0)
        if self.fault == "first row's label":
            label = label[:1].expand(len(x))
        mean = 0.5 * x + self.means[label]
        return BrokenConditional(mean, mean.new_full((1,) * x.dim(), SIGMA**2), self.fault)


@final
class BrokenBits(TransitionOperator):
    """Bits that stay with probability sigmoid(2 / T)."""

    def __init__(self, space: StateSpace, *, fault: str = "") -> None:
        super().__init__()
        if spaces(space)[0].support == "real":
            raise ConfigurationError("Got numbers, expected bits.")
        self.fault = fault
        self.memory = nn.Parameter(torch.tensor(2.0))

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        return BitsConditional(self.memory * (2 * leaves(state)[0] - 1), self.fault)

    @property
    def max_temperature(self) -> float:
        return 10.0


@dataclass
class Bits(Kernel):
    inner: BernoulliKernel
    fault: str

    def sample(self, generator: torch.Generator) -> State:
        if self.fault == "probabilities":
            return self.inner.logits.detach().sigmoid()
        if self.fault == "cold bits":
            return BernoulliKernel(2 * self.inner.logits).sample(generator)
        return self.inner.sample(generator)

    def log_prob(self, state: State) -> Tensor:
        found = self.inner.log_prob(state)
        return found + 0.05 if self.fault == "bits' constant" else found


@final
class BitsConditional(Conditional):
    def __init__(self, logits: Tensor, fault: str) -> None:
        self.logits, self.fault = logits, fault

    def cooling(self, level: Level) -> Kernel:
        return Bits(BernoulliKernel(self.logits / level.temperature_like(self.logits)), self.fault)

    def heating(self, level: Level) -> Kernel:
        return self.cooling(level)


@final
class BrokenLatent(TransitionOperator, Latent):
    """Points with one latent number, which stands still in the mean."""

    def __init__(self, space: StateSpace, *, fault: str = "") -> None:
        super().__init__()
        (visible,) = spaces(space)
        if visible.support == "binary":
            raise ConfigurationError("Got bits, expected numbers.")
        self.fault, self._space = fault, visible
        self.memory = nn.Parameter(torch.tensor(0.5))

    @property
    def state_space(self) -> StateSpace:
        return (self._space, Space((1,)))

    def initial_state(self, data: Tensor, generator: torch.Generator) -> tuple[State, Tensor]:
        latent = torch.randn(len(data), 1, generator=generator)
        log_q = NormalKernel(torch.zeros_like(latent), torch.ones(1, 1)).log_prob(latent)
        return (data, latent), log_q.mean() if self.fault == "latent mean" else log_q

    def visible(self, state: State) -> Tensor:
        return leaves(state)[0] * (2.0 if self.fault == "other visible" else 1.0)

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        return LatentConditional(leaves(state), self.memory, self.fault)

    @property
    def max_temperature(self) -> float:
        return 10.0


@final
class LatentConditional(Conditional):
    def __init__(self, parts: tuple[Tensor, ...], memory: Tensor, fault: str) -> None:
        self.parts, self.memory, self.fault = parts, memory, fault

    def cooling(self, level: Level) -> Kernel:
        return LatentKernel(self.parts, self.memory, level, self.fault)

    def heating(self, level: Level) -> Kernel:
        return self.cooling(level)


@dataclass
class LatentKernel(Kernel):
    parts: tuple[Tensor, ...]
    memory: Tensor
    level: Level
    fault: str

    def _kernels(self) -> list[Kernel]:
        return [
            NormalKernel(self.memory * part, 0.1 * self.level.temperature_like(part)) for part in self.parts
        ]

    def sample(self, generator: torch.Generator) -> State:
        found = tuple(leaves(kernel.sample(generator))[0] for kernel in self._kernels())
        return found[0] if self.fault == "lost latent" else found

    def log_prob(self, state: State) -> Tensor:
        pairs = list(zip(self._kernels(), leaves(state), strict=True))
        if self.fault == "unscored latent":
            pairs = pairs[:1]
        return torch.stack([kernel.log_prob(part) for kernel, part in pairs]).sum(0)


@final
class BrokenSchedule(Schedule):
    """n + 1 steps at T = 1 and doubling."""

    def __init__(self, *, fault: str = "") -> None:
        self.fault = fault

    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        if self.fault == "chance":
            extra = int(torch.randint(0, 5, ()))
        elif generator is None:
            extra = 2
        else:
            source = None if self.fault == "generator ignored" else generator
            extra = int(torch.randint(0, 5, (), generator=source))
        growing = max(1, math.ceil(math.log2(max_temperature)))
        found = [1.0] * extra + [2.0**k for k in range(growing)]
        if self.fault == "falling":
            found = found[::-1]
        if self.fault == "too cold":
            found = found[: extra + growing // 2 + 1]
        if self.fault in ("zero", "nan"):
            wrong = torch.tensor([0.0 if self.fault == "zero" else math.nan])
            return (Level(1, wrong), *levels_from(found)[1:])
        if self.fault == "from zero":
            return tuple(Level(step, temperature) for step, temperature in enumerate(found))
        return list(levels_from(found)) if self.fault == "list" else levels_from(found)  # type: ignore[return-value]

    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        growing = max(1, math.ceil(math.log2(max_temperature)))
        if num_steps < growing:
            raise ConfigurationError("Got too few steps.")
        extra = num_steps - growing + (self.fault == "one too many")
        return levels_from([1.0] * extra + [2.0**k for k in range(growing)])


@final
class BrokenPrior(Prior, Constrained):
    """Diagonal Normal that follows the moments."""

    def __init__(self, space: StateSpace, *, fault: str = "") -> None:
        super().__init__(space)
        (own,) = spaces(space)
        if own.support == "binary":
            raise ConfigurationError("Got bits, expected numbers.")
        self.fault = fault
        self.register_buffer("mean", torch.zeros(own.shape))
        self.register_buffer("variance", torch.ones(own.shape), persistent=fault != "lost variance")
        self.count = 0

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        name = "wariance" if self.fault == "misspelt range" else "variance"
        return {} if self.fault == "undeclared prior" else {name: positive}

    def _kernel(self, num: int) -> NormalKernel:
        mean = self.get_buffer("mean")
        return NormalKernel(mean.expand(num, *mean.shape), self.get_buffer("variance")[None])

    def log_prob(self, state: State) -> Tensor:
        found = self._kernel(len(leaves(state)[0])).log_prob(state)
        return found + (0.2 if self.fault == "unnormalized" else 0.0)

    def sample(self, num: int, generator: torch.Generator) -> State:
        if self.fault == "global prior":
            generator = torch.default_generator
        found = leaves(self._kernel(num).sample(generator))[0]
        mean = self.get_buffer("mean")
        return mean + 2 * (found - mean) if self.fault == "wide prior" else found

    def fit(self, state: State) -> None:
        (x,) = leaves(state)
        if self.fault == "unfitted":
            return
        if self.fault == "data in place":
            x.sub_(0.1)
        self.get_buffer("mean").copy_(x.mean(0))
        self.get_buffer("variance").copy_(x.var(0))

    def observe(self, state: State) -> None:
        (x,) = leaves(state)
        self.count += 1
        weight = 1 / self.count if self.fault == "count outside" else 0.5
        variance = x.var(0) if self.fault == "bare variance" else x.var(0).clamp(min=1e-6)
        self.get_buffer("mean").lerp_(x.mean(0), weight)
        if self.fault == "bare variance":
            self.get_buffer("variance").copy_(variance)
        else:
            self.get_buffer("variance").lerp_(variance, weight)


@final
class BrokenProcess(StepwiseProcess, DataAware):
    """Noise around the state."""

    def __init__(self, *, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.size = 1.0
        self.register_buffer("variance", torch.tensor(0.04))

    @property
    def max_temperature(self) -> float:
        return {"endless": math.inf, "cooler than one": 0.5}.get(self.fault, 4.0)

    def fit_data(self, data: Tensor) -> None:
        variance = 0.6 * data.var()
        if self.fault == "fitted attribute":
            self.size = float(variance / 0.04)
        else:
            self.get_buffer("variance").copy_(variance)

    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
        (x,) = leaves(source)
        if self.fault == "origin's batch":
            x = x + leaves(origin)[0].mean(0)
        variance = self.size * self.get_buffer("variance") * level.temperature_like(x)
        return Broken(x, variance.expand(len(variance), *x.shape[1:]), self.fault, level)


@final
class BrokenObjective(Objective):
    """-log p."""

    def __init__(self, *, fault: str = "") -> None:
        self.fault = fault

    def __call__(self, transition: Transition) -> Tensor:
        loss = -transition.log_p
        if self.fault == "mean":
            return loss.mean()
        if self.fault == "spread mean":
            return loss.mean().expand(len(loss))
        if self.fault == "gradient of log q":
            return loss + transition.log_q
        if self.fault == "no gradient":
            return loss.detach()
        if self.fault == "wrong direction":
            return -transition.log_q
        if self.fault == "random":
            return loss * torch.rand(())
        return loss


@final
class BrokenPath(PathObjective):
    """log q - log p."""

    def __init__(self, *, fault: str = "") -> None:
        self.fault = fault

    @property
    def checkpointing(self) -> Checkpointing:
        return "sometimes" if self.fault == "sometimes" else "always"  # type: ignore[return-value]

    def step(self, transition: Transition) -> Tensor:
        return transition.log_q - transition.log_p

    def end(self, log_prior: Tensor) -> Tensor:
        return -log_prior.sum() if self.fault == "sum" else -log_prior


@final
class BrokenData(Dataset, Augmented, Centred, Labelled):
    """Grey points in [0, 1]."""

    def __init__(self, *, fault: str = "") -> None:
        self.fault = fault
        self._rows: Mapping[Split, Tensor] = {}

    def prepare(self) -> None:
        noise = None if self.fault == "drawn anew" else torch.Generator().manual_seed(0)
        rows = torch.randint(0, 256, (300, 3), generator=noise).to(torch.uint8)
        test = rows[150:250] if self.fault == "overlap" else rows[200:]
        self._rows = {"train": rows[:200], "validation": test[:50], "test": test[50:]}
        if self.fault == "overlap":
            self._rows = {"train": rows[:200], "validation": rows[250:], "test": test}

    @property
    def info(self) -> DataInfo:
        splits = {str(split): len(rows) for split, rows in self._rows.items()}
        if self.fault == "miscounted":
            splits["test"] += 1
        shape = (1, 3) if self.fault == "other shape" else (3,)
        name = "" if self.fault == "nameless" else "grey"
        return DataInfo(name, shape, bins=256, splits=splits, fingerprint="f")

    def examples(self, split: Split) -> Tensor:
        return self._rows[split]

    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        if self.fault == "rows in place":
            rows //= 2
        source = None if self.fault == "global noise" else generator
        found = (rows + torch.rand(rows.shape, generator=source)) / 256
        if self.fault == "out of range":
            return found * 2 - 1
        if self.fault == "shuffled":
            return found[torch.randperm(len(found), generator=generator)]
        return found.double() if self.fault == "double states" else found

    def augmented(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        if self.fault == "augmented floats":
            return rows.float()
        source = None if self.fault == "augmented by chance" else generator
        found = rows if self.fault == "augmented in place" else rows.clone()
        found[torch.rand(len(rows), generator=source) < 0.5] //= 2
        return found

    def centres(self, rows: Tensor) -> Tensor:
        found = (rows + 0.5) / 256
        if self.fault == "centres of a grid":
            return rows / 255
        return found.flip(0) if self.fault == "centres shuffled" else found

    @property
    def classes(self) -> tuple[str, ...]:
        return ("dark", "light")

    def labels(self, split: Split) -> Tensor:
        found = (self._rows[split].float().mean(1) > 127).long()
        return found + 1 if self.fault == "labels from one" else found


@final
class BrokenDiagnostic(Diagnostic):
    """The mean of held-out data, and of one step from them."""

    def __init__(self, *, fault: str = "") -> None:
        self.fault = fault

    def measure(self, subject: Subject) -> Report:
        state = subject.start("data", 200).state
        level = subject.model.levels()[0]
        noise = torch.default_generator if self.fault == "global chains" else subject.generator("step")
        found = (
            leaves(subject.model.operator(state, level).cooling(level).sample(noise))[0].flatten(1).mean(1)
        )
        value, error = float(found.mean()), float(found.std()) / math.sqrt(len(found))
        if self.fault == "small error":
            error /= 1000
        if self.fault == "nan headline":
            value = math.nan
        if not math.isfinite(value) and self.fault != "nan headline":
            if self.fault != "nan as 0":
                raise WalkbackError("Got nan.")
            value, error = 0.0, 0.0
        figure = Figure("mean", value, "" if self.fault == "no unit" else "1", error, meaning="the mean")
        if self.fault == "no error":
            figure = Figure("mean", value, "1")
        return Report("mean", "mean", (figure,))


@final
class BrokenLogger(Logger):
    """Lines of text."""

    def __init__(self, *, fault: str = "") -> None:
        self.fault = fault
        self._file: TextIO | None = None
        if fault == "early":
            Path("log.txt").touch()
        self._closed = False

    def open(self, directory: Path, config: Mapping[str, Any]) -> None:
        place = {"beside": directory.parent, "working directory": Path()}.get(self.fault, directory)
        mode = "x" if self.fault == "only once" else "a"
        self._file = (place / "log.txt").open(mode, encoding="utf-8")

    def _write(self, text: str) -> None:
        assert self._file is not None
        self._file.write(text + "\n")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        if self.fault == "finite only":
            self._write(f"{step} {[round(value) for value in figures.values()]}")
        self._write(f"{step} {dict(figures)}")

    def log_picture(self, step: int, name: str, png: bytes) -> None:
        self._write(f"{step} {name} {len(png)}")

    def close(self) -> None:
        if self._closed and self.fault == "closed once":
            raise RuntimeError("already closed")
        self._closed = True
        if self._file is not None:
            self._file.close()
