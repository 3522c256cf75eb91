"""Cases known in closed form: the bound, the marginal and the entropy production of exactly solvable chains.

Random checks compare means with |z| < 4.5 at fixed seeds: chance alone fails one with probability 6.8e-6.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.toy.exact import (
    LinearGaussian,
    Pair,
    Toy,
    UniformPrior,
    autoregressive,
    bits,
    cycle,
    filled,
    flips,
    gaussian,
    model,
    rotation,
    self_consistent,
    stationary_flips,
)
from tests.toy.statistics import LIMIT, normal, normal_log_density, rng, z_of_variance, z_score
from torch import Tensor

from walkback.kernels import NormalKernel
from walkback.measuring.bound import path_bound
from walkback.model import Model
from walkback.operators import Conditional
from walkback.sampling import anneal, chain, last
from walkback.schedules import levels_from
from walkback.state import Space, leaves
from walkback.walk import Start

DISCRETE = Space((1,), "binary")
"""Three places: the nearest that a space can say of a state with repeated values."""

MEAN = torch.tensor([0.5, -1.0, 3.0], dtype=torch.float64)
VARIANCE = torch.tensor([2.0, 0.01, 1.0], dtype=torch.float64)
CONSTANT = levels_from([1.0] * 25)


def far_states(num: int = 50) -> Tensor:
    """States up to ten standard deviations out: the identity holds everywhere, not only on typical states."""
    return MEAN + 3 * VARIANCE.sqrt() * normal(num, 3)


def stationary_density(x: Tensor) -> np.ndarray:
    return normal_log_density(x.numpy(), MEAN.numpy(), VARIANCE.numpy()).sum(1)


def deviation(candidate: Model, data: Tensor) -> np.ndarray:
    """|L of one path - log π(s_0)|, row by row."""
    bound = path_bound(candidate, data, candidate.levels(), rng())
    return np.abs(bound.numpy() - stationary_density(data))


@pytest.mark.parametrize("a", [-0.9, -0.3, 0.0, 0.5, 0.99, 0.999])
def test_number_one_every_path_of_a_reversible_chain_has_the_exact_bound(a: float) -> None:
    """Detailed balance and a stationary prior: L = log π(s_0) on every single path."""
    data = far_states()
    assert (
        deviation(model(autoregressive(a, MEAN, VARIANCE), gaussian(MEAN, VARIANCE), CONSTANT), data).max()
        < 1e-9
    )


def test_single_precision_keeps_the_bound_to_a_millionth_of_a_nat_per_dimension() -> None:
    """Rounding over 25 steps at 3,072 dimensions: errors of densities of size D do not pile up."""
    size = 3072
    ones = torch.ones(size)
    prior = gaussian(0 * ones, ones).float()
    data = normal(10, size).float()
    bound = path_bound(model(autoregressive(0.9, 0 * ones, ones), prior, CONSTANT), data, CONSTANT, rng())
    expected = normal_log_density(data.double().numpy(), 0.0, 1.0).sum(1)
    assert np.abs(bound.double().numpy() - expected).max() / size < 2e-6


@pytest.mark.parametrize("num_steps", [1, 2, 200])
def test_the_exact_bound_does_not_depend_on_the_number_of_steps(num_steps: int) -> None:
    chain_model = model(
        autoregressive(0.7, MEAN, VARIANCE), gaussian(MEAN, VARIANCE), levels_from([1.0] * num_steps)
    )
    assert deviation(chain_model, far_states()).max() < 1e-9


def reversed_with(factor: float) -> Toy:
    """Heats with the reversible chain and cools with `factor` times its variance."""
    right, wrong = autoregressive(0.7, MEAN, VARIANCE), autoregressive(0.7, MEAN, VARIANCE, noise=factor)

    def conditional(state: Tensor) -> Conditional:
        level = CONSTANT[0]
        return Pair(wrong(state, level).cooling, right(state, level).heating)

    return Toy(conditional)


BROKEN = {
    "prior 1 % too wide": model(
        autoregressive(0.7, MEAN, VARIANCE), gaussian(MEAN, 1.01 * VARIANCE), CONSTANT
    ),
    "prior off by 1 %": model(autoregressive(0.7, MEAN, VARIANCE), gaussian(1.01 * MEAN, VARIANCE), CONSTANT),
    "noise 1 % too strong": model(
        autoregressive(0.7, MEAN, VARIANCE, noise=1.01), gaussian(MEAN, VARIANCE), CONSTANT
    ),
    "cooling noise 1 % too strong": model(reversed_with(1.01), gaussian(MEAN, VARIANCE), CONSTANT),
}


@pytest.mark.parametrize("name", BROKEN)
def test_number_one_fails_on_a_broken_chain(name: str) -> None:
    assert np.median(deviation(BROKEN[name], far_states())) > 1e-3


def test_every_path_of_a_reversible_chain_of_bits_has_the_exact_bound() -> None:
    """Any two-state chain is reversible; π(1) = up / (up + down), at every temperature."""
    data = (normal(40, 4) > 0).double()
    for temperature in (1.0, 3.0):
        pi = stationary_flips(0.1, 0.3, temperature)
        bits_model = model(flips(0.1, 0.3), bits(pi, 4), levels_from([temperature] * 20))
        bound = path_bound(bits_model, data, bits_model.levels(), rng())
        expected = (data * math.log(pi) + (1 - data) * math.log(1 - pi)).sum(1)
        torch.testing.assert_close(bound, expected, rtol=0, atol=1e-9)


def test_a_chain_of_bits_with_the_wrong_prior_has_another_bound() -> None:
    data = (normal(40, 4) > 0).double()
    wrong = model(flips(0.1, 0.3), bits(0.26, 4), CONSTANT)
    expected = (data * math.log(0.25) + (1 - data) * math.log(0.75)).sum(1)
    assert (path_bound(wrong, data, CONSTANT, rng()) - expected).abs().median() > 1e-3


def test_two_state_chain_converges_as_its_eigenvalue_says() -> None:
    """P(s_n = 1 | s_0 = 0) = π (1 - λ^n), λ = 1 - up - down: 40,000 chains, checked at every step."""
    up, down = 0.1, 0.3
    states = chain(flips(up, down), torch.zeros(40_000, 1, dtype=torch.float64), 12, rng())
    for n, state in enumerate(states, start=1):
        expected = up / (up + down) * (1 - (1 - up - down) ** n)
        assert abs(z_score(leaves(state)[0], expected)) < LIMIT


def test_pairs_of_the_stationary_two_state_chain() -> None:
    """P(0 → 1) = P(1 → 0) = π(0) · up, from 2,000 chains long after they started."""
    up, down = 0.2, 0.05
    state = last(chain(flips(up, down), torch.zeros(20_000, 1, dtype=torch.float64), 100, rng()))
    after = last(chain(flips(up, down), state, 1, rng(1)))
    before, after = leaves(state)[0], leaves(after)[0]
    current = down / (up + down) * up
    assert abs(z_score((1 - before) * after, current)) < LIMIT
    assert abs(z_score(before * (1 - after), current)) < LIMIT


HEATING = LinearGaussian(
    a=[1.0, 0.9, 0.8, 0.5], q=[0.1, 0.2, 0.4, 0.8], b=[0.9, 0.8, 0.7, 0.4], r=[0.1, 0.15, 0.3, 0.7], w=1.3
)
STARTS = [-3.0, -0.4, 0.0, 1.0, 2.5]


def bounds_from(system: LinearGaussian, x: float, num: int) -> Tensor:
    data = torch.full((num, 1), x, dtype=torch.float64)
    return path_bound(system.model, data, system.model.levels(), rng())


@pytest.mark.parametrize("x", STARTS)
def test_the_mean_bound_of_a_linear_heating_walk_is_the_closed_form(x: float) -> None:
    assert abs(z_score(bounds_from(HEATING, x, 20_000), HEATING.expected_bound(x))) < LIMIT


@pytest.mark.parametrize("x", STARTS)
def test_the_mean_bound_is_below_the_log_likelihood(x: float) -> None:
    assert HEATING.expected_bound(x) < HEATING.log_likelihood(x)
    assert z_score(bounds_from(HEATING, x, 20_000), HEATING.log_likelihood(x)) < LIMIT


@pytest.mark.parametrize("x", STARTS)
def test_importance_weights_average_to_the_likelihood(x: float) -> None:
    """E[e^L] = p(s_0) (Jarzynski), the exact statement of which the bound is Jensen's inequality."""
    weights = (bounds_from(HEATING, x, 200_000) - HEATING.log_likelihood(x)).exp()
    assert abs(z_score(weights, 1.0)) < LIMIT


