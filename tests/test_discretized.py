"""Normal distributions of gray levels: masses against other libraries, samples, gradients, rows and bits/dim."""

from __future__ import annotations

import math

import mpmath  # type: ignore[import-untyped]
import pytest
import torch
from scipy import stats
from tests.toy.statistics import LIMIT, rng
from torch import Tensor

import walkback as wb
from walkback.errors import ConfigurationError
from walkback.kernels import DiscretizedKernel, NormalKernel, discretized_at
from walkback.levels import stack_levels
from walkback.schedules import levels_from
from walkback.state import Space
from walkback.support.seeding import lent_seed
from walkback_networks.mlp import MLP
from walkback_paper.gaussian import Gaussian

(FIRST, SECOND) = levels_from([1.0, 2.0])


def kernel(
    mean: float, deviation: float, levels: int, dtype: torch.dtype = torch.float32
) -> DiscretizedKernel:
    """One dimension of every level, a row each."""
    means = torch.full((levels, 1), mean, dtype=dtype)
    made = discretized_at(NormalKernel(means, torch.tensor([[deviation**2]], dtype=dtype)), levels, FIRST)
    assert isinstance(made, DiscretizedKernel)
    return made


def middles(levels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return ((torch.arange(levels, dtype=torch.float64) + 0.5) / levels).to(dtype)[:, None]


def exact(level: int, mean: float, deviation: float, levels: int) -> float:
    """log P(level) with 60 digits."""
    with mpmath.workdps(60):

        def edge(k: int) -> mpmath.mpf:
            return (mpmath.mpf(k) / levels - mpmath.mpf(mean)) / mpmath.mpf(deviation)

        def tail(x: mpmath.mpf) -> mpmath.mpf:
            return mpmath.erfc(x / mpmath.sqrt(2)) / 2

        lower, upper = edge(level), edge(level + 1)
        if level == 0:
            return float(mpmath.log(tail(-upper)))
        if level == levels - 1:
            return float(mpmath.log(tail(lower)))
        if lower + upper < 0:
            lower, upper = -upper, -lower
        return float(mpmath.log(tail(lower) - tail(upper)))


@pytest.mark.parametrize("mean", [-0.5, 0.0, 0.123, 0.5, 0.99, 1.5])
@pytest.mark.parametrize("deviation", [1e-3, 0.01, 0.1, 3.0])
def test_masses_agree_with_exact_ones_from_the_middle_to_far_tails(mean: float, deviation: float) -> None:
    # In single precision the error is that of the edges: a relative error ε of one changes log P by up to 2 ε edge².
    mean, deviation = torch.tensor(mean).item(), torch.tensor(deviation**2).sqrt().item()
    found = kernel(mean, deviation, 17).log_prob(middles(17)) - math.log(17)
    double = kernel(mean, deviation, 17, torch.float64).log_prob(middles(17, torch.float64)) - math.log(17)
    for level in range(17):
        wanted = exact(level, mean, deviation, 17)
        assert double[level].item() == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        assert found[level].item() == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_masses_sum_to_one_and_the_density_is_that_of_dequantized_levels() -> None:
    for mean, deviation in ((0.4, 0.03), (1.2, 0.5), (-3.0, 0.2)):
        made = kernel(mean, deviation, 256, torch.float64)
        log_prob = made.log_prob(middles(256, torch.float64))
        assert (log_prob - math.log(256)).exp().sum().item() == pytest.approx(1, rel=1e-12)
        for place in (0.01, 0.3, 0.99):
            within = (torch.arange(256, dtype=torch.float64)[:, None] + place) / 256
            torch.testing.assert_close(made.log_prob(within), log_prob)
    made = kernel(0.4, 0.03, 4)
    assert made.log_prob(torch.tensor([[-0.1], [1.1], [0.0], [1.0]])).isfinite().tolist() == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(("mean", "deviation"), [(0.4, 0.2), (0.95, 0.1), (-0.3, 0.5)])
def test_samples_follow_the_masses_and_are_uniform_within(mean: float, deviation: float) -> None:
    # A chi-squared test of 5 x 4 cells, p < 1e-6, on three laws.
    num, levels = 20000, 5
    means = torch.full((num, 1), mean)
    made = discretized_at(NormalKernel(means, torch.tensor([[deviation**2]])), levels, FIRST)
    assert isinstance(made, DiscretizedKernel)
    drawn = made.sample(rng(1))[:, 0] * levels
    cells = torch.bincount((drawn * 4).long(), minlength=20).double().reshape(levels, 4)
    masses = (kernel(mean, deviation, levels).log_prob(middles(levels)).double() - math.log(levels)).exp()
    wanted = (masses / masses.sum() / 4)[:, None].expand(levels, 4) * num
    assert stats.chisquare(cells.flatten().numpy(), wanted.flatten().numpy()).pvalue > 1e-6
    error = drawn.std() / levels / math.sqrt(num)
    assert abs(drawn.mean() / levels - made.expectation()[0, 0]) / error < LIMIT


def test_gradients_agree_with_differences_and_are_finite_everywhere() -> None:
    mean = torch.linspace(-0.4, 1.4, 9, dtype=torch.float64).expand(6, 9).clone().requires_grad_()
    spread = torch.full((6, 9), 0.05, dtype=torch.float64, requires_grad=True)
    x = middles(6, torch.float64).expand(6, 9)

    def log_prob(mean: Tensor, spread: Tensor) -> Tensor:
        return discretized_at(NormalKernel(mean, spread.square()), 6, FIRST).log_prob(x)

    assert torch.autograd.gradcheck(log_prob, (mean, spread))
    for deviation in (1e-8, 1e-3, 1e4):
        means = torch.full((6, 1), 0.7, requires_grad=True)
        made = discretized_at(NormalKernel(means, torch.full((6, 1), deviation**2)), 6, FIRST)
        (gradient,) = torch.autograd.grad(made.log_prob(middles(6)).sum(), means)
        assert gradient.isfinite().all()


def gray(last: str, **options: object) -> Gaussian:
    with lent_seed(1):
        made = Gaussian(Space((3,), bins=16), MLP(hidden=8, depth=1), last=last, **options)  # type: ignore[arg-type]
    made.fit_data(torch.rand(200, 3, generator=rng(2)))
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=rng(3)))
    return made.eval()


