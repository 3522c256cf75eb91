"""Densities and samples judged against each other: laws of many forms pass, wrong ones do not."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, distributions

from walkback.state import Space, State, leaves
from walkback.testing.cases import ConformanceError
from walkback.testing.laws import Law, require_normalized, require_samples

Density = Callable[[Tensor], Tensor]


def law(
    sampled: distributions.Distribution, log_prob: Density, shape: tuple[int, ...], support="real"
) -> Law:
    """A law whose samples and density are given apart from one another."""

    def sample(num: int, generator: torch.Generator) -> State:
        with torch.random.fork_rng(devices=[]):  # torch.distributions takes no generator
            torch.manual_seed(int(torch.randint(1 << 30, (), generator=generator)))
            return sampled.sample((num,)).reshape(num, *shape).float()

    return Law("law", (Space(shape, support),), sample, lambda state: log_prob(leaves(state)[0].flatten(1)))


def independent(base: distributions.Distribution) -> distributions.Distribution:
    return distributions.Independent(base, 1)


def forms(size: int) -> dict[str, distributions.Distribution]:
    """Distributions of `size` dimensions, none of them a plain Normal."""
    zeros, ones = torch.zeros(size), torch.ones(size)
    factor = torch.eye(size) + 0.5 * torch.eye(size).roll(1, 0).tril()
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(torch.tensor([0.3, 0.7])),
        independent(distributions.Normal(torch.stack([zeros - 1, zeros + 1]), 0.5)),
    )
    return {
        "narrow": independent(distributions.Normal(zeros + 100, 1e-2 * ones)),
        "uneven": independent(distributions.Normal(zeros, torch.logspace(-3, 2, size))),
        "correlated": distributions.MultivariateNormal(zeros, scale_tril=factor),
        "laplace": independent(distributions.Laplace(zeros, ones)),
        "uniform": independent(distributions.Uniform(zeros - 1, ones, validate_args=False)),
        "student": independent(distributions.StudentT(5 * ones, zeros, ones)),
        "mixture": mixture,
    }


@pytest.mark.parametrize("size", [1, 2, 8, 64])
@pytest.mark.parametrize("form", forms(1))
def test_a_law_of_any_form_passes(form, size):
    found = forms(size)[form]
    judged = law(found, found.log_prob, (size,))
    require_samples(judged)
    assert require_normalized(judged) or form not in ("narrow", "uneven")


@pytest.mark.parametrize("size", [1, 2, 8, 64])
@pytest.mark.parametrize("form", ["narrow", "uneven"])
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_wrong_constant_is_found(form, size, factor):
    found = forms(size)[form]
    with pytest.raises(ConformanceError, match="normalizing constant") as error:
        require_normalized(law(found, lambda x: found.log_prob(x) + math.log(factor), (size,)))
    integral = float(str(error.value).partition("integral is ")[2].partition(",")[0])
    assert integral == pytest.approx(factor, rel=0.15)


@pytest.mark.parametrize("size", [1, 2, 8, 64])
@pytest.mark.parametrize("form", ["narrow", "correlated", "laplace", "mixture"])
@pytest.mark.parametrize("wrong", ["wider", "narrower", "shifted"])
def test_samples_of_another_law_are_found(form, size, wrong):
    found = forms(size)[form]
    centre, deviation = found.mean, found.stddev

    def log_prob(x: Tensor) -> Tensor:
        if wrong == "shifted":
            return found.log_prob(x - deviation)
        return found.log_prob(centre + (x - centre) / {"wider": 2.0, "narrower": 0.5}[wrong])

    with pytest.raises(ConformanceError, match="expected samples of the density"):
        require_samples(law(found, log_prob, (size,)))


@pytest.mark.parametrize("shape", [(1,), (6,), (1, 8, 8)])
@pytest.mark.parametrize("rare", [False, True])
def test_bits(shape, rare):
    size = math.prod(shape)
    chance = torch.linspace(0.01, 0.05, size) if rare else torch.linspace(0.2, 0.9, size)
    bits = independent(distributions.Bernoulli(chance))
    require_samples(law(bits, bits.log_prob, shape, "binary"))
    assert require_normalized(law(bits, bits.log_prob, shape, "binary"))
    with pytest.raises(ConformanceError, match="normalizing constant"):
        require_normalized(law(bits, lambda x: bits.log_prob(x) - 0.3, shape, "binary"))
    hotter = independent(distributions.Bernoulli(logits=bits.base_dist.logits / 2))
    with pytest.raises(ConformanceError, match="expected samples of the density"):
        require_samples(law(bits, hotter.log_prob, shape, "binary"))


def test_bits_that_depend_on_one_another():
    first = distributions.Bernoulli(torch.tensor(0.5))

    def sample(num: int, generator: torch.Generator) -> State:
        bit = (torch.rand(num, 1, generator=generator) < 0.5).float()
        same = (torch.rand(num, 1, generator=generator) < 0.9).float()
        return torch.cat([bit, torch.where(same == 1, bit, 1 - bit)], dim=1)

    def together(x: State) -> Tensor:
        a, b = leaves(x)[0].unbind(1)
        return math.log(0.5) + torch.where(a == b, math.log(0.9), math.log(0.1))

    def apart(x: State) -> Tensor:
        return first.log_prob(leaves(x)[0]).sum(1)

    spaces = (Space((2,), "binary"),)
    require_samples(Law("law", spaces, sample, together))
    assert require_normalized(Law("law", spaces, sample, together))
    with pytest.raises(ConformanceError):
        require_samples(Law("law", spaces, sample, apart))
