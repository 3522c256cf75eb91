"""Samplers draw from their own densities; deliberately wrong ones are caught by the same check and sample size.

The largest of about 30 |z| per check stays below 4.5 for a right sampler with probability above 0.9997 (fixed seeds).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import pytest
import torch
from tests.toy.exact import bits, gaussian
from tests.toy.fitness import KernelOf, misfit
from tests.toy.statistics import LIMIT, normal
from torch import Tensor

from walkback.kernels import (
    BernoulliKernel,
    Kernel,
    NormalKernel,
    ProductKernel,
    StackedKernel,
    bernoulli_at,
    normal_at,
)
from walkback.levels import stack_levels
from walkback.priors import Prior, ProductPrior
from walkback.schedules import Level, levels_from
from walkback.state import Space, State, StateSpace, leaves
from walkback.temperature import VARIANCE_LAW, StandardDeviationLaw, TemperatureLaw

STD = StandardDeviationLaw()
MEAN = torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64)
VARIANCE = torch.tensor([[1.0, 0.04, 9.0]], dtype=torch.float64)
LOGITS = torch.tensor([0.0, -2.0, 1.5], dtype=torch.float64)
REAL, BINARY = Space((3,)), Space((3,), "binary")
HOT = Level(1, 4.0)


@final
class Prescribed(Kernel):
    """The density of one kernel with the sampler of another: right only where they are the same."""

    def __init__(self, density: Kernel, sampler: Callable[[torch.Generator], State]) -> None:
        self._density = density
        self._sampler = sampler

    def sample(self, generator: torch.Generator) -> State:
        return self._sampler(generator)

    def log_prob(self, state: State) -> Tensor:
        return self._density.log_prob(state)


def gauss(
    rows: int, level: Level = HOT, law: TemperatureLaw = VARIANCE_LAW, factor: float = 1.0
) -> NormalKernel:
    return normal_at(MEAN.expand(rows, 3), factor * VARIANCE, level, law)


def coins(rows: int, level: Level = HOT, shift: float = 0.0) -> BernoulliKernel:
    return bernoulli_at(LOGITS.expand(rows, 3) + shift, level)


def both(rows: int) -> Kernel:
    return ProductKernel([coins(rows), gauss(rows)])


def stacked(rows: int) -> Kernel:
    """Two kernels one after another (equal ones, since all rows must have one distribution)."""
    if rows % 2:
        return gauss(rows)
    return StackedKernel([gauss(rows // 2), gauss(rows // 2)], rows // 2)


def of_prior(prior: Prior) -> KernelOf:
    """A prior as a kernel that ignores where it comes from."""
    return lambda rows: Prescribed(_Density(prior), lambda generator: prior.sample(rows, generator))


@final
class _Density(Kernel):
    def __init__(self, prior: Prior) -> None:
        self._prior = prior

    def sample(self, generator: torch.Generator) -> State:
        raise NotImplementedError

    def log_prob(self, state: State) -> Tensor:
        return self._prior.log_prob(state)


RIGHT: dict[str, tuple[KernelOf, StateSpace]] = {
    "normal": (lambda rows: NormalKernel(MEAN.expand(rows, 3), VARIANCE), REAL),
    "normal, variance law": (gauss, REAL),
    "normal, std law": (lambda rows: gauss(rows, law=STD), REAL),
    "bernoulli": (lambda rows: BernoulliKernel(LOGITS.expand(rows, 3)), BINARY),
    "bernoulli, hot": (coins, BINARY),
    "product": (both, (BINARY, REAL)),
    "stacked": (stacked, REAL),
    "gaussian prior": (of_prior(gaussian(MEAN, VARIANCE[0])), REAL),
    "bernoulli prior": (of_prior(bits(0.2, 3)), BINARY),
    "product prior": (
        of_prior(ProductPrior((BINARY, REAL), [bits(0.2, 3), gaussian(MEAN, VARIANCE[0])])),
        (BINARY, REAL),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_samplers_draw_from_their_density(name: str) -> None:
    kernel, space = RIGHT[name]
    assert misfit(kernel, space) < LIMIT


def correlated(kernel: NormalKernel, correlation: float) -> Callable[[torch.Generator], Tensor]:
    """The right marginals, with the first two dimensions correlated."""

    def sample(generator: torch.Generator) -> Tensor:
        noise = torch.randn(kernel.mean.shape, generator=generator, dtype=torch.float64)
        noise[:, 1] = correlation * noise[:, 0] + math.sqrt(1 - correlation**2) * noise[:, 1]
        return kernel.mean + kernel.variance.sqrt() * noise

    return sample


def uniform_noise(kernel: NormalKernel) -> Callable[[torch.Generator], Tensor]:
    """The right mean and variance, but not a normal."""

    def sample(generator: torch.Generator) -> Tensor:
        noise = torch.rand(kernel.mean.shape, generator=generator, dtype=torch.float64) - 0.5
        return kernel.mean + kernel.variance.sqrt() * math.sqrt(12) * noise

    return sample


def repeated_rows(kernel: Kernel) -> Callable[[torch.Generator], Tensor]:
    """Every draw twice: the right marginals, rows not independent."""
    return lambda generator: leaves(kernel.sample(generator))[0][::2].repeat_interleave(2, dim=0)


WRONG: dict[str, tuple[KernelOf, StateSpace]] = {
    "variance 3 % too large": (lambda rows: Prescribed(gauss(rows), gauss(rows, factor=1.03).sample), REAL),
    "variance 3 % too small": (lambda rows: Prescribed(gauss(rows), gauss(rows, factor=0.97).sample), REAL),
    "temperature ignored": (lambda rows: Prescribed(gauss(rows), gauss(rows, Level(1, 1.0)).sample), REAL),
    "the other law": (lambda rows: Prescribed(gauss(rows), gauss(rows, law=STD).sample), REAL),
    "dimensions correlated": (lambda rows: Prescribed(gauss(rows), correlated(gauss(rows), 0.05)), REAL),
    "uniform noise": (lambda rows: Prescribed(gauss(rows), uniform_noise(gauss(rows))), REAL),
    "rows repeated": (lambda rows: Prescribed(gauss(rows), repeated_rows(gauss(rows))), REAL),
    "temperature of bits ignored": (
        lambda rows: Prescribed(coins(rows), coins(rows, Level(1, 1.0)).sample),
        BINARY,
    ),
    "logits 0.1 too large": (lambda rows: Prescribed(coins(rows), coins(rows, shift=0.4).sample), BINARY),
    "one leaf off": (
        lambda rows: Prescribed(both(rows), ProductKernel([coins(rows), gauss(rows, factor=1.03)]).sample),
        (BINARY, REAL),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_samplers_are_caught(name: str) -> None:
    kernel, space = WRONG[name]
    assert misfit(kernel, space) > LIMIT


@final
class Unnormalized(Kernel):
    """The normalization of a hot normal is that of the cold one: samples fit the shape of the density."""

    def __init__(self, kernel: NormalKernel) -> None:
        self._kernel = kernel

    def sample(self, generator: torch.Generator) -> State:
        return self._kernel.sample(generator)

    def log_prob(self, state: State) -> Tensor:
        return self._kernel.log_prob(state) + 1.5 * math.log(4)


def test_a_density_without_its_normalization_is_caught() -> None:
    assert misfit(lambda rows: Unnormalized(gauss(rows)), REAL) == math.inf


def test_rows_at_different_levels_fit_the_density_of_their_level() -> None:
    """A sampler that runs over two levels at once, judged level by level."""
    levels = levels_from([1.0, 4.0])

    def rows_of(index: int, law: TemperatureLaw) -> KernelOf:
        def kernel(rows: int) -> Kernel:
            level = stack_levels(levels, rows, torch.device("cpu"))
            whole = gauss(2 * rows, level, law)
            own = slice(index * rows, (index + 1) * rows)
            return Prescribed(gauss(rows, levels[index], law), lambda generator: whole.sample(generator)[own])

        return kernel

    assert misfit(rows_of(0, VARIANCE_LAW), REAL) < LIMIT
    assert misfit(rows_of(1, STD), REAL) < LIMIT


def test_single_precision_samples_fit_as_well() -> None:
    def kernel(rows: int) -> Kernel:
        single = NormalKernel(MEAN.float().expand(rows, 3), VARIANCE.float())
        return Prescribed(NormalKernel(MEAN.expand(rows, 3), VARIANCE), lambda g: single.sample(g).double())

    assert misfit(kernel, REAL) < LIMIT


def test_dimensions_of_images_are_independent_too() -> None:
    shape = (2, 2, 1)
    mean, variance = normal(*shape), normal(1, *shape, seed=1).exp()
    assert misfit(lambda rows: NormalKernel(mean.expand(rows, *shape), variance), Space(shape)) < LIMIT
