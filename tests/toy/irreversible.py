"""Operators whose entropy production, entropy rate and relaxation are known in closed form, and subjects made of them.

turning     s' = r R(θ) s + √v ε        stationary N(0, v / (1 - r²)),  4 r² sin²θ / (1 - r²) nats/step for any v
drifting    s' = s + c + √v ε           no stationary law: the mean grows by c a step
wells       s' = m ± …                  two wells that no step connects
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import torch
from tests.toy.data import InMemory
from tests.toy.exact import Pair, Toy, bits, filled, gaussian, model
from torch import Tensor

from walkback.data import DataInfo, Dataset, Labelled, Split
from walkback.diagnostics import Subject
from walkback.errors import WalkbackError
from walkback.kernels import Kernel, NormalKernel, ProductKernel, normal_at
from walkback.operators import Conditional, Latent, TransitionOperator
from walkback.priors import Prior, ProductPrior
from walkback.schedules import Level, levels_from
from walkback.state import Context, Space, State, StateSpace, leaves
from walkback.storage.work_cache import WorkCache
from walkback.support.watch import Silent, Watch


def turning(r: float, angle: float, variance: float, *, tempered: bool = False) -> Toy:
    """s' = r R(θ) s + √v ε in the plane; v is multiplied by T where `tempered`."""
    c, s = math.cos(angle), math.sin(angle)
    turn = r * torch.tensor([[c, -s], [s, c]], dtype=torch.float64)

    def conditional(state: Tensor) -> Conditional:
        spread = filled(variance, state)
        return Pair(
            lambda level: (
                normal_at(state @ turn.T, spread, level) if tempered else NormalKernel(state @ turn.T, spread)
            )
        )

    return Toy(conditional)


def production_of_turning(r: float, angle: float) -> float:
    """Entropy production of `turning` in nats a step, 4 r² sin²θ / (1 - r²)."""
    return 4 * r**2 * math.sin(angle) ** 2 / (1 - r**2)


def gaussian_rate(variance: float, size: int) -> float:
    """Entropy rate of a kernel of that variance, nats a step."""
    return 0.5 * size * math.log(2 * math.pi * math.e * variance)


def drifting(drift: float, variance: float) -> Toy:
    """s' = s + c + √v ε."""
    return Toy(lambda state: Pair(lambda _: NormalKernel(state + drift, filled(variance, state))))


def wells(distance: float, a: float) -> Toy:
    """s' = w + a (s - w) + √(1 - a²) ε with w = ±distance, the sign of s: a chain stays where it began."""

    def conditional(state: Tensor) -> Conditional:
        well = distance * state.sign()
        return Pair(lambda _: NormalKernel(well + a * (state - well), filled(1 - a**2, state)))

    return Toy(conditional)


@final
class OneWayKernel(Kernel):
    """From a place `(B, 1)` of a ring of three always to the next: the way back is impossible."""

    def __init__(self, place: Tensor) -> None:
        self._place = place

    def sample(self, generator: torch.Generator) -> Tensor:
        return (self._place + 1) % 3

    def log_prob(self, state: State) -> Tensor:
        (place,) = leaves(state)
        on = (place - self._place) % 3 == 1
        return torch.where(on, 0.0, -math.inf)[:, 0].double()


def one_way() -> Toy:
    """Entropy production without bound."""
    return Toy(lambda state: Pair(lambda _: OneWayKernel(state)))


@final
class Companion(TransitionOperator, Latent):
    """A plane that turns, and a latent number that follows it not: two leaves, independent of one another.

    The plane is `turning(r, angle, 1 - r²)`; the latent h' = r h + √(1 - r²) ε is reversible.
    """

    def __init__(self, r: float, angle: float) -> None:
        super().__init__()
        self._plane = turning(r, angle, 1 - r**2)
        self._line = turning_line(r)

    @property
    def max_temperature(self) -> float:
        return 2.0

    @property
    def state_space(self) -> StateSpace:
        return (Space((2,)), Space((1,)))

    def initial_state(self, data: Tensor, generator: torch.Generator) -> tuple[State, Tensor]:
        latent = torch.randn((len(data), 1), generator=generator, dtype=data.dtype)
        return (data, latent), NormalKernel(torch.zeros_like(latent), torch.ones(1, 1)).log_prob(latent)

    def visible(self, state: State) -> Tensor:
        return leaves(state)[0]

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        plane, line = leaves(state)
        kernels = [self._plane(plane, level).cooling(level), self._line(line, level).cooling(level)]
        return Pair(lambda _: ProductKernel(kernels))


