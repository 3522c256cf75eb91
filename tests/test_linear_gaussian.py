"""Gaussian data, where everything is known: what the walkback loss teaches a linear operator is what theory says.

Operators with one coefficient per level and direction (and a cooling variance, "reverse") are trained by the real
trainer on directions of variance 1, 0.01 and 0.0001 with σ = 0.02 and T = 1, 2, … 4096: they are forgotten at T = 4096,
at T = 32 and at once. 32 replicates that never meet give every figure a standard error; means are compared with
|z| < 4.5, which chance alone exceeds with probability 9e-5 a figure (Student's t, 31 degrees of freedom; fixed seeds).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import numpy as np
import pytest
import torch
from tests.toy.exact import Fixed
from tests.toy.linear import (
    Array,
    Endless,
    LinearOperator,
    MatrixOperator,
    Tie,
    entropy,
    heated_variances,
    normal_divergence,
    path_divergence,
    production,
    self_consistent_coefficients,
    state_tied_coefficients,
    stationary_covariance,
    step_divergences,
)
from tests.toy.statistics import LIMIT, rng, z_score
from tests.toy.trainers import CPU
from torch import Tensor

from walkback.configuration.settings import TrainingSettings
from walkback.data import Batch
from walkback.kernels import NormalKernel
from walkback.measuring.bound import estimate_bound, path_bound
from walkback.model import Model
from walkback.objectives import Objective
from walkback.operators import TransitionOperator
from walkback.processes import TiedProcess
from walkback.sampling import chain, last
from walkback.schedules import levels_from
from walkback.state import Space, leaves
from walkback.training.trainer import Trainer
from walkback.walk import Start, Transition
from walkback_paper.objectives import WalkbackLoss
from walkback_paper.priors import GaussianPrior

Kind: TypeAlias = Literal["tied", "reverse"]

SIGMA, REPLICATES = 0.02, 32
VARIANCES = np.array([1.0, 0.01, 0.0001])
TEMPERATURES = [2.0**power for power in range(13)]
NOISE = SIGMA**2 * np.array(TEMPERATURES)
WIDE = NOISE[:, None] < VARIANCES  # (K, D): the level leaves the direction alone
DOUBLING = 0.5 * (math.log(2) - 0.5)


def train(
    operator: TransitionOperator,
    data: Endless,
    temperatures: list[float],
    *,
    walks: int,
    batch_size: int,
    objective: Objective | None = None,
    lr: float = 0.02,
    ema: float = 0.97,
) -> Model:
    """The averaged model after training by the engine."""
    prior = GaussianPrior(Space(data.info.shape), momentum=0.02).double()
    settings = TrainingSettings(
        steps=walks,
        batch_size=batch_size,
        updates="batch",
        lr=lr,
        lr_schedule="cosine",
        betas=(0.9, 0.99),
        clip=0.0,
        ema=ema,
    )
    model = Model(operator, Fixed(levels_from(temperatures)), TiedProcess(), prior)
    worker = Trainer(model, objective or WalkbackLoss(), data, settings, seed=0, device=CPU)
    for _ in range(walks):
        worker.walk()
    return worker.averaged_model


@dataclass(frozen=True, slots=True)
class Learned:
    """A trained model and its numbers: coefficients and variances of both directions, `(K, R, D)`."""

    model: Model
    heating: Array
    cooling: Array
    cooling_noise: Array
    prior_mean: Array
    prior_variance: Array

    @property
    def log_ratio(self) -> Array:
        return np.log(self.cooling_noise / NOISE[:, None, None])

    def steps(self) -> Array:
        return step_divergences(VARIANCES, self.heating, NOISE, self.cooling, self.cooling_noise)

    def prior_gap(self) -> Array:
        last_variance = heated_variances(VARIANCES, self.heating, NOISE)[-1]
        return normal_divergence(last_variance, self.prior_mean, self.prior_variance)

    def gap(self) -> Array:
        """KL of whole paths, `(R, D)`, nats."""
        return path_divergence(
            VARIANCES,
            self.heating,
            NOISE,
            self.cooling,
            self.cooling_noise,
            self.prior_mean,
            self.prior_variance,
        )


def learn(
    kind: Kind,
    tie: Tie = "transition",
    *,
    walks: int = 400,
    replicates: int = REPLICATES,
    objective: Objective | None = None,
) -> Learned:
    shape = (len(TEMPERATURES), replicates, len(VARIANCES))
    operator = LinearOperator(shape, SIGMA, reverse=kind == "reverse", tie=tie)
    data = Endless(np.diag(np.sqrt(VARIANCES)), replicates, 1000)
    model = train(operator, data, TEMPERATURES, walks=walks, batch_size=128, objective=objective)
    averaged, prior = model.operator, model.prior
    assert isinstance(averaged, LinearOperator)
    assert isinstance(prior, GaussianPrior)
    cooling = averaged.coefficient.detach().numpy()
    ratio = np.zeros(shape) if averaged.log_ratio is None else averaged.log_ratio.detach().numpy()
    return Learned(
        model,
        heating=cooling if tie == "transition" else np.concatenate([cooling[:1], cooling[:-1]]),
        cooling=cooling,
        cooling_noise=NOISE[:, None, None] * np.exp(ratio),
        prior_mean=prior.mean.numpy(),
        prior_variance=prior.variance.numpy(),
    )


@pytest.fixture(scope="module")
def tied() -> Learned:
    return learn("tied")


@pytest.fixture(scope="module")
def reverse() -> Learned:
    return learn("reverse")


@pytest.fixture(params=["tied", "reverse"])
def either(request: pytest.FixtureRequest) -> Learned:
    found: Learned = request.getfixturevalue(request.param)
    return found


def z_of_replicates(found: Array, expected: Array | float, axis: int = 1) -> Array:
    """(mean over replicates - expected) / its standard error."""
    error = found.std(axis, ddof=1) / math.sqrt(found.shape[axis])
    return np.asarray((found.mean(axis) - expected) / error)


def expected_cooling_noise() -> Array:
    """What is left to know about s_{t-1} given s_t: σ²T where the level leaves the direction, else Var(s_{t-1})."""
    below = np.concatenate([VARIANCES[None], np.maximum(VARIANCES, NOISE[:-1, None])])
    return np.minimum(NOISE[:, None], below)


# --- what is learned


def test_coefficients_become_self_consistent(either: Learned) -> None:
    """a_t = √(1 - σ²T/u) for wide directions, 0 for forgotten ones, at every level (standard errors below 0.005)."""
    expected = self_consistent_coefficients(VARIANCES, NOISE)
    assert np.abs(z_of_replicates(either.cooling, expected)).max() < LIMIT
    assert either.cooling.std(1).max() / math.sqrt(REPLICATES) < 0.005
    assert ((expected > 0) == WIDE).all()


def test_cooling_variances_become_those_of_the_posterior(reverse: Learned) -> None:
    """Var(s_{t-1} | s_t) within 1 % and the standard error: coefficients that still move by δ add u_t δ² to it."""
    expected = np.log(expected_cooling_noise() / NOISE[:, None])
    error = reverse.log_ratio.std(1, ddof=1) / math.sqrt(REPLICATES)
    assert (np.abs(reverse.log_ratio.mean(1) - expected) < 0.01 + LIMIT * error).all()
    assert error.max() < 0.01


def test_heating_leaves_wide_directions_and_forgets_thin_ones(either: Learned) -> None:
    """Var(s_t) = max(u, σ²T), from the learned coefficients (to first order) and from walks."""
    data = Endless(np.diag(np.sqrt(VARIANCES)), REPLICATES, 1).states(torch.zeros(2000), rng(5))
    expected = np.maximum(VARIANCES, NOISE[:, None])
    exact = heated_variances(VARIANCES, either.heating, NOISE)[1:]
    steps = either.model.walk(Start(data), either.model.levels(), rng(6))
    with torch.no_grad():
        for number, step in enumerate(steps):
            found = leaves(step.target)[0].square().mean(0).numpy()  # (R, D)
            z = (found / exact[number] - 1) / math.sqrt(2 / len(data))
            assert np.abs(z.mean(0) * math.sqrt(REPLICATES)).max() < LIMIT
    # An error δ of a moves the variance by 2 a u δ: the coefficients are good to a few parts in a hundred.
    assert np.abs(exact.mean(1) / expected - 1).max() < 0.05


# --- the bound


def test_the_gap_is_that_of_its_steps_and_the_prior(either: Learned) -> None:
    """Two ways to one number: joint Gaussians of whole paths, and one conditional divergence a step."""
    np.testing.assert_allclose(
        either.gap(), either.steps().sum(0) + either.prior_gap(), rtol=1e-9, atol=1e-11
    )


def test_the_estimated_bound_is_entropy_plus_divergence(either: Learned) -> None:
    """-E[L] = H(data) + KL(q || p), all replicates and directions, by `estimate_bound` on 4,000 new states."""
    source = Endless(np.diag(np.sqrt(VARIANCES)), REPLICATES, 1)
    batches = [source.states(torch.zeros(1000), rng(seed)) for seed in range(4)]
    found = estimate_bound(either.model, list(map(Batch, batches)), source.info, rng(7))
    expected = REPLICATES * entropy(VARIANCES) + float(either.gap().sum())
    assert abs(found.nats - expected) / found.nats_error < LIMIT
    # The same with log p(s_0) known, which leaves only the noise of the walks.
    data = torch.cat(batches)
    deviations = torch.from_numpy(np.sqrt(VARIANCES)).expand(REPLICATES, -1)
    known = torch.distributions.Normal(torch.zeros(()).double(), deviations).log_prob(data).sum((1, 2))
    lost = known - path_bound(either.model, data, either.model.levels(), rng(8))
    assert abs(z_score(lost, float(either.gap().sum()))) < LIMIT


def second_order(learned: Learned, cooling_noise: Array) -> Array:
    """What the errors of the learned numbers cost per level and direction, to second order, nats.

    2 u_t E δa² / r + E (δ log r)²: four times ½ u_t δa² / r + ¼ (δ log r)², since a wrong coefficient heats as well,
    which moves the best one to cool with the other way: by δa (1 - 2 a²) in a wide direction. A fifth is added for the
    errors of the levels before, which reach u_t.
    """
    wrong = (learned.cooling - self_consistent_coefficients(VARIANCES, NOISE)[:, None]) ** 2
    log_wrong = np.log(learned.cooling_noise / cooling_noise[:, None]) ** 2
    cost = 2 * np.maximum(VARIANCES, NOISE[:, None]) * wrong.mean(1) / cooling_noise
    return np.asarray(1.2 * (cost + log_wrong.mean(1)))


def test_with_a_cooling_variance_of_its_own_the_bound_is_tight(reverse: Learned) -> None:
    """Nothing is lost beyond what errors of this size cost in second order: below 0.003 nats over 13 levels."""
    steps = reverse.steps().mean(1)
    assert steps.min() >= 0
    assert (steps < second_order(reverse, expected_cooling_noise()) + 1e-6).all()
    assert reverse.gap().mean(0).max() < 0.003


def test_a_doubling_costs_a_forgotten_direction_its_price_when_the_variance_is_tied(tied: Learned) -> None:
    """½ (log 2 - ½) nats = 0.139 bits a doubling, and nothing where the direction is wide."""
    steps = tied.steps().mean(1)
    allowed = second_order(tied, np.broadcast_to(NOISE[:, None], steps.shape)) + 1e-6
    assert DOUBLING / math.log(2) == pytest.approx(0.1394, abs=1e-4)
    doublings = np.concatenate([np.zeros((1, 3), bool), ~WIDE[1:] & ~WIDE[:-1]])
    assert doublings.sum(0).tolist() == [0, 7, 12]
    assert (np.abs(steps - DOUBLING) < allowed)[doublings].all()
    assert np.abs(steps - DOUBLING)[doublings].max() < 1e-3
    assert (steps < allowed)[WIDE].all()


def test_the_tied_gap_of_each_direction_is_the_predicted_one(tied: Learned) -> None:
    """0.08, 1.00 and 2.13 bits/dim: the first forgetting costs ½ (log σ²T/u + u/σ²T - 1), each doubling its price."""
    doublings = np.array([0, 7, 12])
    first = np.array([4096, 32, 1]) * SIGMA**2 / VARIANCES
    expected = (0.5 * (np.log(first) + 1 / first - 1) + DOUBLING * doublings) / math.log(2)
    np.testing.assert_allclose(expected, [0.075, 0.996, 2.131], atol=1e-3)
    found = tied.gap() / math.log(2)
    assert np.abs(found.mean(0) - expected).max() < 0.01


def test_an_operator_that_sees_the_level_of_the_state_has_a_tight_bound_too() -> None:
    """Step t + 1 heats with the coefficient that step t cools with: another fixed point, cooling still exact."""
    learned = learn("reverse", "state", walks=300)
    expected = state_tied_coefficients(VARIANCES, NOISE)
    assert np.abs(z_of_replicates(learned.cooling, expected)).max() < LIMIT
    assert np.abs(expected - self_consistent_coefficients(VARIANCES, NOISE)).max() > 0.1
    assert learned.gap().mean(0).max() < 0.005


# --- the test would notice


@final
class InPlace(Objective):
    """log p(s_t | s_t) in place of log p(s_{t-1} | s_t)."""

    def __call__(self, transition: Transition) -> Tensor:
        return -transition.reverse.log_prob(transition.target)


@final
class Squared(Objective):
    """The cooling kernel with T² in place of T."""

    def __call__(self, transition: Transition) -> Tensor:
        kernel, temperature = transition.reverse, transition.level.temperature
        assert isinstance(kernel, NormalKernel)
        return -NormalKernel(kernel.mean, kernel.variance * temperature).log_prob(transition.source)


@pytest.mark.parametrize("objective", [InPlace(), Squared()], ids=["in place", "T squared"])
def test_a_wrong_loss_fails_these_tests(objective: Objective) -> None:
    learned = learn("reverse", walks=150, replicates=4, objective=objective)
    a = learned.cooling.mean(1) - self_consistent_coefficients(VARIANCES, NOISE)
    r = learned.log_ratio.mean(1) - np.log(expected_cooling_noise() / NOISE[:, None])
    assert max(np.abs(a).max(), np.abs(r).max()) > 0.9
    assert learned.gap().mean(0).max() > 1


# --- the chain at T = 1

CHAIN_SIGMA, CHAIN_VARIANCES = 0.1, np.array([1.0, 0.05, 0.002])


@pytest.fixture(scope="module")
def at_one() -> tuple[Model, Array, Array]:
    """A reverse operator trained at T = 1 alone; its a and r, `(R, D)`."""
    operator = LinearOperator((1, REPLICATES, 3), CHAIN_SIGMA, reverse=True)
    data = Endless(np.diag(np.sqrt(CHAIN_VARIANCES)), REPLICATES, 4096)
    model = train(operator, data, [1.0], walks=400, batch_size=512)
    averaged = model.operator
    assert isinstance(averaged, LinearOperator)
    assert averaged.log_ratio is not None
    a, log_ratio = averaged.coefficient.detach().numpy()[0], averaged.log_ratio.detach().numpy()[0]
    return model, a, CHAIN_SIGMA**2 * np.exp(log_ratio)


def test_the_stationary_variance_at_temperature_one_is_that_of_data(
    at_one: tuple[Model, Array, Array],
) -> None:
    """u (1 - a²) / r = 1 in every direction, the thin one included, whose variance is a fifth of the noise's."""
    _, a, r = at_one
    precision = CHAIN_VARIANCES * (1 - a**2) / r
    assert np.abs(z_of_replicates(precision, 1.0, axis=0)).max() < LIMIT
    assert precision.std(0).max() / math.sqrt(REPLICATES) < 0.02


