"""Infusion training: its kernel, its walks, and its bound against models whose likelihood is known."""

from __future__ import annotations

import math

import pytest
import torch
from tests.toy.exact import Fixed, LinearGaussian, Pair, bits, flips
from tests.toy.statistics import LIMIT, normal, rng, z_score
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import BernoulliKernel, CategoricalKernel, Kernel, NormalKernel, ProductKernel
from walkback.measuring.work import cooling_work, exponential_average, heating_work, reheating_work
from walkback.model import Model
from walkback.schedules import Level, levels_from
from walkback.state import leaves
from walkback.walk import Start
from walkback_processes.infusion import InfusedNormal, InfusionProcess

COOLING = LinearGaussian(a=[1.0] * 4, q=[1.0] * 4, b=[0.9, 0.8, 0.7, 0.6], r=[0.1, 0.2, 0.3, 0.4], w=1.5)
LEVELS = levels_from([1.0] * 4)


def infused(*, first: float = 0.05, increment: float = 0.1, spread: float = 0.5) -> Model:
    """A linear-Gaussian model whose density is known, with infused walks."""
    model, process = COOLING.model, InfusionProcess(first=first, increment=increment)
    process.deviation.fill_(spread)
    return Model(model.operator, model.schedule, process, model.prior)


def test_the_kernel_is_a_normalized_density_and_its_samples_follow_it() -> None:
    model = NormalKernel(torch.tensor([[0.3]], dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64))
    for rate in (0.0, 0.3, 1.0):
        kernel = InfusedNormal(
            model,
            torch.tensor([[-1.0]], dtype=torch.float64),
            torch.tensor(0.04, dtype=torch.float64),
            torch.tensor([[rate]], dtype=torch.float64),
        )
        grid = torch.linspace(-8, 8, 20001, dtype=torch.float64)[:, None]
        density = kernel.log_prob(grid).exp()
        assert torch.trapezoid(density, grid[:, 0]).item() == pytest.approx(1, abs=1e-9)
    # The share of samples below -0.8, of which the narrow part has Φ(1): |z| < 4.5.
    wide = InfusedNormal(
        NormalKernel(torch.full((20000, 1), 0.3), torch.tensor(0.5)),
        torch.full((20000, 1), -1.0),
        torch.tensor(0.04),
        torch.tensor([[0.3]]),
    )

    def normal_cdf(z: float) -> float:
        return 0.5 * math.erfc(-z / math.sqrt(2))

    share = 0.7 * normal_cdf(-1.1 / math.sqrt(0.5)) + 0.3 * normal_cdf(1.0)
    assert abs(z_score((wide.sample(rng(1)) < -0.8).double(), share)) < LIMIT


def _bridge(process: InfusionProcess, kernel: Kernel, level: Level, x: Tensor, last: Level) -> Kernel:
    return process.bridge(Pair(lambda _: kernel), x, level, x, last)


def test_infused_bits_and_symbols_are_mixtures() -> None:
    process, last = InfusionProcess(first=0.2, increment=0.1), Level(3, 1.0)
    x = torch.tensor([[1.0, 0.0]])
    kernel = _bridge(process, BernoulliKernel(torch.zeros(1, 2)), Level(2, 1.0), x, last)
    assert isinstance(kernel, BernoulliKernel)
    torch.testing.assert_close(kernel.expectation(), torch.tensor([[0.65, 0.35]]))
    symbol = torch.tensor([[[0.0, 1.0, 0.0]]])
    kernel = _bridge(process, CategoricalKernel(torch.zeros(1, 1, 3)), last, symbol, last)
    assert isinstance(kernel, CategoricalKernel)
    torch.testing.assert_close(kernel.expectation(), 0.8 / 3 + 0.2 * symbol)
    certain = InfusionProcess(first=1.0)
    kernel = _bridge(certain, BernoulliKernel(torch.zeros(1, 2)), last, x, last)
    assert kernel.log_prob(1 - x).isfinite().all()


def test_kernels_of_other_kinds_are_refused() -> None:
    kernel = ProductKernel([BernoulliKernel(torch.zeros(1, 2))])
    with pytest.raises(ConfigurationError, match="dimension by dimension"):
        _bridge(InfusionProcess(), kernel, Level(1, 1.0), torch.zeros(1, 2), Level(1, 1.0))


def test_walks_come_from_the_prior_and_end_near_the_example() -> None:
    model, x = infused(first=0.0, increment=0.3), normal(4000, 1)
    steps = list(model.path(Start(x, prior=model.prior), LEVELS, rng(2)))
    assert [step.level.step for step in steps] == [4, 3, 2, 1]
    assert all(leaves(step.source)[0] is x for step in steps)
    # s_K comes from the prior, which must not observe it.
    assert all(step.level is not LEVELS[-1] for step in steps)
    distances = [(leaves(step.target)[0] - x).square().mean().item() for step in steps]
    assert distances[-1] < 0.5 * distances[0]


@pytest.mark.parametrize("value", [0.0, 1.2])
def test_the_bound_never_exceeds_the_likelihood_and_importance_sampling_reaches_it(value: float) -> None:
    # A mean of 20,000 works above -log p(x), and an average of weights that is p(x): |z| < 4.5, so that chance fails
    # the second with probability 7e-6.
    model, truth = infused(), COOLING.log_likelihood(value)
    x = torch.full((20000, 1), value, dtype=torch.float64)
    work = heating_work(model, x, LEVELS, rng(3)).work
    assert z_score(work, -truth) > LIMIT
    assert abs(z_score((-work).exp(), math.exp(truth))) < LIMIT
    assert exponential_average(work).item() == pytest.approx(-truth, abs=0.05)


def test_without_infusion_the_work_is_that_of_the_model_itself() -> None:
    model, x = infused(first=0.0, increment=0.0), normal(10, 1)
    path = heating_work(model, x, LEVELS, rng(4))
    torch.testing.assert_close(
        path.production[:, 1:], torch.zeros_like(path.production[:, 1:]), atol=1e-9, rtol=0
    )
    torch.testing.assert_close(path.boundary, torch.zeros_like(path.boundary), atol=1e-9, rtol=0)


def test_cooling_and_infused_paths_obey_the_fluctuation_theorem() -> None:
    # E[exp(-W)] over paths from s_0 is p(s_0), and so E[exp(-W + log p)] is 1 for the model's own s_0: |z| < 4.5.
    model = infused()
    state, cooled = cooling_work(model, 20000, LEVELS, rng(5))
    heated = reheating_work(model, state, LEVELS, rng(6))
    truth = torch.tensor([COOLING.log_likelihood(float(value)) for value in leaves(state)[0][:, 0]])
    assert abs(z_score((-heated.work - truth).exp(), 1.0)) < LIMIT
    # Cooling works are works of the posterior: on average not above -log p, where heating works are not below.
    assert z_score(cooled.work + truth, 0.0) < LIMIT
    assert z_score(heated.work + truth, 0.0) > -LIMIT


def test_the_bound_of_bits_holds() -> None:
    # Two bits that flip: p(s_0) = 1/4 by symmetry, from fair coins. |z| < 4.5.
    process = InfusionProcess(first=0.1, increment=0.2)
    model = Model(flips(0.2, 0.2), Fixed(LEVELS), process, bits(0.5, 2))
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(20000, 2)
    work = heating_work(model, x, LEVELS, rng(7)).work
    assert z_score(work, math.log(4)) > LIMIT
    assert abs(z_score((-work).exp(), 0.25)) < LIMIT
