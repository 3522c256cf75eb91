"""Priors: densities against scipy, moments of s_K against the moments of everything observed."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product as tuples
from typing import Any, final

import numpy as np
import pytest
import torch
from scipy import stats
from tests.toy.exact import bits, gaussian
from tests.toy.fitness import misfit
from tests.toy.statistics import LIMIT, normal, rng
from torch import Tensor

from walkback.configuration.schema import validate
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.kernels import Kernel
from walkback.priors import Prior, ProductPrior
from walkback.state import Space, State, StateSpace, leaves
from walkback_paper.priors import BernoulliPrior, BroadGaussianPrior, FairBitsPrior, GaussianPrior

REAL, BINARY = Space((2, 3)), Space((4,), "binary")


def reals(num: int, seed: int = 0) -> Tensor:
    return 2 * normal(num, 2, 3, seed=seed) + seed


def binaries(num: int, seed: int = 0) -> Tensor:
    return (normal(num, 4, seed=seed) > 0.3 * seed - 0.5).double()


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_gaussian_density_is_scipys(scale: float) -> None:
    prior = GaussianPrior(REAL, scale=scale).double()
    data = reals(50, 1)
    prior.fit(data)
    x = 5 * reals(7, 2)
    deviation = scale * data.numpy().std(0)
    expected = stats.norm.logpdf(x, data.numpy().mean(0), deviation).reshape(7, -1).sum(1)
    np.testing.assert_allclose(prior.log_prob(x), expected, rtol=1e-12)


def test_bernoulli_mass_is_scipys() -> None:
    prior = BernoulliPrior(BINARY).double()
    data = binaries(50)
    prior.fit(data)
    x = binaries(7, 2)
    np.testing.assert_allclose(
        prior.log_prob(x), stats.bernoulli.logpmf(x, data.numpy().mean(0)).sum(1), rtol=1e-12
    )


def test_a_bit_that_never_changed_is_unlikely_to_but_may() -> None:
    prior = BernoulliPrior(BINARY).double()
    prior.fit(torch.tensor([[0.0, 1.0, 0.0, 1.0]] * 9, dtype=torch.float64))
    surprise = prior.log_prob(torch.tensor([[1.0, 0.0, 1.0, 0.0]], dtype=torch.float64))
    assert surprise.item() == pytest.approx(4 * math.log(1e-4))


def test_a_constant_dimension_keeps_a_finite_density() -> None:
    prior = GaussianPrior(REAL)
    prior.fit(torch.ones(9, 2, 3))
    assert bool(prior.log_prob(torch.ones(1, 2, 3)).isfinite())
    prior.observe(torch.ones(9, 2, 3))
    assert bool(prior.log_prob(torch.zeros(1, 2, 3)).isfinite())


def test_before_it_observes_a_prior_has_the_moments_of_the_data() -> None:
    prior = GaussianPrior(REAL).double()
    data = reals(50, 3)
    prior.fit(data)
    np.testing.assert_allclose(prior.mean, data.numpy().mean(0), rtol=1e-13)
    np.testing.assert_allclose(prior.variance, data.numpy().var(0), rtol=1e-13)


@pytest.mark.parametrize("walks", [1, 2, 5, 10])
def test_gaussian_tracks_the_exact_moments_of_all_last_states(walks: int) -> None:
    """While 1/count is at least the momentum (count ≤ 10), and whatever the data's moments were."""
    prior = GaussianPrior(REAL, momentum=0.1).double()
    prior.fit(100 * reals(50, 9))
    batches = [reals(20, seed) for seed in range(walks)]
    for batch in batches:
        prior.observe(batch)
    everything = torch.cat(batches).numpy()
    np.testing.assert_allclose(prior.mean, everything.mean(0), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(prior.variance, everything.var(0), rtol=1e-11)


@pytest.mark.parametrize("walks", [1, 2, 5, 10])
def test_bernoulli_tracks_the_exact_means_of_all_last_states(walks: int) -> None:
    prior = BernoulliPrior(BINARY, momentum=0.1).double()
    prior.fit(1 - binaries(50, 9))
    batches = [binaries(20, seed) for seed in range(walks)]
    for batch in batches:
        prior.observe(batch)
    np.testing.assert_allclose(prior.mean, torch.cat(batches).numpy().mean(0), rtol=1e-12, atol=1e-15)


def test_later_walks_are_forgotten_exponentially() -> None:
    """After 1/momentum walks, moments are those of the mixture with weights (1-μ)^age."""
    momentum, walks = 0.25, 12
    prior = GaussianPrior(REAL, momentum=momentum).double()
    prior.fit(reals(50, 9))
    batches = [reals(20, seed) for seed in range(walks)]
    weights = np.zeros(walks)
    for count, batch in enumerate(batches, start=1):
        weight = max(1 / count, momentum)
        weights[: count - 1] *= 1 - weight
        weights[count - 1] = weight
        prior.observe(batch)
    stacked = torch.stack(batches).numpy()
    mean = (weights[:, None, None] * stacked.mean(1)).sum(0)
    second = (weights[:, None, None] * (stacked**2).mean(1)).sum(0)
    np.testing.assert_allclose(prior.mean, mean, rtol=1e-11)
    np.testing.assert_allclose(prior.variance, second - mean**2, rtol=1e-10)


@pytest.mark.parametrize(
    ("prior", "data", "seen"),
    [
        (GaussianPrior(REAL, track=False), reals(9), reals(9, 5)),
        (BernoulliPrior(BINARY, track=False), binaries(9), binaries(9, 2)),
        (BroadGaussianPrior(REAL), reals(9), reals(9, 5)),
        (FairBitsPrior(BINARY), binaries(9), binaries(9, 2)),
    ],
)
def test_a_prior_may_keep_the_moments_of_the_data(prior: Prior, data: Tensor, seen: Tensor) -> None:
    prior.double().fit(data)
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    prior.observe(seen)
    assert all(value.equal(before[name]) for name, value in prior.state_dict().items())


def test_fitting_again_starts_anew() -> None:
    prior = GaussianPrior(REAL).double()
    for seed in range(5):
        prior.observe(reals(9, seed))
    prior.fit(reals(9, 7))
    prior.observe(reals(9, 8))
    np.testing.assert_allclose(prior.mean, reals(9, 8).mean(0), rtol=1e-12)


def product() -> ProductPrior:
    return ProductPrior((BINARY, REAL), [BernoulliPrior(BINARY), GaussianPrior(REAL)]).double()


def test_a_product_prior_is_its_parts() -> None:
    whole, first, second = product(), BernoulliPrior(BINARY).double(), GaussianPrior(REAL).double()
    x, h = binaries(20), reals(20)
    whole.fit((x, h))
    first.fit(x)
    second.fit(h)
    for part, batch in ((first, binaries(20, 1)), (second, reals(20, 1))):
        part.observe(batch)
    whole.observe((binaries(20, 1), reals(20, 1)))
    assert whole.log_prob((x, h)).equal(first.log_prob(x) + second.log_prob(h))
    generator = rng(3)
    expected = [leaves(part.sample(5, generator))[0] for part in (first, second)]
    assert all(a.equal(b) for a, b in zip(leaves(whole.sample(5, rng(3))), expected, strict=True))


def test_a_product_prior_needs_one_part_per_leaf() -> None:
    with pytest.raises(ValueError, match="one per leaf: 2"):
        ProductPrior((BINARY, REAL), [BernoulliPrior(BINARY)])


@pytest.mark.parametrize(
    "make", [lambda: GaussianPrior(REAL, momentum=0.5), lambda: BroadGaussianPrior(REAL, scale=2.0), product]
)
def test_state_dicts_carry_everything(make: Callable[[], Prior]) -> None:
    """A restored prior has the same density, and weighs the next walk the same."""
    trained, restored = make().double(), make().double()
    states = [
        (binaries(9, s % 3), reals(9, s)) if isinstance(trained, ProductPrior) else reals(9, s)
        for s in range(5)
    ]
    trained.fit(states[0])
    for state in states[1:4]:
        trained.observe(state)
    restored.load_state_dict(trained.state_dict())
    for prior in (trained, restored):
        prior.observe(states[4])
    assert restored.log_prob(states[0]).equal(trained.log_prob(states[0]))
    assert not list(trained.parameters())


@pytest.mark.parametrize(
    ("cls", "space"),
    [
        (GaussianPrior, BINARY),
        (GaussianPrior, (REAL, REAL)),
        (BernoulliPrior, REAL),
        (BernoulliPrior, (BINARY,)),
        (BroadGaussianPrior, BINARY),
        (BroadGaussianPrior, (REAL, REAL)),
        (FairBitsPrior, REAL),
        (FairBitsPrior, (BINARY,)),
    ],
)
def test_a_prior_refuses_states_of_another_kind(cls: type[GaussianPrior], space: StateSpace) -> None:
    with pytest.raises(ConfigurationError, match="choose another prior"):
        cls(space)


@pytest.mark.parametrize(
    "prior",
    [
        gaussian(normal(2), normal(2, seed=1).exp()),
        bits(0.3, 4),
        BroadGaussianPrior(REAL).double(),
        FairBitsPrior(BINARY).double(),
    ],
)
def test_samples_depend_on_the_generator_alone(prior: Prior) -> None:
    before = torch.get_rng_state()
    first, again, other = (leaves(prior.sample(6, rng(seed)))[0] for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)
    assert first.dtype == torch.float64
    assert torch.get_rng_state().equal(before)


def correlated(num: int, seed: int = 0) -> Tensor:
    """Data whose widest direction is no axis: variance 9 along (1, 1)/√2, 1 across, 0.25 in other dimensions."""
    wide, narrow = 3 * normal(num, seed=seed), normal(num, seed=seed + 50)
    plane = torch.stack([wide + narrow, wide - narrow], 1) / math.sqrt(2)
    return 7 + torch.cat([plane, 0.5 * normal(num, 4, seed=seed + 99)], 1).reshape(num, 2, 3)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_broad_gaussian_is_as_wide_everywhere_as_the_data_in_their_widest_direction(scale: float) -> None:
    prior = BroadGaussianPrior(REAL, scale=scale).double()
    data = correlated(400)
    prior.fit(data)
    rows = data.numpy().reshape(400, -1)
    widest = float(np.linalg.eigvalsh(np.cov(rows.T, bias=True))[-1])
    assert widest > 1.5 * rows.var(0).max()
    x = 5 * reals(7, 2)
    expected = stats.norm.logpdf(x.numpy().reshape(7, -1), rows.mean(0), scale * math.sqrt(widest)).sum(1)
    np.testing.assert_allclose(prior.log_prob(x), expected, rtol=1e-12)


def test_the_broad_gaussian_may_be_given_its_width() -> None:
    prior = BroadGaussianPrior(REAL, std=4.0, scale=1.5).double()
    x = reals(7, 2)
    np.testing.assert_allclose(
        prior.log_prob(x), stats.norm.logpdf(x, 0.0, 6.0).reshape(7, -1).sum(1), rtol=1e-12
    )
    prior.fit(correlated(400))
    mean = correlated(400).numpy().mean(0)
    np.testing.assert_allclose(
        prior.log_prob(x), stats.norm.logpdf(x, mean, 6.0).reshape(7, -1).sum(1), rtol=1e-12
    )


def test_the_broad_gaussian_of_constant_data_has_a_finite_density() -> None:
    prior = BroadGaussianPrior(REAL)
    prior.fit(torch.ones(9, 2, 3))
    assert bool(prior.log_prob(torch.zeros(1, 2, 3)).isfinite())


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_fair_bits_by_hand_and_by_enumeration(probability: float) -> None:
    """p^ones (1 - p)^zeros, and the 16 states of four bits have mass 1, whatever the data were."""
    prior = FairBitsPrior(BINARY, probability=probability).double()
    prior.fit(torch.ones(9, 4, dtype=torch.float64))
    prior.observe(torch.ones(9, 4, dtype=torch.float64))
    every = torch.tensor(list(tuples([0.0, 1.0], repeat=4)), dtype=torch.float64)
    mass = prior.log_prob(every).exp()
    ones = every.sum(1)
    # The option reaches the logits in single precision.
    np.testing.assert_allclose(mass, probability**ones * (1 - probability) ** (4 - ones), rtol=1e-6)
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("size", [1, 2])
def test_the_broad_gaussian_integrates_to_one(size: int) -> None:
    prior = BroadGaussianPrior(Space((size,)), scale=0.7).double()
    prior.fit(1 + 3 * normal(50, size))
    axis = torch.linspace(-25, 25, 1001, dtype=torch.float64)
    mesh = torch.cartesian_prod(*[axis] * size).reshape(-1, size)
    assert (prior.log_prob(mesh).exp().sum() * 0.05**size).item() == pytest.approx(1.0, abs=1e-9)


@final
class Drawn(Kernel):
    """`num` draws of a prior as a kernel."""

    def __init__(self, prior: Prior, num: int) -> None:
        self._prior = prior
        self._num = num

    def sample(self, generator: torch.Generator) -> State:
        return self._prior.sample(self._num, generator)

    def log_prob(self, state: State) -> Tensor:
        return self._prior.log_prob(state)


@pytest.mark.parametrize(
    ("prior", "data"),
    [
        (BroadGaussianPrior(REAL, scale=2.0), correlated(40)),
        (BroadGaussianPrior(REAL, std=0.1), correlated(40)),
        (FairBitsPrior(BINARY), binaries(9)),
        (FairBitsPrior(BINARY, probability=0.03), binaries(9)),
    ],
    ids=["broad", "given", "fair", "biased"],
)
def test_samples_follow_the_density(prior: Prior, data: Tensor) -> None:
    prior.double().fit(data)
    assert misfit(lambda num: Drawn(prior, num), prior.space) < LIMIT


@pytest.mark.parametrize(
    ("name", "space", "options"),
    [
        ("broad-gaussian", REAL, {"std": 2, "scale": 1.5}),
        ("fair-bits", BINARY, {"probability": 0.25}),
    ],
)
def test_priors_that_stay_are_offered_by_name(name: str, space: Space, options: dict[str, Any]) -> None:
    registry = Registry.discover()
    cls = registry.load(registry.find("prior", name))
    prior = cls(space, **validate("prior", cls, options))
    assert isinstance(prior, Prior)
    assert leaves(prior.sample(3, rng()))[0].shape == (3, *space.shape)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (BroadGaussianPrior, {"std": 0.0}),
        (BroadGaussianPrior, {"scale": -1.0}),
        (FairBitsPrior, {"probability": 1.0}),
        (FairBitsPrior, {"probability": 0.0}),
    ],
)
def test_impossible_options_are_refused(cls: type, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        validate("prior", cls, options)