def test_a_chain_at_temperature_one_has_the_variance_of_its_numbers_and_of_data(
    at_one: tuple[Model, Array, Array],
) -> None:
    """1,000 chains a replicate, 200 steps from data: V_n = a²ⁿ u + (1 - a²ⁿ) r / (1 - a²)."""
    model, a, r = at_one
    data = Endless(np.diag(np.sqrt(CHAIN_VARIANCES)), REPLICATES, 1).states(torch.zeros(1000), rng(1))
    with model.evaluating(), torch.no_grad():
        states = leaves(last(chain(model.operator, data, 200, rng(2))))[0]
    found = states.square().mean(0).numpy()
    faded = a**400
    exact = faded * CHAIN_VARIANCES + (1 - faded) * r / (1 - a**2)
    assert np.abs(z_of_replicates(found / exact, 1.0, axis=0)).max() < LIMIT
    assert np.abs(z_of_replicates(found / CHAIN_VARIANCES, 1.0, axis=0)).max() < LIMIT


def test_wide_directions_produce_no_entropy_at_temperature_one(at_one: tuple[Model, Array, Array]) -> None:
    """E[log q - log p] of the stationary heating chain: ½ (log r/v + v/r - 1), 0 but where thin."""
    model, a, r = at_one
    noise = CHAIN_SIGMA**2
    exact = 0.5 * (np.log(r / noise) + noise / r - 1)
    allowed = 0.25 * np.log(r / noise).var(0, ddof=1)
    assert (exact.mean(0) < 2 * allowed + 1e-7)[:2].all()
    assert exact.mean(0)[:2].max() < 1e-4
    assert exact.mean(0)[2] == pytest.approx(0.5 * (math.log(0.2) + 5 - 1), abs=0.02)
    deviations = torch.from_numpy(np.sqrt(noise / (1 - a**2)))
    origin = deviations * torch.randn(20_000, *a.shape, generator=rng(3), dtype=torch.float64)
    with model.evaluating(), torch.no_grad():
        (step,) = model.walk(Start(origin), model.levels(), rng(4))
        assert abs(z_score(step.log_q - step.log_p, float(exact.sum()))) < LIMIT


