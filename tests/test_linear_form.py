"""The Gaussian operator around the linear one: on Gaussian data, untrained, it is exact.

With the moments given, every path of the untrained operator has the weight p(x): the bound is the log-density of the
Gaussian, whatever is drawn, so it is compared without a statistical error. Reference densities are torch's
MultivariateNormal in float64; the cosine transform is SciPy's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from tests.toy.statistics import LIMIT
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.levels import stack_levels
from walkback.processes import TiedProcess
from walkback.schedules import Level, levels_from
from walkback.state import Space, leaves
from walkback.support.constraints import violation
from walkback.temperature import StandardDeviationLaw
from walkback.testing import Case, checks
from walkback.walk import Start, walk
from walkback_networks.mlp import MLP
from walkback_paper.bases import BasisName, RotatedNormalKernel, basis, fit
from walkback_paper.gaussian import Gaussian
from walkback_paper.linear import LinearGaussian
from walkback_paper.mixtures import MixtureKernel
from walkback_paper.priors import GaussianPrior

BASES: tuple[BasisName, ...] = ("pixels", "eigenvectors", "cosine", "auto")
SHAPES = [(6,), (3, 4), (3, 2, 2), (2, 3, 2, 2)]
SIGMA = 0.1
VARIANCES = torch.tensor([1e-4, 0.004, 0.02, 0.5, 3.0, 40.0], dtype=torch.float64)
MEAN = torch.linspace(-3, 5, 6, dtype=torch.float64)

every_basis = pytest.mark.parametrize("name", BASES)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact_operator(**options: Any) -> tuple[Gaussian, Tensor]:
    """An untrained operator, float64, that knows the true moments, and the true covariance."""
    operator = Gaussian(
        Space((6,)), MLP(hidden=4, depth=1), mean="linear", basis="eigenvectors", sigma=SIGMA, **options
    ).double()
    linear = operator.parametrization
    assert isinstance(linear, LinearGaussian)
    vectors = torch.linalg.qr(torch.randn(6, 6, generator=rng(1), dtype=torch.float64))[0]
    linear.basis.get_buffer("vectors").copy_(vectors)
    linear.data_mean.copy_(MEAN)
    linear.variances.copy_(VARIANCES)
    linear.max_variance.copy_(VARIANCES.max())
    return operator, vectors @ VARIANCES.diag() @ vectors.T


def schedule(factor: float, further: int, top: float) -> list[float]:
    temperatures = [1.0] * (further + 1)
    while temperatures[-1] < top:
        temperatures.append(temperatures[-1] * factor)
    return temperatures


@pytest.mark.parametrize("top", [4000.0, 30.0], ids=["forgets-all", "ends-early"])
@pytest.mark.parametrize("factor", [1.3, 2.0])
@pytest.mark.parametrize("further", [0, 3])
def test_every_path_of_the_untrained_operator_has_the_density_of_the_gaussian(
    factor: float, further: int, top: float
) -> None:
    operator, covariance = exact_operator()
    law = MultivariateNormal(MEAN, covariance)
    torch.manual_seed(2)
    levels = levels_from(schedule(factor, further, top))
    prior = GaussianPrior(Space((6,)), basis="eigenvectors").double()
    prior.basis.load_state_dict(operator.parametrization.basis.state_dict())
    prior.mean.copy_(MEAN)
    noise = operator.parametrization.noise(levels[-1]).item()
    prior.variance.copy_(VARIANCES.clamp(min=noise))
    x = law.sample((50,))
    works = torch.zeros(50, dtype=torch.float64)
    with torch.no_grad():
        for transition in walk(operator, TiedProcess().heating, Start(x), levels, rng(3)):
            works += transition.log_p - transition.log_q
        works += prior.log_prob(transition.target)
    torch.testing.assert_close(works, law.log_prob(x), rtol=0, atol=1e-9)


def test_the_chain_at_temperature_one_leaves_the_gaussian_as_it_is() -> None:
    operator, covariance = exact_operator()
    kernel = operator(torch.eye(6, dtype=torch.float64), Level(1, 1.0)).cooling(Level(1, 1.0))
    offset = operator(MEAN[None], Level(1, 1.0)).cooling(Level(1, 1.0)).mean.detach() - MEAN
    origin = operator(torch.zeros(1, 6, dtype=torch.float64), Level(1, 1.0)).cooling(Level(1, 1.0)).mean
    slope = (kernel.mean - origin).detach()
    vectors = operator.parametrization.basis.get_buffer("vectors")
    noise = vectors @ kernel.variance[0].detach().diag() @ vectors.T
    torch.testing.assert_close(slope.T @ covariance @ slope + noise, covariance, rtol=0, atol=1e-9)
    torch.testing.assert_close(offset, torch.zeros_like(offset), rtol=0, atol=1e-12)


def test_the_second_step_at_temperature_one_has_its_own_variance() -> None:
    linear = exact_operator()[0].parametrization
    first, second, third = levels_from([1.0, 1.0, 2.0])
    noise = linear.noise_variance.item()
    expected = {
        first: [1e-4, 0.004, noise, noise, noise, noise],
        second: [noise] * 6,
        third: [noise, noise, 0.02, 2 * noise, 2 * noise, 2 * noise],
    }
    for level, variances in expected.items():
        found = linear.cooling_variance(level)[0]
        torch.testing.assert_close(found, torch.tensor(variances, dtype=torch.float64))
    stacked = linear.cooling_variance(stack_levels((first, second, third), 1, torch.device("cpu")))
    torch.testing.assert_close(stacked, torch.tensor(list(expected.values()), dtype=torch.float64))


def test_the_standard_deviation_law_is_as_exact() -> None:
    operator, covariance = exact_operator(temperature_law=StandardDeviationLaw())
    law = MultivariateNormal(MEAN, covariance)
    torch.manual_seed(2)
    x = law.sample((20,))
    levels = levels_from([1.0, 1.0, 1.5, 4.0, 20.0, 70.0])
    with torch.no_grad():
        steps = list(walk(operator, TiedProcess().heating, Start(x), levels, rng(3)))
    noise = operator.parametrization.noise(levels[-1]).item()
    last = MultivariateNormal(MEAN, noise * torch.eye(6, dtype=torch.float64)).log_prob(steps[-1].target)
    found = last + sum(step.log_p - step.log_q for step in steps)
    torch.testing.assert_close(found, law.log_prob(x), rtol=0, atol=1e-9)


@every_basis
@pytest.mark.parametrize("check", list(checks("operator", {})))
def test_the_operator_keeps_the_laws_of_operators(name: BasisName, check: Callable[[Case], None]) -> None:
    options = {"mean": "linear", "basis": name, "network": {"hidden": 8, "depth": 1}}
    spaces = (Space((2,)), Space((1, 8, 8)))
    check(Case.of("gaussian", options, spaces=spaces, registry=registry()))


@every_basis
@pytest.mark.parametrize("check", list(checks("prior", {})))
def test_the_prior_keeps_the_laws_of_priors(name: BasisName, check: Callable[[Case], None]) -> None:
    check(Case.of("gaussian", {"basis": name}, registry=registry()))


@pytest.mark.parametrize("check", list(checks("operator", {})))
def test_an_operator_with_a_mixture_keeps_the_laws_of_operators(check: Callable[[Case], None]) -> None:
    options = {"mean": "linear", "basis": "auto", "mixture": 3, "network": {"hidden": 8, "depth": 1}}
    check(Case.of("gaussian", options, spaces=(Space((2,)), Space((1, 4, 4))), registry=registry()))


@cache
def registry() -> Registry:
    return Registry.discover(enabled=False)


@every_basis
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bases_are_orthonormal(name: BasisName, shape: tuple[int, ...]) -> None:
    chosen = basis(name, shape).double()
    data = torch.randn(200, *shape, generator=rng(0), dtype=torch.float64).cumsum(1)
    fit(chosen, data)
    found = chosen.coordinates(data)
    assert found.shape == data.shape
    torch.testing.assert_close(chosen.event(found), data, rtol=0, atol=1e-6)
    gram = found.flatten(1) @ found.flatten(1).T
    torch.testing.assert_close(gram, data.flatten(1) @ data.flatten(1).T, rtol=1e-6, atol=1e-4)
    assert violation(chosen) is None


def test_cosines_are_those_of_scipy_after_the_channels_were_made_uncorrelated() -> None:
    data = torch.randn(50, 3, 4, 5, generator=rng(0), dtype=torch.float64)
    data[:, 1] += 0.8 * data[:, 0]
    chosen = basis("cosine", (3, 4, 5)).double()
    chosen.fit(data)
    turned = np.einsum("nchw,cd->ndhw", data.numpy(), chosen.get_buffer("rotation").numpy())
    between = np.einsum("nchw,ndhw->cd", turned, turned)
    assert np.abs(between - np.diag(between.diagonal())).max() < 1e-4
    expected = scipy.fft.dctn(turned, axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(chosen.coordinates(data).numpy(), expected, atol=1e-5)


def test_variances_of_few_examples_are_those_of_examples_that_did_not_choose_the_directions() -> None:
    """The trace is kept, and held-out examples are likelier than under the sample covariance."""
    law = MultivariateNormal(
        torch.zeros(30, dtype=torch.float64), torch.linspace(0.01, 4, 30, dtype=torch.float64).diag()
    )
    torch.manual_seed(0)
    data, held_out = law.sample((60,)), law.sample((2000,))
    chosen = basis("eigenvectors", (30,)).double()
    mean, variances = fit(chosen, data)
    torch.testing.assert_close(variances.sum(), (data - data.mean(0)).square().mean(0).sum())
    sampled = chosen.coordinates(data - mean).square().mean(0)

    def nll(of: Tensor) -> Tensor:
        return 0.5 * (chosen.coordinates(held_out - mean).square() / of + of.log()).sum(1).mean()

    assert nll(variances) < nll(sampled) - 1


@every_basis
def test_the_kernel_is_the_multivariate_normal(name: BasisName) -> None:
    chosen = basis(name, (2, 3)).double()
    data = torch.randn(100, 6, generator=rng(0), dtype=torch.float64).cumsum(1).reshape(-1, 2, 3)
    _, variances = fit(chosen, data)
    matrix = chosen.coordinates(torch.eye(6, dtype=torch.float64).reshape(6, 2, 3)).flatten(1)
    covariance = matrix @ variances.flatten().diag() @ matrix.T
    mean = data[:4]
    kernel = RotatedNormalKernel(mean, variances[None], chosen)
    reference = MultivariateNormal(mean.flatten(1), covariance)
    torch.testing.assert_close(
        kernel.log_prob(data[4:8]), reference.log_prob(data[4:8].flatten(1)), rtol=1e-6, atol=1e-6
    )
    many = RotatedNormalKernel(mean[:1].expand(20_000, 2, 3), variances[None], chosen)
    (drawn,) = leaves(many.sample(rng(5)))
    centred = (drawn - mean[:1]).flatten(1)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), centred.T, upper=False)
    moments = (white @ white.T) / 20_000 - torch.eye(6, dtype=torch.float64)
    errors = torch.full((6, 6), 20_000**-0.5, dtype=torch.float64) * (1 + torch.eye(6)) ** 0.5
    assert (moments / errors).abs().max() < LIMIT
    torch.testing.assert_close(many.transport(many.noise(rng(5))), drawn, rtol=0, atol=0)


def test_the_mixture_kernel_is_the_mixture_of_multivariate_normals() -> None:
    chosen = basis("eigenvectors", (3,)).double()
    fit(chosen, torch.randn(50, 3, generator=rng(0), dtype=torch.float64).cumsum(1))
    vectors = chosen.get_buffer("vectors")
    means = 3 * torch.randn(2, 4, 3, generator=rng(1), dtype=torch.float64)
    variances = torch.rand(2, 4, 3, generator=rng(2), dtype=torch.float64) + 0.1
    weights = torch.rand(2, 4, generator=rng(3), dtype=torch.float64).log_softmax(0)
    origin = torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64)
    kernel = MixtureKernel(means, variances, weights, origin, chosen)
    reference = MixtureSameFamily(
        Categorical(logits=weights.T),
        MultivariateNormal(
            (origin + means @ vectors.T).transpose(0, 1),
            (vectors @ torch.diag_embed(variances) @ vectors.T).transpose(0, 1),
        ),
    )
    x = origin + 3 * torch.randn(4, 3, generator=rng(4), dtype=torch.float64)
    torch.testing.assert_close(kernel.log_prob(x), reference.log_prob(x))
    torch.testing.assert_close(kernel.expectation(), reference.mean)
    rows = [0] * 20_000
    many = MixtureKernel(means[:, rows], variances[:, rows], weights[:, rows], origin, chosen)
    drawn = many.sample(rng(5))
    for power in (1, 2):
        of = drawn if power == 1 else drawn.square()
        exact = reference.mean[0] if power == 1 else reference.variance[0] + reference.mean[0].square()
        errors = (of.mean(0) - exact) / (of.std(0) / len(rows) ** 0.5)
        assert errors.abs().max() < LIMIT


def test_an_untrained_mixture_has_nearly_the_density_of_the_gaussian() -> None:
    operator, covariance = exact_operator(mixture=4)
    law = MultivariateNormal(MEAN, covariance)
    torch.manual_seed(2)
    x = law.sample((200,))
    levels = levels_from(schedule(2.0, 1, 4000.0))
    with torch.no_grad():
        steps = list(walk(operator, TiedProcess().heating, Start(x), levels, rng(3)))
    noise = operator.parametrization.noise(levels[-1]).item()
    last = MultivariateNormal(MEAN, noise * torch.eye(6, dtype=torch.float64)).log_prob(steps[-1].target)
    found = last + sum(step.log_p - step.log_q for step in steps)
    # The parts are 0.02 √min(v, λ) apart, so they lose about 0.02⁴ nats a level and direction.
    assert (found - law.log_prob(x)).mean().abs() < 1e-3
    torch.testing.assert_close(found, law.log_prob(x), rtol=0, atol=0.02)


def test_the_mean_that_is_known_is_that_of_the_step_and_what_is_learned_that_of_the_state() -> None:
    operator, _ = exact_operator()
    for head in operator.network.heads:
        torch.nn.init.normal_(head.weight, generator=rng(0))
    state = MEAN + torch.randn(5, 6, generator=rng(1), dtype=torch.float64)
    at, other = Level(2, 2.0), Level(3, 16.0)
    linear = operator.parametrization
    conditional = operator(state, at)
    z = linear.basis.coordinates(state - linear.data_mean)
    known = {level: linear.event(linear.share(level) * z) for level in (at, other)}
    added = conditional.cooling(at).mean - known[at]
    assert added.abs().max() > 1e-3
    torch.testing.assert_close(conditional.heating(other).mean, known[other] + added)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mean": "linear", "variance": "tied"},
            r"operator\.variance = 'tied' with operator\.mean = 'linear'",
        ),
        ({"mean": "linear", "learn_alpha": True}, r"only the mixing form"),
        ({"mixture": 2}, r"operator\.mixture = 2 has no effect on operator\.mean = 'preconditioned'"),
        (
            {"basis": "cosine"},
            r"operator\.basis = 'cosine' has no effect on operator\.mean = 'preconditioned'",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Gaussian(Space((6,)), MLP(hidden=4, depth=1), **options)


def test_eigenvectors_of_large_events_are_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="at most 1,024 dimensions, and a state has 3,072: choose 'cosine'"
    ):
        GaussianPrior(Space((3, 32, 32)), basis="eigenvectors")


def test_directions_that_are_not_orthonormal_are_out_of_range() -> None:
    chosen = basis("eigenvectors", (3,))
    chosen.get_buffer("vectors").mul_(1.1)
    assert violation(chosen) is not None


def test_one_example_can_be_fitted() -> None:
    mean, variances = fit(basis("eigenvectors", (3,)), torch.ones(1, 3))
    assert mean.equal(torch.ones(3))
    assert bool((variances > 0).all())
