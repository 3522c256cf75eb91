"""Kernels: densities against scipy and torch.distributions, gradients, temperature, rows, randomness."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from tests.toy.statistics import normal, rng
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

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
from walkback.schedules import Level, levels_from
from walkback.state import concatenate, leaves
from walkback.temperature import VARIANCE_LAW, StandardDeviationLaw, TemperatureLaw, VarianceLaw

ROWS = 5
SHAPES = [(), (1,), (4,), (2, 3, 4)]
LAWS: list[TemperatureLaw] = [VarianceLaw(), StandardDeviationLaw()]
VARIANCE_SHAPES = [(5, 2, 3, 4), (1, 2, 3, 4), (5, 1, 1, 1), (1, 1, 1, 1), (2, 1, 1), (2, 3, 4), (4,), ()]


def positive(*shape: int, seed: int = 1) -> Tensor:
    return normal(*shape, seed=seed).exp()


def bits(*shape: int, seed: int = 2) -> Tensor:
    return (normal(*shape, seed=seed) > 0).double()


def rows_of(logs: np.ndarray) -> np.ndarray:
    """Sum over the events."""
    return logs.reshape(len(logs), -1).sum(1)


@pytest.mark.parametrize("shape", SHAPES)
def test_normal_density_is_scipys(shape: tuple[int, ...]) -> None:
    mean, variance, x = normal(ROWS, *shape), positive(ROWS, *shape), 3 * normal(ROWS, *shape, seed=3)
    ours = NormalKernel(mean, variance).log_prob(x)
    assert ours.shape == (ROWS,)
    np.testing.assert_allclose(ours, rows_of(stats.norm.logpdf(x, mean, variance.sqrt())), rtol=1e-12)


@pytest.mark.parametrize("shape", VARIANCE_SHAPES)
def test_normal_density_takes_any_variance_that_broadcasts(shape: tuple[int, ...]) -> None:
    mean, variance, x = normal(5, 2, 3, 4), positive(*shape), normal(5, 2, 3, 4, seed=3)
    expected = torch.distributions.Normal(mean, variance.sqrt()).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(NormalKernel(mean, variance).log_prob(x), expected, rtol=1e-12, atol=0)
    assert NormalKernel(mean, variance).sample(rng()).shape == mean.shape


@pytest.mark.parametrize("shape", SHAPES)
def test_bernoulli_mass_is_scipys(shape: tuple[int, ...]) -> None:
    logits, x = 3 * normal(ROWS, *shape), bits(ROWS, *shape)
    ours = BernoulliKernel(logits).log_prob(x)
    assert ours.shape == (ROWS,)
    np.testing.assert_allclose(ours, rows_of(stats.bernoulli.logpmf(x, logits.sigmoid())), rtol=1e-11)
    theirs = torch.distributions.Bernoulli(logits=logits).log_prob(x)
    torch.testing.assert_close(ours, theirs.reshape(ROWS, -1).sum(1), rtol=1e-12, atol=0)


def test_bernoulli_mass_of_the_nearly_impossible_is_exact() -> None:
    """log σ(-800) = -800: probabilities themselves would have underflowed."""
    kernel = BernoulliKernel(torch.tensor([[-800.0], [800.0], [800.0]], dtype=torch.float64))
    assert kernel.log_prob(torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64)).tolist() == [
        -800,
        -800,
        0,
    ]


def test_product_density_is_the_sum_over_leaves() -> None:
    logits, mean, variance = normal(ROWS, 3), normal(ROWS, 2, 2), positive(1, 2, 2)
    x, h = bits(ROWS, 3), normal(ROWS, 2, 2, seed=4)
    ours = ProductKernel([BernoulliKernel(logits), NormalKernel(mean, variance)]).log_prob((x, h))
    expected = stats.bernoulli.logpmf(x, logits.sigmoid()).sum(1) + rows_of(
        stats.norm.logpdf(h, mean, variance.sqrt())
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


@pytest.mark.parametrize("number", [1, 3])
def test_product_needs_one_leaf_per_kernel(number: int) -> None:
    kernel = ProductKernel(
        [BernoulliKernel(normal(ROWS, 1)), NormalKernel(normal(ROWS, 1), torch.ones(1, 1))]
    )
    with pytest.raises(ValueError, match="zip"):
        kernel.log_prob((bits(ROWS, 1),) * number)


def test_a_batch_may_be_empty() -> None:
    assert NormalKernel(normal(0, 3), positive(1, 3)).log_prob(normal(0, 3)).shape == (0,)
    assert BernoulliKernel(normal(0, 3)).log_prob(bits(0, 3)).shape == (0,)


def test_a_density_of_one_tensor_refuses_a_tuple_of_two() -> None:
    with pytest.raises(ValueError, match="unpack"):
        NormalKernel(normal(ROWS, 1), positive(1, 1)).log_prob((normal(ROWS, 1), normal(ROWS, 1)))


def differentiable(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)


LEVELS = levels_from([0.7, 3.0])
ROW_LEVELS = stack_levels(LEVELS, 2, torch.device("cpu"))
DENSITIES: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "normal": (
        lambda m, v, x: NormalKernel(m, v).log_prob(x),
        (normal(4, 3), positive(1, 3), normal(4, 3, seed=3)),
    ),
    "normal-std": (
        lambda m, v, x: normal_at(m, v, ROW_LEVELS, StandardDeviationLaw()).log_prob(x),
        (normal(4, 3), positive(4, 1), normal(4, 3, seed=3)),
    ),
    "normal-variance": (
        lambda m, v, x: normal_at(m, v, LEVELS[1]).log_prob(x),
        (normal(4, 2, 2), positive(1, 1, 1), normal(4, 2, 2, seed=3)),
    ),
    "bernoulli": (
        lambda logits, x: bernoulli_at(logits, ROW_LEVELS).log_prob(x),
        (normal(4, 3), normal(4, 3, seed=3).sigmoid()),
    ),
    "product": (
        lambda logits, m, v, x, h: ProductKernel([BernoulliKernel(logits), NormalKernel(m, v)]).log_prob(
            (x, h)
        ),
        (normal(4, 2), normal(4, 1), positive(1, 1), normal(4, 2, seed=3).sigmoid(), normal(4, 1, seed=4)),
    ),
    "stacked": (
        lambda m, v, x: StackedKernel([NormalKernel(m[:2], v), NormalKernel(m[2:], 2 * v)], 2).log_prob(x),
        (normal(4, 3), positive(1, 3), normal(4, 3, seed=3)),
    ),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_gradients_of_densities_are_numerical_ones(name: str) -> None:
    """With respect to the parameters and to the state."""
    density, inputs = DENSITIES[name]
    assert torch.autograd.gradcheck(density, differentiable(*inputs))


def test_gradcheck_would_notice_a_wrong_gradient() -> None:
    """The score of a density whose normalization is detached, a classic mistake."""

    def wrong(mean: Tensor, variance: Tensor, x: Tensor) -> Tensor:
        return (
            NormalKernel(mean, variance).log_prob(x) + 0.5 * (variance.log() - variance.detach().log()).sum()
        )

    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(wrong, differentiable(*DENSITIES["normal"][1]))


@pytest.mark.parametrize(("law", "power"), [(VarianceLaw(), 1), (StandardDeviationLaw(), 2)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 8.0])
def test_temperature_multiplies_the_variance_or_the_deviation(
    law: TemperatureLaw, power: int, temperature: float
) -> None:
    mean, variance, x = normal(ROWS, 4), positive(1, 4), normal(ROWS, 4, seed=3)
    deviation = (variance * temperature).sqrt() if power == 1 else variance.sqrt() * temperature
    ours = normal_at(mean, variance, Level(1, temperature), law).log_prob(x)
    np.testing.assert_allclose(ours, stats.norm.logpdf(x, mean, deviation).sum(1), rtol=1e-12)


def test_the_default_law_is_algorithm_1s() -> None:
    kernel = normal_at(torch.zeros(1, 1), torch.tensor([[3.0]]), Level(1, 2.0))
    assert kernel.variance.item() == 6.0
    assert isinstance(VARIANCE_LAW, VarianceLaw)


def test_appendix_f_agrees_with_doubling() -> None:
    """T_t = √(2^t) on the standard deviation equals T_t = 2^t on the variance."""
    variance = positive(1, 4)
    for t in range(30):
        roots = StandardDeviationLaw().variance(variance, Level(t, math.sqrt(2**t)))
        doubled = VarianceLaw().variance(variance, Level(t, 2.0**t))
        torch.testing.assert_close(roots, doubled, rtol=1e-14, atol=0)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 7.0])
def test_temperature_divides_the_logits(temperature: float) -> None:
    logits, x = 2 * normal(ROWS, 4), bits(ROWS, 4)
    odds = (logits.exp() ** (1 / temperature)).numpy()
    expected = stats.bernoulli.logpmf(x, odds / (1 + odds)).sum(1)
    np.testing.assert_allclose(bernoulli_at(logits, Level(1, temperature)).log_prob(x), expected, rtol=1e-11)


def test_infinite_temperature_makes_fair_coins() -> None:
    kernel = bernoulli_at(normal(ROWS, 4), Level(1, 1e12))
    torch.testing.assert_close(
        kernel.log_prob(bits(ROWS, 4)), torch.full((ROWS,), 4 * math.log(0.5)).double()
    )


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shape", [(4, 2, 4), (1, 2, 4), (4, 1, 1), (1, 1, 1), (2, 4), (4,), (2, 1), ()])
def test_rows_at_different_levels_equal_levels_one_by_one(
    law: TemperatureLaw, shape: tuple[int, ...]
) -> None:
    """For every variance that broadcasts against the mean; as many rows as last dimensions, to catch a confusion."""
    mean, x = normal(4, 2, 4), normal(4, 2, 4, seed=3)
    variance = positive(*shape)
    stacked = normal_at(mean, variance, ROW_LEVELS, law)
    for level, rows in zip(LEVELS, (slice(0, 2), slice(2, 4)), strict=True):
        own = variance[rows] if len(shape) == 3 and shape[0] == 4 else variance
        expected = normal_at(mean[rows], own, level, law)
        assert stacked.log_prob(x)[rows].equal(expected.log_prob(x[rows]))
    assert stacked.sample(rng()).shape == mean.shape


def test_bits_at_different_levels_equal_levels_one_by_one() -> None:
    logits, x = normal(4, 2, 3), bits(4, 2, 3)
    stacked = bernoulli_at(logits, ROW_LEVELS).log_prob(x)
    parts = [bernoulli_at(logits[i : i + 2], LEVELS[i // 2]).log_prob(x[i : i + 2]) for i in (0, 2)]
    assert stacked.equal(torch.cat(parts))


def product(seed: int) -> Kernel:
    return ProductKernel(
        [
            BernoulliKernel(normal(ROWS, 3, seed=seed)),
            NormalKernel(normal(ROWS, 2, seed=seed), positive(1, 2)),
        ]
    )


def test_stacked_kernel_equals_its_kernels() -> None:
    kernels = [product(seed) for seed in range(3)]
    stacked = StackedKernel(kernels, ROWS)
    parts = [kernel.sample(generator) for generator in [rng(7)] for kernel in kernels]
    together = stacked.sample(rng(7))
    assert all(a.equal(b) for a, b in zip(leaves(together), leaves(concatenate(parts)), strict=True))
    expected = torch.cat([kernel.log_prob(part) for kernel, part in zip(kernels, parts, strict=True)])
    assert stacked.log_prob(together).equal(expected)


KERNELS: dict[str, Callable[[Tensor], Kernel]] = {
    "normal": lambda weights: NormalKernel(weights, weights.square() + 1),
    "bernoulli": BernoulliKernel,
    "product": lambda weights: ProductKernel(
        [BernoulliKernel(weights), NormalKernel(weights, weights.exp())]
    ),
    "stacked": lambda weights: StackedKernel([NormalKernel(weights, weights.exp())] * 2, ROWS),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KERNELS)
def test_samples_are_detached_and_keep_the_dtype(name: str, dtype: torch.dtype) -> None:
    kernel = KERNELS[name](normal(ROWS, 3).to(dtype).requires_grad_())
    drawn = leaves(kernel.sample(rng()))
    assert not any(leaf.requires_grad for leaf in drawn)
    assert {leaf.dtype for leaf in drawn} == {dtype}
    assert kernel.log_prob(kernel.sample(rng())).requires_grad


@pytest.mark.parametrize("name", KERNELS)
def test_randomness_comes_from_the_generator_alone(name: str) -> None:
    kernel = KERNELS[name](normal(ROWS, 3))
    before = torch.get_rng_state()
    first, again, other = (leaves(kernel.sample(rng(seed))) for seed in (1, 1, 2))
    assert torch.get_rng_state().equal(before)
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not all(a.equal(b) for a, b in zip(first, other, strict=True))


def test_bits_are_zeros_and_ones() -> None:
    drawn = BernoulliKernel(normal(100, 7)).sample(rng())
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    certain = BernoulliKernel(torch.tensor([[-1e4, 1e4]])).sample(rng())
    assert certain.tolist() == [[0.0, 1.0]]
