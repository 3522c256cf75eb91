"""The kernel against counting, the data's law against all 4,096 sequences, and what is learned against both."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from walkback_categorical.kernel import CategoricalKernel, categorical_at, decode, encode
from walkback_categorical.potts import PottsChain

from walkback.configuration.layering import resolve
from walkback.data import Batch
from walkback.extensions.registry import Registry
from walkback.measuring.bound import estimate_bound
from walkback.model import Model
from walkback.sampling import anneal, chain, last
from walkback.schedules import Level
from walkback.state import Space, leaves
from walkback.testing import Case, Check, checks
from walkback.training.preparation import prepare
from walkback.training.trainer import Trainer

J, FIELD, LIMIT = 1.5, 0.3, 4.5


SPACES = (Space((3, 2), "binary"), Space((4, 1), "binary"))


OPERATOR = Case.of("categorical-mlp", {"hidden": 16}, spaces=SPACES)
PRIOR, DATA = Case.of("categorical", spaces=SPACES), Case.of("potts", {"num": 1000, "num_held_out": 200})


@pytest.mark.parametrize("check", checks("operator"), ids=str)
def test_the_operator_conforms(check: Check) -> None:
    check(OPERATOR)


@pytest.mark.parametrize("check", checks("prior"), ids=str)
def test_the_prior_conforms(check: Check) -> None:
    check(PRIOR)


@pytest.mark.parametrize("check", checks("dataset"), ids=str)
def test_the_data_conform(check: Check) -> None:
    check(DATA)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_sequence(places: int, symbols: int) -> Tensor:
    """All of them, numbers `(S^L, L)`."""
    return torch.tensor(list(itertools.product(range(symbols), repeat=places)))


def brute_force() -> tuple[Tensor, Tensor]:
    """All sequences of 6 spins of 4 states, and their probabilities from the definition alone."""
    codes = every_sequence(6, 4)
    energy = J * (codes[:, 1:] == codes[:, :-1]).double().sum(1) + FIELD * codes.double().sum(1)
    return codes, energy.softmax(0)


def test_symbols_survive_their_bits() -> None:
    assert decode(encode(every_sequence(2, 8), 3)).equal(every_sequence(2, 8))


def test_the_kernel_is_normalized_and_draws_what_it_scores() -> None:
    """Over all 64 states: Σ p = 1, and counts of 50,000 draws fit p (each |z| < 4.5)."""
    logits = torch.randn(1, 3, 4, generator=rng(1), dtype=torch.float64)
    states = encode(every_sequence(3, 4), 2)
    probability = categorical_at(logits.expand(64, 3, 4), Level(1, 2.0)).log_prob(states).exp()
    assert probability.sum().item() == pytest.approx(1, abs=1e-12)
    num = 50_000
    draws = categorical_at(logits.expand(num, 3, 4), Level(1, 2.0)).sample(rng())
    counts = (decode(draws) @ torch.tensor([16, 4, 1])).bincount(minlength=64)
    z = (counts - num * probability) / (num * probability * (1 - probability)).sqrt()
    assert z.abs().max() < LIMIT


def test_temperature_divides_logits() -> None:
    """Two symbols at log-odds 3: at T = 3 the odds are e."""
    kernel = categorical_at(torch.tensor([[[3.0, 0.0]]]), Level(1, 3.0))
    odds = kernel.log_prob(torch.tensor([[[0.0]]])) - kernel.log_prob(torch.tensor([[[1.0]]]))
    assert odds.item() == pytest.approx(1.0)


def test_gradients_reach_the_logits() -> None:
    """∂ log p / ∂ logits = one-hot - softmax."""
    logits = torch.randn(2, 3, 4, generator=rng(), dtype=torch.float64, requires_grad=True)
    x = CategoricalKernel(logits).sample(rng(1))
    (gradient,) = torch.autograd.grad(CategoricalKernel(logits).log_prob(x).sum(), logits)
    torch.testing.assert_close(gradient, one_hot(decode(x), 4) - logits.detach().softmax(-1))


def test_the_data_have_the_law_that_they_say() -> None:
    """log p by messages is that of the definition; neighbours in 20,000 draws fit it (each |z| < 4.5)."""
    codes, probability = brute_force()
    data = PottsChain(coupling=J, field=FIELD, num=20_000)
    data.prepare()
    torch.testing.assert_close(data.log_prob(encode(codes, 2)).exp(), probability, rtol=1e-12, atol=0)
    exact = pairs(codes, probability)
    found = pairs(decode(data.examples("train")))
    assert ((found - exact) / (exact * (1 - exact) / 20_000).sqrt()).abs().max() < LIMIT


def singles(codes: Tensor, weights: Tensor) -> Tensor:
    """The law of each place, `(L, S)`."""
    return torch.einsum("nlk,n->lk", one_hot(codes, 4).double(), weights)


def pairs(codes: Tensor, weights: Tensor | None = None) -> Tensor:
    """The law of neighbours, `(L - 1, S, S)`."""
    weights = torch.full((len(codes),), 1 / len(codes)).double() if weights is None else weights
    x = one_hot(codes, 4).double()
    return torch.einsum("nlj,nlk,n->ljk", x[:, :-1], x[:, 1:], weights)


def distance(found: Tensor, exact: Tensor) -> float:
    """Total variation, the mean over places."""
    return 0.5 * (found - exact).abs().sum((1, 2)).mean().item()


def trained(heating: str, steps: int = 300) -> tuple[Model, PottsChain]:
    config = resolve(
        Registry.discover(),
        components={"operator": "categorical-mlp", "data": "potts"},
        overrides=[
            *(f"operator.heating={heating}", f"training.steps={steps}", "training.updates=stacked"),
            *("training.lr=0.005", "training.lr_schedule=cosine", "training.ema=0.98"),
        ],
    )
    parts = prepare(config, Registry.discover())
    device = torch.device("cpu")
    trainer = Trainer(parts.model, parts.objective, parts.dataset, config.training, seed=0, device=device)
    for _ in range(config.training.steps):
        trainer.walk()
    assert isinstance(parts.dataset, PottsChain)
    return trainer.averaged_model, parts.dataset


@pytest.fixture(scope="module")
def tied() -> tuple[Model, PottsChain]:
    return trained("tied")


def test_the_bound_is_between_the_entropy_and_the_best_independent_symbols(
    tied: tuple[Model, PottsChain],
) -> None:
    """H(p) ≤ -E[L] < Σ_l H(p_l), each by 4.5 standard errors; both entropies are sums over all sequences."""
    model, data = tied
    codes, probability = brute_force()
    entropy = -(probability * probability.log()).sum().item()
    marginal = singles(codes, probability)
    independent = -(marginal * marginal.log()).sum().item()
    bound = estimate_bound(
        model, [Batch(data.states(data.examples("test"), rng()))], data.info, rng(), paths=2
    )
    assert entropy - LIMIT * bound.nats_error < bound.nats < independent - LIMIT * bound.nats_error
    assert bound.bits_per_dimension == pytest.approx(bound.nats / 12 / math.log(2))


def drift(model: Model, num_steps: int) -> tuple[float, float]:
    """How far neighbours in 3,000 samples are from their exact law: annealed, and after steps at T = 1."""
    codes, probability = brute_force()
    exact = pairs(codes, probability)
    annealed = last(anneal(model.operator, model.prior, model.levels(), 3_000, rng()))
    later = last(chain(model.operator, annealed, num_steps, rng(1)))
    found = [distance(pairs(decode(leaves(state)[0])), exact) for state in (annealed, later)]
    return found[0], found[1]


def test_its_chain_keeps_the_exact_law_of_neighbours(tied: tuple[Model, PottsChain]) -> None:
    """Annealed and 50 steps later: within 0.1 in total variation; independent symbols: 0.29."""
    codes, probability = brute_force()
    marginal = singles(codes, probability)
    independent = torch.einsum("lj,lk->ljk", marginal[:-1], marginal[1:])
    assert distance(independent, pairs(codes, probability)) > 0.25
    assert max(drift(tied[0], 50)) < 0.1


def test_an_operator_that_does_not_heat_with_itself_leaves_the_data() -> None:
    """With plain heating annealing is as good, and the chain at T = 1 runs to the likeliest symbols."""
    annealed, later = drift(trained("plain", 200)[0], 50)
    assert annealed < 0.15
    assert later > 2 * annealed