def test_the_likelihood_is_that_of_annealed_samples() -> None:
    """s_0 of 40,000 cooling paths has mean 0 and the variance V_0 of the closed form."""
    system = HEATING.model
    samples = leaves(last(anneal(system.operator, system.prior, system.levels(), 40_000, rng())))[0]
    assert abs(z_score(samples, 0.0)) < LIMIT
    assert abs(z_of_variance(samples, HEATING.variance_of_cooled())) < LIMIT


def test_the_closed_form_sees_a_wrong_noise_scale() -> None:
    """The same data, 20 % more heating noise than the closed form is told."""
    louder = LinearGaussian(HEATING.a, [1.2 * q for q in HEATING.q], HEATING.b, HEATING.r, HEATING.w)
    assert abs(z_score(bounds_from(louder, 1.0, 20_000), HEATING.expected_bound(1.0))) > LIMIT


WIDE = torch.tensor([4.0, 1.0], dtype=torch.float64)


def test_the_self_consistent_operator_leaves_wide_directions_alone() -> None:
    """a² = 1 - σ²T/u obeys detailed balance with N(0, u) while σ²T < u: the bound is exact through all levels."""
    levels = levels_from([1.0, 1.0, 2.0, 4.0, 8.0, 16.0])
    system = model(self_consistent(WIDE, sigma=0.2), gaussian(torch.zeros(2), WIDE), levels)
    data = 2 * normal(50, 2)
    expected = normal_log_density(data.numpy(), 0.0, WIDE.numpy()).sum(1)
    np.testing.assert_allclose(path_bound(system, data, levels, rng()), expected, rtol=0, atol=1e-9)