@pytest.mark.parametrize(
    "options",
    [
        {"mean": "epsilon", "variance": "range"},
        {"mean": "preconditioned", "variance": "reverse"},
        {"mean": "mix", "variance": "tied"},
    ],
    ids=lambda options: options["mean"],
)
def test_only_rows_at_the_first_level_are_discretized(options: dict[str, object]) -> None:
    x = torch.rand(2, 3, generator=rng(4))
    numbers, levels = gray("normal", **options), gray("discretized", **options)
    assert isinstance(levels(x, SECOND).cooling(SECOND), NormalKernel)
    normal = numbers(x, FIRST).cooling(FIRST)
    assert isinstance(normal, NormalKernel)
    alone = levels(x, FIRST).cooling(FIRST)
    wanted = discretized_at(normal, 16, FIRST).log_prob(x)
    torch.testing.assert_close(alone.log_prob(x), wanted)
    both, states = stack_levels((FIRST, SECOND), 2, torch.device("cpu")), torch.cat([x, x])
    mixed = levels(states, both).cooling(both)
    second = numbers(x, SECOND).cooling(SECOND).log_prob(x)
    torch.testing.assert_close(mixed.log_prob(states), torch.cat([wanted, second]))
    sample = mixed.sample(rng(5))
    assert isinstance(sample, Tensor)
    assert ((sample[:2] >= 0) & (sample[:2] <= 1)).all()
    loss = -mixed.log_prob(states).sum()
    torch.autograd.backward(loss)
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in levels.parameters())


def test_data_and_means_without_gray_levels_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="data without gray levels"):
        Gaussian(Space((3,)), MLP(), last="discretized")
    with pytest.raises(ConfigurationError, match=r"operator\.mean = 'linear'"):
        Gaussian(Space((3,), bins=4), MLP(), last="discretized", mean="linear")


def test_a_discretized_last_step_learns_from_the_bound() -> None:
    """A short training with the weight `bound` lowers the bound, in bits/dim of gray levels."""
    settings = {
        "operator.last": "discretized",
        "operator.variance": "range",
        "operator.network.hidden": 32,
        "objective.weight": "bound",
        "schedule.betas": [0.01, 0.05, 0.1, 0.2, 0.4, 0.6],
        "operator.sigma_share": math.sqrt(-math.log(0.99)),
        "training.lr": 0.01,
        "training.validation_examples": 10,
        "evaluation.limit": 10,
    }
    bounds = []
    for steps in (1, 25):
        model = wb.train("ddpm-mlp", data="digits", steps=steps, settings=settings, progress=False)
        report = wb.evaluate(model, limit=40, paths=1, simulated=0, baselines=False, progress=False)
        bounds.append(report["bound_bits"].value)
    assert all(map(math.isfinite, bounds))
    assert bounds[1] < bounds[0] - 1
