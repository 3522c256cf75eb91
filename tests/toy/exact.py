"""Operators and priors whose stationary laws, marginals and bounds are known in closed form, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias, final

import torch
from torch import Tensor

from walkback.kernels import Kernel, NormalKernel, bernoulli_at
from walkback.model import Model
from walkback.operators import Conditional, TransitionOperator
from walkback.priors import Prior
from walkback.processes import TiedProcess
from walkback.schedules import Level, Levels, Schedule, levels_from
from walkback.state import Context, Space, State, leaves
from walkback_paper.priors import BernoulliPrior, GaussianPrior

AtLevel: TypeAlias = Callable[[Level], Kernel]


@final
class Pair(Conditional):
    """Any two kernels; tied where only one is given."""

    def __init__(self, cooling: AtLevel, heating: AtLevel | None = None) -> None:
        self._cooling = cooling
        self._heating = heating or cooling

    def cooling(self, level: Level) -> Kernel:
        return self._cooling(level)

    def heating(self, level: Level) -> Kernel:
        return self._heating(level)


@final
class Toy(TransitionOperator):
    """An operator without weights: any function of the state."""

    def __init__(self, conditional: Callable[[Tensor], Conditional]) -> None:
        super().__init__()
        self._conditional = conditional

    @property
    def max_temperature(self) -> float:
        return 2.0

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        return self._conditional(leaves(state)[0])


def filled(value: float | Tensor, like: Tensor) -> Tensor:
    """A variance that broadcasts against `like`."""
    return torch.as_tensor(value, dtype=like.dtype).expand(1, *like.shape[1:])


def autoregressive(a: float, mean: Tensor, variance: Tensor, noise: float = 1.0) -> Toy:
    """s' = m + a (s - m) + √(1 - a²) σ ε: obeys detailed balance with N(m, σ²).

    A factor `noise` on the variance of ε other than 1 breaks that.
    """

    def conditional(state: Tensor) -> Conditional:
        spread = filled((1 - a**2) * variance * noise, state)
        return Pair(lambda _: NormalKernel(mean + a * (state - mean), spread))

    return Toy(conditional)


def self_consistent(variance: Tensor, sigma: float) -> Toy:
    """s' = a s + σ √T ε with a² = 1 - σ²T/u where u > σ²T, else a = 0 (u: `variance` per dimension)."""

    def conditional(state: Tensor) -> Conditional:
        def kernel(level: Level) -> Kernel:
            noise = sigma**2 * level.temperature_like(state)
            return NormalKernel((1 - noise / variance).clamp(min=0).sqrt() * state, noise)

        return Pair(kernel)

    return Toy(conditional)


@final
class LinearGaussian:
    """Heating s_t = a_t s_{t-1} + √q_t ε, cooling s_{t-1} = b_t s_t + √r_t ε, prior N(0, w); scalars."""

    def __init__(
        self, a: Sequence[float], q: Sequence[float], b: Sequence[float], r: Sequence[float], w: float
    ) -> None:
        self.a, self.q, self.b, self.r, self.w = a, q, b, r, w

    @property
    def model(self) -> Model:
        levels = levels_from([1.0] * len(self.a))
        return model(
            Toy(self._conditional),
            gaussian(torch.zeros(1), torch.tensor([self.w], dtype=torch.float64)),
            levels,
        )

    def _conditional(self, state: Tensor) -> Conditional:
        def kernel(slopes: Sequence[float], variances: Sequence[float]) -> AtLevel:
            return lambda level: NormalKernel(
                slopes[int(level.step) - 1] * state, filled(variances[int(level.step) - 1], state)
            )

        return Pair(kernel(self.b, self.r), kernel(self.a, self.q))

    def variance_of_cooled(self) -> float:
        """V_0 of the cooled s_0 ~ N(0, V_0): V_K = w, V_{t-1} = b_t² V_t + r_t."""
        variance = self.w
        for b, r in zip(reversed(self.b), reversed(self.r), strict=True):
            variance = b**2 * variance + r
        return variance

    def log_likelihood(self, x: float) -> float:
        """log p(s_0 = x)."""
        return _log_normal(x**2, self.variance_of_cooled())

    def expected_bound(self, x: float) -> float:
        """E[L | s_0 = x], from the mean m_t and variance P_t of s_t given s_0."""
        mean, variance, bound = x, 0.0, 0.0
        for a, q, b, r in zip(self.a, self.q, self.b, self.r, strict=True):
            next_mean, next_variance = a * mean, a**2 * variance + q
            covariance = a * variance
            residual = (mean - b * next_mean) ** 2 + variance + b**2 * next_variance - 2 * b * covariance
            bound += _log_normal(residual, r) - _log_normal(q, q)
            mean, variance = next_mean, next_variance
        return bound + _log_normal(mean**2 + variance, self.w)


