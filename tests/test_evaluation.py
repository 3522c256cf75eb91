"""The bound of held-out data: figures, standard errors, units, latent states, evaluation mode."""

from __future__ import annotations

import math
from typing import final

import numpy as np
import pytest
import torch
from tests.toy.exact import Pair, autoregressive, filled, gaussian, model
from tests.toy.learned import seeing_gaussian
from tests.toy.statistics import LIMIT, normal, normal_log_density, rng, z_score
from torch import Tensor

from walkback.data import Batch, DataInfo
from walkback.errors import WalkbackError
from walkback.kernels import NormalKernel, ProductKernel
from walkback.measuring.bound import BoundEstimate, estimate_bound, path_bound
from walkback.measuring.likelihood_report import likelihood_figures
from walkback.measuring.path_works import HeatedExamples
from walkback.model import Model
from walkback.operators import Conditional, Latent, TransitionOperator, initial_state, state_space, visible
from walkback.priors import Prior
from walkback.report import number
from walkback.schedules import Level, levels_from
from walkback.state import Context, Space, State, StateSpace, leaves

INFO = DataInfo("plane", (2,))
PIXELS = DataInfo("pixels", (2,), bins=256)
BITS = DataInfo("bits", (2,), support="binary")
LEVELS = levels_from([1.0, 1.0, 2.0])
ONES = torch.ones(2, dtype=torch.float64)


def reversible() -> Model:
    return model(autoregressive(0.7, 0 * ONES, ONES), gaussian(torch.zeros(2), ONES), LEVELS)


def learned(dropout: float = 0.0) -> Model:
    return model(seeing_gaussian(2, dropout=dropout), gaussian(torch.zeros(2), 4 * ONES), LEVELS)


def test_the_estimate_of_a_reversible_chain_is_the_cross_entropy_of_the_data() -> None:
    """Every path is exact, so mean and standard error are those of -log π over the examples."""
    data = 2 * normal(60, 2)
    estimate = estimate_bound(reversible(), list(map(Batch, data.split(25))), INFO, rng(), paths=3)
    losses = -normal_log_density(data.numpy(), 0.0, 1.0).sum(1)
    assert estimate.nats == pytest.approx(losses.mean(), abs=1e-9)
    assert estimate.nats_error == pytest.approx(losses.std(ddof=1) / math.sqrt(60), abs=1e-9)
    assert (estimate.examples, estimate.paths, estimate.levels) == (60, 3, 3)


def test_the_estimate_is_the_mean_over_paths_then_over_examples() -> None:
    system, data = learned(), normal(8, 2)
    estimate = estimate_bound(system, [Batch(data)], INFO, rng(2), paths=4)
    generator = rng(2)
    works = torch.stack([-path_bound(system, data, LEVELS, generator) for _ in range(4)]).mean(0)
    assert estimate.nats == pytest.approx(works.mean().item(), rel=1e-12)
    assert estimate.nats_error == pytest.approx(np.std(works.numpy(), ddof=1) / math.sqrt(8), rel=1e-10)


def test_the_standard_error_is_that_of_repeated_estimates() -> None:
    """Spread of 400 estimates on fresh data and noise against the mean stated error, within 4.5 of 1/√800 each."""
    runs = [estimate_bound(learned(), [Batch(normal(40, 2, seed=s))], INFO, rng(s)) for s in range(400)]
    spread = np.std([run.nats for run in runs], ddof=1)
    stated = np.sqrt(np.mean([run.nats_error**2 for run in runs]))
    assert abs(spread / stated - 1) < LIMIT / math.sqrt(2 * 400)


@pytest.mark.parametrize(("info", "offset"), [(PIXELS, 8.0), (BITS, 0.0)])
def test_bits_per_dimension(info: DataInfo, offset: float) -> None:
    """(nats / D + log bins) / log 2; the error has no offset."""
    estimate = estimate_bound(reversible(), [Batch(normal(10, 2))], info, rng())
    assert estimate.bits_per_dimension == pytest.approx(estimate.nats / 2 / math.log(2) + offset)
    assert estimate.bits_error == pytest.approx(estimate.nats_error / 2 / math.log(2))


def test_data_without_a_quantum_have_no_bits() -> None:
    estimate = estimate_bound(reversible(), [Batch(normal(10, 2))], INFO, rng())
    assert estimate.bits_per_dimension is None
    assert estimate.bits_error is None


def test_an_evaluation_makes_the_same_record_of_the_same_works() -> None:
    work = normal(20, 5)
    estimate = BoundEstimate.of(work, PIXELS, 3)
    figures = likelihood_figures(HeatedExamples(work, work[:, :3]), PIXELS)
    assert tuple(figures[:2]) == estimate.figures
    assert str(estimate) == " = ".join(f"{number(f).removeprefix('≤ ')} {f.unit}" for f in figures[:2])
    assert estimate.named("validation") == {
        "validation_nats": figures[0].value,
        "validation_nats_error": figures[0].error,
        "validation_bits_per_dimension": figures[1].value,
        "validation_bits_error": figures[1].error,
    }