def test_the_self_consistent_operator_keeps_the_variance_of_data() -> None:
    operator = self_consistent(WIDE, sigma=0.2)
    data = WIDE.sqrt() * normal(40_000, 2)
    system = model(operator, gaussian(torch.zeros(2), WIDE), CONSTANT)
    steps = list(system.walk(Start(data), CONSTANT, rng()))
    heated = leaves(steps[-1].target)[0]
    for dimension in range(2):
        assert abs(z_of_variance(heated[:, dimension], float(WIDE[dimension]))) < LIMIT


def test_a_doubling_costs_a_forgotten_direction_half_of_log_two_minus_a_half() -> None:
    """A thin direction under a tied variance: the gap of the bound is K' · ½ (log 2 - ½), DESIGN section 8."""
    temperatures = [2.0**t for t in range(6)]
    variance = torch.ones(1, dtype=torch.float64)
    operator = self_consistent(variance * 1e-6, sigma=1.0)
    system = model(operator, gaussian(torch.zeros(1), variance * temperatures[-1]), levels_from(temperatures))
    data = normal(40_000, 1)
    gap = torch.from_numpy(normal_log_density(data[:, 0].numpy(), 0.0, 1.0)) - path_bound(
        system, data, system.levels(), rng()
    )
    # The first step is at T = 1 from data of variance σ²: it costs nothing, each doubling after it does.
    assert abs(z_score(gap, 5 * 0.5 * (math.log(2) - 0.5))) < LIMIT


def test_a_cooling_variance_of_its_own_costs_a_forgotten_direction_nothing() -> None:
    """The same walk, cooled with the variance the direction had one level below: exact on every path."""
    temperatures = [2.0**t for t in range(6)]
    levels = levels_from(temperatures)

    def conditional(state: Tensor) -> Conditional:
        below = [1.0, *temperatures]
        return Pair(
            lambda level: NormalKernel(torch.zeros_like(state), filled(below[int(level.step) - 1], state)),
            lambda level: NormalKernel(
                torch.zeros_like(state), filled(temperatures[int(level.step) - 1], state)
            ),
        )

    prior = gaussian(torch.zeros(1), torch.tensor([temperatures[-1]], dtype=torch.float64))
    data = normal(50, 1)
    bound = path_bound(model(Toy(conditional), prior, levels), data, levels, rng())
    np.testing.assert_allclose(bound, normal_log_density(data[:, 0].numpy(), 0.0, 1.0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("forward", [0.5, 0.6, 0.9])
def test_a_cyclic_chain_loses_its_entropy_production(forward: float) -> None:
    """E[L] = -log 3 - K (p - q) log(p / q): the bound pays for irreversibility, and for nothing else."""
    levels = levels_from([1.0] * 4)
    prior = UniformPrior(DISCRETE)
    ring = model(cycle(forward), prior, levels)
    bound = path_bound(ring, leaves(prior.sample(20_000, rng(1)))[0], levels, rng())
    production = (2 * forward - 1) * math.log(forward / (1 - forward))
    if forward == 0.5:
        assert (bound + math.log(3)).abs().max() < 1e-12
    else:
        assert abs(z_score(bound, -math.log(3) - 4 * production)) < LIMIT


@pytest.mark.parametrize("angle", [0.0, 0.2, 1.0])
def test_a_rotating_chain_loses_its_entropy_production(angle: float) -> None:
    """s' = a R s + √(1-a²) ε produces 4 a² sin²(angle) / (1 - a²) nats of entropy a step."""
    a, num_steps = 0.8, 3
    plane = torch.ones(2, dtype=torch.float64)
    system = model(rotation(a, angle), gaussian(torch.zeros(2), plane), levels_from([1.0] * num_steps))
    data = normal(20_000, 2)
    lost = torch.from_numpy(normal_log_density(data.numpy(), 0.0, 1.0).sum(1)) - path_bound(
        system, data, system.levels(), rng()
    )
    if angle == 0.0:
        assert lost.abs().max() < 1e-9
    else:
        assert abs(z_score(lost, num_steps * 4 * a**2 * math.sin(angle) ** 2 / (1 - a**2))) < LIMIT


def test_entropy_is_produced_step_by_step() -> None:
    """log q - log p of the record of each step has the same mean, (p - q) log(p / q)."""
    prior = UniformPrior(DISCRETE)
    system = model(cycle(0.7), prior, levels_from([1.0] * 5))
    for step in system.walk(Start(prior.sample(20_000, rng(1))), system.levels(), rng()):
        assert abs(z_score(step.log_q - step.log_p, 0.4 * math.log(0.7 / 0.3))) < LIMIT
