"""Work of paths in both directions: exact where every path is, and the two Jarzynski identities where none is.

Every random check is a z-score of independent values against `LIMIT` (6.8e-6 a comparison for a correct program).
"""

from __future__ import annotations

import math

import pytest
import torch
from tests.toy.exact import (
    LinearGaussian,
    Pair,
    Toy,
    autoregressive,
    bits,
    filled,
    flips,
    gaussian,
    model,
    rotation,
    stationary_flips,
)
from tests.toy.statistics import LIMIT, normal, rng, z_score
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.kernels import Kernel, NormalKernel
from walkback.measuring.work import cooling_work, heating_work, reheating_work
from walkback.schedules import levels_from
from walkback.state import State, leaves

WALK = LinearGaussian(a=[0.9, 0.6, 0.3], q=[0.3, 0.6, 1.0], b=[0.8, 0.7, 0.2], r=[0.4, 0.5, 1.1], w=1.2)
LEVELS = WALK.model.levels()


def reversible() -> tuple[object, Tensor, Tensor]:
    mean, variance = (
        torch.tensor([0.5, -1.0], dtype=torch.float64),
        torch.tensor([0.3, 2.0], dtype=torch.float64),
    )
    return (
        model(autoregressive(0.7, mean, variance), gaussian(mean, variance), levels_from([1.0] * 9)),
        mean,
        variance,
    )


def log_stationary(state: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return torch.distributions.Normal(mean, variance.sqrt()).log_prob(state).sum(1)


def test_every_path_of_a_reversible_chain_has_the_same_work_in_both_directions() -> None:
    exact, mean, variance = reversible()
    data = normal(50, 2)
    heated = heating_work(exact, data, exact.levels(), rng())  # type: ignore[attr-defined]
    assert torch.allclose(heated.work, -log_stationary(data, mean, variance), atol=1e-10)
    state, cooled = cooling_work(exact, 50, exact.levels(), rng(1))  # type: ignore[attr-defined]
    assert isinstance(state, Tensor)
    assert torch.allclose(cooled.work, -log_stationary(state, mean, variance), atol=1e-10)


def test_bits_are_exact_too() -> None:
    up, down = 0.3, 0.2
    rate = stationary_flips(up, down)
    chain = model(flips(up, down), bits(rate, 4), levels_from([1.0] * 6))
    state, cooled = cooling_work(chain, 30, chain.levels(), rng())
    assert isinstance(state, Tensor)
    expected = -(state * math.log(rate) + (1 - state) * math.log(1 - rate)).sum(1)
    assert torch.allclose(cooled.work, expected, atol=1e-10)


@pytest.mark.parametrize("x", [-1.5, 0.0, 0.8])
def test_weights_of_heating_average_to_the_likelihood(x: float) -> None:
    data = torch.full((40_000, 1), x, dtype=torch.float64)
    weights = (-heating_work(WALK.model, data, LEVELS, rng(2)).work).exp()
    assert abs(z_score(weights, math.exp(WALK.log_likelihood(x)))) < LIMIT
    without_prior = (-heating_work(WALK.model, data, LEVELS, rng(2)).production.sum(1)).exp()
    assert abs(z_score(without_prior, math.exp(WALK.log_likelihood(x)))) > LIMIT


def test_weights_of_cooling_average_to_the_inverse_likelihood() -> None:
    state, cooled = cooling_work(WALK.model, 60_000, LEVELS, rng(3))
    assert isinstance(state, Tensor)
    truth = torch.tensor([WALK.log_likelihood(float(x)) for x in state[:, 0]], dtype=torch.float64)
    assert abs(z_score((cooled.work + truth).exp(), 1.0)) < LIMIT
    assert abs(z_score((truth - cooled.work).exp(), 1.0)) > LIMIT


def test_the_mean_works_bracket_the_entropy_of_the_model() -> None:
    state, cooled = cooling_work(WALK.model, 20_000, LEVELS, rng(4))
    heated = reheating_work(WALK.model, state, LEVELS, rng(5))
    entropy = 0.5 * math.log(2 * math.pi * math.e * WALK.variance_of_cooled())
    assert z_score(cooled.work, entropy) < -LIMIT
    assert z_score(heated.work, entropy) > LIMIT


def test_entropy_is_produced_by_the_rotation_alone() -> None:
    a, angle = 0.6, 0.5
    chain = model(rotation(a, angle), gaussian(torch.zeros(2), torch.ones(2)), levels_from([1.0] * 4))
    heated = heating_work(chain, normal(20_000, 2), chain.levels(), rng(6))
    # E|s - A s'|² - E|s' - A s|² = 2 tr(Aᵀ A^T A …) in the plane: 4 a² sin²θ · 1, over 2 v
    expected = 4 * (a * math.sin(angle)) ** 2 / (1 - a**2)
    assert all(abs(z_score(heated.production[:, t], expected)) < LIMIT for t in range(4))


def test_cooling_keeps_to_the_order_of_levels() -> None:
    hot = levels_from([1.0, 2.0, 4.0])
    seen: list[float] = []

    def conditional(state: Tensor) -> Pair:
        def kernel(level: object) -> NormalKernel:
            seen.append(float(level.temperature))  # type: ignore[attr-defined]
            return NormalKernel(0.5 * state, filled(float(level.temperature), state))  # type: ignore[attr-defined]

        return Pair(kernel)  # type: ignore[arg-type]

    toy = model(Toy(conditional), gaussian(torch.zeros(1), torch.ones(1)), hot)
    cooling_work(toy, 5, hot, rng())
    assert seen == [4.0, 2.0, 1.0, 1.0, 2.0, 4.0]  # cooled, then judged from the cold end


class Clipping(Kernel):
    """A normal whose samples are clipped to [0, 1], and whose density does not know it."""

    def __init__(self, state: Tensor) -> None:
        self._inner = NormalKernel(state, filled(1.0, state))

    def sample(self, generator: torch.Generator) -> Tensor:
        return self._inner.sample(generator).clamp(0, 1)

    def log_prob(self, state: State) -> Tensor:
        return self._inner.log_prob(leaves(state)[0])


def test_clipped_states_are_refused_in_both_directions() -> None:
    clipped = model(
        Toy(lambda s: Pair(lambda _: Clipping(s))),
        gaussian(torch.zeros(8), torch.ones(8)),
        levels_from([1.0] * 2),
    )
    with pytest.raises(WalkbackError, match=r"same extreme value.*clips"):
        heating_work(clipped, normal(20, 8), clipped.levels(), rng())
    with pytest.raises(WalkbackError, match=r"same extreme value.*clips"):
        cooling_work(clipped, 20, clipped.levels(), rng())