def test_dropout_is_off_while_evaluating_and_back_on_after() -> None:
    system = learned(dropout=0.5)
    before = torch.get_rng_state()
    first, again = (estimate_bound(system, [Batch(normal(20, 2))], INFO, rng()) for _ in range(2))
    assert first == again
    assert system.operator.training
    assert torch.get_rng_state().equal(before)


def test_the_mode_is_restored_after_a_failure_and_for_a_model_in_evaluation() -> None:
    system = learned()
    with pytest.raises(WalkbackError):
        estimate_bound(system, [Batch(torch.full((3, 2), math.nan, dtype=torch.float64))], INFO, rng())
    assert system.operator.training
    system.operator.eval()
    estimate_bound(system, [Batch(normal(4, 2))], INFO, rng())
    assert not system.operator.training


def test_no_graph_is_kept() -> None:
    assert not path_bound(learned(), normal(4, 2), LEVELS, rng()).requires_grad


def test_a_bound_that_is_not_finite_is_refused() -> None:
    data = normal(6, 2)
    data[2:4, 0] = math.inf
    with pytest.raises(WalkbackError, match="2 of 6"):
        estimate_bound(learned(), [Batch(data)], INFO, rng())


def test_three_examples_have_no_standard_error() -> None:
    with pytest.raises(WalkbackError, match="Got 3 examples, expected at least 4"):
        estimate_bound(reversible(), [Batch(normal(3, 2))], INFO, rng())


RHO = 0.6


@final
class Joint(TransitionOperator, Latent):
    """A chain of visible x and latent h, reversible with respect to N(0, Σ), Σ = [[1, ρ], [ρ, 1]].

    x' and h' are independent given (x, h): both N(a (x + h) / 2, 1 - ρ) with a² = 2ρ / (1 + ρ). It starts from
    q(h | x) = N(ρ' x, 1 - ρ'²), exact where the believed ρ' is ρ.
    """

    def __init__(self, believed: float = RHO) -> None:
        super().__init__()
        self._believed = believed

    @property
    def max_temperature(self) -> float:
        return 1.0

    @property
    def state_space(self) -> StateSpace:
        return Space((1,)), Space((1,))

    def initial_state(self, data: Tensor, generator: torch.Generator) -> tuple[State, Tensor]:
        kernel = NormalKernel(self._believed * data, filled(1 - self._believed**2, data))
        h = leaves(kernel.sample(generator))[0]
        return (data, h), kernel.log_prob(h)

    def visible(self, state: State) -> Tensor:
        return leaves(state)[0]

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        x, h = leaves(state)
        kernel = NormalKernel(math.sqrt(2 * RHO / (1 + RHO)) * (x + h) / 2, filled(1 - RHO, x))
        return Pair(lambda _: ProductKernel([kernel, kernel]))


@final
class JointPrior(Prior):
    """N(0, Σ)."""

    def log_prob(self, state: State) -> Tensor:
        sigma = torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=torch.float64)
        law = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), sigma)
        return law.log_prob(torch.cat(leaves(state), dim=1))

    def sample(self, num: int, generator: torch.Generator) -> State:
        raise NotImplementedError

    def fit(self, state: State) -> None:
        """Nothing to learn."""

    def observe(self, state: State) -> None:
        """Nothing to learn."""


def latent_model(believed: float) -> Model:
    return model(Joint(believed), JointPrior(Joint().state_space), LEVELS)


def test_latent_units_started_from_their_posterior_cost_nothing() -> None:
    """L = log π(x, h_0) - log π(h_0 | x) = log π(x) on every path of a reversible chain."""
    data = 2 * normal(50, 1)
    bound = path_bound(latent_model(RHO), data, LEVELS, rng())
    np.testing.assert_allclose(bound, normal_log_density(data.numpy(), 0.0, 1.0)[:, 0], rtol=0, atol=1e-9)


def test_latent_units_started_elsewhere_cost_their_divergence() -> None:
    """E[log π(x) - L] = KL(q(h | x) ‖ π(h | x)), in closed form, |z| < 4.5."""
    x, believed = 1.5, 0.2
    data = torch.full((20_000, 1), x, dtype=torch.float64)
    gap = float(normal_log_density(x, 0.0, 1.0)) - path_bound(latent_model(believed), data, LEVELS, rng())
    ours, theirs = 1 - believed**2, 1 - RHO**2
    divergence = 0.5 * (ours / theirs - 1 + (believed - RHO) ** 2 * x**2 / theirs + math.log(theirs / ours))
    assert abs(z_score(gap, divergence)) < LIMIT
    assert abs(z_score(gap, 0.0)) > LIMIT


def test_operators_without_latent_units_live_on_the_data() -> None:
    data, space = normal(3, 2), Space((2,))
    operator = seeing_gaussian(2)
    state, cost = initial_state(operator, data, rng())
    assert state is data
    assert cost.tolist() == [0, 0, 0]
    assert state_space(operator, space) is space
    assert visible(operator, data) is data


def test_latent_units_live_beside_the_data() -> None:
    data, operator = normal(3, 1), Joint()
    state, cost = initial_state(operator, data, rng())
    assert visible(operator, state) is data
    assert cost.shape == (3,)
    assert state_space(operator, Space((1,))) == (Space((1,)), Space((1,)))