def turning_line(r: float) -> Toy:
    """s' = r s + √(1 - r²) ε in any number of dimensions."""
    return Toy(lambda state: Pair(lambda _: NormalKernel(r * state, filled(1 - r**2, state))))


class Parted(Dataset):
    """Examples `(N, *E)`: the first half to train on, the second half in the other splits."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def prepare(self) -> None:
        """Nothing to do."""

    @property
    def info(self) -> DataInfo:
        return InMemory(self._rows).info

    def examples(self, split: Split) -> Tensor:
        half = len(self._rows) // 2
        return self._rows[:half] if split == "train" else self._rows[half:]

    def states(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return rows


@final
class InTwoClasses(Parted, Labelled):
    """Of class 1 where their first entry is positive."""

    @property
    def classes(self) -> tuple[str, ...]:
        return ("negative", "positive")

    def labels(self, split: Split) -> Tensor:
        return (self.examples(split).flatten(1)[:, 0] > 0).long()


def real_prior(size: int, variance: float = 1.0) -> Prior:
    """N(0, v) in so many dimensions."""
    ones = torch.ones(size, dtype=torch.float64)
    return gaussian(0 * ones, variance * ones)


def pair_prior() -> Prior:
    """Of `Companion`, stationary."""
    return ProductPrior((Space((2,)), Space((1,))), [real_prior(2), real_prior(1)])


def bit_prior() -> Prior:
    """One fair bit."""
    return bits(0.5, 1)


@final
class PlacePrior(Prior):
    """Each of three places with probability 1/3."""

    def __init__(self) -> None:
        super().__init__(Space((1,), "binary"))

    def log_prob(self, state: State) -> Tensor:
        (place,) = leaves(state)
        return place.new_full((len(place),), -math.log(3))

    def sample(self, num: int, generator: torch.Generator) -> State:
        return torch.randint(3, (num, 1), generator=generator).double()

    def fit(self, state: State) -> None:
        """Nothing to learn."""

    def observe(self, state: State) -> None:
        """Nothing to learn."""


def subject(
    operator: TransitionOperator,
    prior: Prior,
    data: Dataset | None = None,
    *,
    seed: int = 0,
    cache: WorkCache | None = None,
    watch: Watch | None = None,
) -> Subject:
    """What a diagnostic measures: cooling is one step at T = 1 from the prior."""
    chosen = data or InMemory(torch.zeros(1, *_shape(prior), dtype=torch.float64))
    return Subject(
        model(operator, prior, levels_from([1.0])),
        chosen.info,
        lambda: chosen,
        seed=seed,
        cache=cache or WorkCache(),
        watch=watch or Silent(),
    )


def _shape(prior: Prior) -> tuple[int, ...]:
    return prior.space[0].shape if isinstance(prior.space, tuple) else prior.space.shape


class Interrupted(KeyboardInterrupt):
    """The user pressed a key."""


@final
class Impatient(Watch):
    """Interrupts one stage after so many units."""

    def __init__(self, stage: str, units: int) -> None:
        self._wanted = stage
        self._units = units
        self._current = ""

    def stage(self, text: str, total: int, done: int = 0) -> None:
        self._current = text

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        if self._current == self._wanted and done >= self._units:
            raise Interrupted


def interrupted_then_resumed(
    directory: Path, make: Callable[[WorkCache, Watch], object], watch: Watch
) -> object:
    """Run with a watch that interrupts, then again on the same cache without it."""
    try:
        make(WorkCache(directory, {"of": "a test"}), watch)
    except Interrupted:
        return make(WorkCache(directory, {"of": "a test"}), Silent())
    raise WalkbackError("Got a measurement that ended before it was interrupted.")