def _log_normal(mean_square: float, variance: float) -> float:
    """E[log N(y; 0, variance)] where E[y²] = `mean_square`."""
    return -0.5 * (math.log(2 * math.pi * variance) + mean_square / variance)


def flips(up: float, down: float) -> Toy:
    """Independent bits that rise with probability `up` and fall with `down` at T = 1, logits divided by T."""
    rise, stay = math.log(up / (1 - up)), math.log((1 - down) / down)
    return Toy(lambda state: Pair(lambda level: bernoulli_at(rise + (stay - rise) * state, level)))


def stationary_flips(up: float, down: float, temperature: float = 1.0) -> float:
    """π(1) = up_T / (up_T + down_T) of `flips`."""
    up, down = (1 / (1 + math.exp(-math.log(p / (1 - p)) / temperature)) for p in (up, down))
    return up / (up + down)


def rotation(a: float, angle: float) -> Toy:
    """s' = a R s + √(1 - a²) ε in the plane: stationary law N(0, I), not reversible unless sin(angle) = 0."""
    c, s = math.cos(angle), math.sin(angle)
    turn = a * torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return Toy(lambda state: Pair(lambda _: NormalKernel(state @ turn.T, filled(1 - a**2, state))))


@final
class CycleKernel(Kernel):
    """From one of three places `(B, 1)`: on with probability `forward`, back otherwise."""

    def __init__(self, place: Tensor, forward: float) -> None:
        self._place = place
        self._forward = forward

    def sample(self, generator: torch.Generator) -> Tensor:
        on = torch.rand(self._place.shape, generator=generator, dtype=self._place.dtype) < self._forward
        return (self._place + torch.where(on, 1, 2)) % 3

    def log_prob(self, state: State) -> Tensor:
        (place,) = leaves(state)
        step = (place - self._place) % 3
        return torch.where(step == 1, math.log(self._forward), math.log(1 - self._forward))[:, 0]


def cycle(forward: float) -> Toy:
    """Three places in a ring: stationary law uniform, entropy production (p - q) log(p / q) a step."""
    return Toy(lambda state: Pair(lambda _: CycleKernel(state, forward)))


@final
class UniformPrior(Prior):
    """Each of three places with probability 1/3."""

    def log_prob(self, state: State) -> Tensor:
        (place,) = leaves(state)
        return place.new_full((place.shape[0],), -math.log(3))

    def sample(self, num: int, generator: torch.Generator) -> State:
        return torch.randint(3, (num, 1), generator=generator).double()

    def fit(self, state: State) -> None:
        """Nothing to learn."""

    def observe(self, state: State) -> None:
        """Nothing to learn."""


def gaussian(mean: Tensor, variance: Tensor) -> GaussianPrior:
    """N(mean, variance) in float64, exactly."""
    prior = GaussianPrior(Space(tuple(mean.shape))).double()
    prior.mean.copy_(mean)
    prior.variance.copy_(variance)
    return prior


def bits(probability: float, size: int) -> BernoulliPrior:
    """Independent bits with the same probability, in float64."""
    prior = BernoulliPrior(Space((size,), "binary")).double()
    prior.mean.fill_(probability)
    return prior


@final
class Fixed(Schedule):
    """Always the same levels."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels

    def levels(self, max_temperature: float, generator: torch.Generator | None = None) -> Levels:
        return self._levels

    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        return self._levels[:num_steps]


def model(operator: TransitionOperator, prior: Prior, levels: Levels) -> Model:
    """A tied model on fixed levels."""
    return Model(operator, Fixed(levels), TiedProcess(), prior)