# --- an operator that may turn

TURN_NOISE = 0.09
PLANE = np.array([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])


def test_a_turning_operator_learns_detailed_balance() -> None:
    """From A = 0.8 R(0.5), which produces entropy, to A = (I - v U⁻¹)^½: symmetric, and no entropy is produced."""
    factor = PLANE @ np.diag([1.0, 0.5])
    start = 0.8 * PLANE
    operator = MatrixOperator(start, REPLICATES, math.sqrt(TURN_NOISE))
    model = train(operator, Endless(factor, REPLICATES, 4096), [1.0], walks=500, batch_size=512)
    averaged = model.operator
    assert isinstance(averaged, MatrixOperator)
    found = averaged.matrix.detach().numpy()
    expected = PLANE @ np.diag(np.sqrt(1 - TURN_NOISE / np.array([1.0, 0.25]))) @ PLANE.T
    assert np.abs(z_of_replicates(found, expected, axis=0)).max() < LIMIT
    assert (found.std(0) / math.sqrt(REPLICATES)).max() < 0.002
    (before,), after = production(start[None], TURN_NOISE), production(found, TURN_NOISE)
    assert before == pytest.approx(4 * 0.64 * math.sin(0.5) ** 2 / 0.36)
    assert after.min() > -1e-12
    assert after.mean() < 1e-3 * before
    factors = torch.from_numpy(np.linalg.cholesky(stationary_covariance(found, TURN_NOISE)))
    origin = torch.randn(20_000, REPLICATES, 2, 1, generator=rng(3), dtype=torch.float64)
    with model.evaluating(), torch.no_grad():
        origin = (factors @ origin)[..., 0]
        (step,) = model.walk(Start(origin), model.levels(), rng(4))
    produced = step.log_q - step.log_p
    assert abs(z_score(produced, float(after.sum()))) < LIMIT
    assert produced.mean() < 1e-3 * before * REPLICATES
