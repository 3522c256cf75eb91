"""A chain of binary visible and real latent units learns, samples and is evaluated like any other."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias, final

import pytest
import torch
from tests.toy.data import InMemory
from tests.toy.exact import Pair, filled
from tests.toy.statistics import LIMIT, normal, rng
from torch import Tensor, nn

from walkback.configuration.settings import TrainingSettings
from walkback.data import Batch, DataInfo
from walkback.kernels import BernoulliKernel, NormalKernel, ProductKernel, bernoulli_at, normal_at
from walkback.measuring.bound import estimate_bound
from walkback.model import Model
from walkback.operators import Conditional, Latent, TransitionOperator, initial_state, state_space, visible
from walkback.priors import ProductPrior
from walkback.processes import TiedProcess
from walkback.sampling import anneal, chain, last
from walkback.schedules import Level
from walkback.state import Context, Space, State, StateSpace, leaves
from walkback.testing.reference import reference_walk
from walkback.training.trainer import Trainer
from walkback.walk import Start, Transition, walk
from walkback_paper.objectives import WalkbackLoss
from walkback_paper.priors import BernoulliPrior, GaussianPrior
from walkback_paper.schedules import DoublingSchedule

Updates: TypeAlias = Literal["online", "batch", "stacked"]
VISIBLE, HIDDEN = Space((2, 3), "binary"), Space((2,))
FLIP = 0.05
WALKS = 150


def striped(num: int, seed: int) -> Tensor:
    """One of two complementary stripes `(2, 3)`, each bit flipped with probability 5 %."""
    chosen = (normal(num, 1, 1, seed=seed) > 0).float()
    stripes = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    pattern = chosen * stripes + (1 - chosen) * (1 - stripes)
    flips = torch.rand(pattern.shape, generator=rng(seed)) < FLIP
    return (pattern - flips.float()).abs()


def entropy_of_stripes() -> float:
    """Exact entropy of the data, nats: a mixture of two products, summed over the number of bits that differ."""
    total = 0.0
    for k in range(7):
        mass = 0.5 * (FLIP**k * (1 - FLIP) ** (6 - k) + FLIP ** (6 - k) * (1 - FLIP) ** k)
        total -= math.comb(6, k) * mass * math.log(mass)
    return total


@final
class Mixed(TransitionOperator, Latent):
    """Bits flip, the latent code decays; a network of both leaves and log T learns to walk both back."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(9, 32), nn.SiLU(), nn.Linear(32, 8))

    @property
    def max_temperature(self) -> float:
        return 8.0

    @property
    def state_space(self) -> StateSpace:
        return VISIBLE, HIDDEN

    def initial_state(self, data: Tensor, generator: torch.Generator) -> tuple[State, Tensor]:
        """h_0 ~ N(0, I)."""
        kernel = NormalKernel(data.new_zeros(len(data), 2), data.new_ones(1, 2))
        code = leaves(kernel.sample(generator))[0]
        return (data, code), kernel.log_prob(code)

    def visible(self, state: State) -> Tensor:
        return leaves(state)[0]

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        bits, code = leaves(state)
        log_t = level.temperature_like(code).log2().expand(len(code), 1)
        shift = self.network(torch.cat([bits.flatten(1), code, log_t], dim=1))
        signs = 3 * (2 * bits - 1)

        def cooling(at: Level) -> ProductKernel:
            logits = signs / at.temperature_like(bits) + shift[:, :6].reshape(bits.shape)
            return ProductKernel(
                [BernoulliKernel(logits), normal_at(0.9 * code + shift[:, 6:], filled(0.19, code), at)]
            )

        def heating(at: Level) -> ProductKernel:
            return ProductKernel([bernoulli_at(signs, at), normal_at(0.9 * code, filled(0.19, code), at)])

        return Pair(cooling, heating)


def mixed_model() -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        operator = Mixed()
    prior = ProductPrior((VISIBLE, HIDDEN), [BernoulliPrior(VISIBLE), GaussianPrior(HIDDEN)])
    state, _ = initial_state(operator, striped(500, 1), rng())
    prior.fit(state)
    return Model(operator, DoublingSchedule(n1=1), TiedProcess(), prior)


def mixed_trainer(updates: Updates) -> Trainer:
    settings = TrainingSettings(steps=WALKS, batch_size=64, updates=updates, lr=3e-3, ema=0.9)
    rows = InMemory(striped(2000, 0), "binary")
    return Trainer(mixed_model(), WalkbackLoss(), rows, settings, seed=0, device=torch.device("cpu"))


@pytest.fixture(scope="module", params=["online", "batch", "stacked"])
def trained(request: pytest.FixtureRequest) -> tuple[Trainer, Tensor]:
    """A trainer after its walks, and their losses."""
    trainer = mixed_trainer(request.param)
    return trainer, torch.stack([trainer.walk() for _ in range(WALKS)])


def test_a_tuple_state_trains(trained: tuple[Trainer, Tensor]) -> None:
    """The mean loss of the last 30 walks is below that of the first 30, by far more than 4.5 standard errors."""
    _, losses = trained
    first, later = losses[:30], losses[-30:]
    error = math.sqrt(float(first.var() + later.var()) / 30)
    assert float(first.mean() - later.mean()) / error > LIMIT


def test_its_bound_is_finite_better_than_independent_bits_and_not_below_the_entropy(
    trained: tuple[Trainer, Tensor],
) -> None:
    """-E[L] lies between the entropy and 6 log 2 nats, the best without correlations, each with 4.5 standard errors."""
    data, info = striped(4000, 3), DataInfo("stripes", (2, 3), support="binary")
    estimate = estimate_bound(
        trained[0].averaged_model, list(map(Batch, data.split(1000))), info, rng(), paths=2
    )
    error = LIMIT * estimate.nats_error
    assert entropy_of_stripes() - error < estimate.nats < 6 * math.log(2) - error
    assert estimate.bits_per_dimension == pytest.approx(estimate.nats / 6 / math.log(2))


def test_its_samples_are_tuples_of_bits_and_reals(trained: tuple[Trainer, Tensor]) -> None:
    model = trained[0].averaged_model
    state = last(anneal(model.operator, model.prior, model.levels(), 50, rng()))
    for sample in (state, last(chain(model.operator, state, 20, rng(1)))):
        bits, code = leaves(sample)
        assert (bits.shape, code.shape) == ((50, 2, 3), (50, 2))
        assert set(bits.unique().tolist()) <= {0.0, 1.0}
        assert len(code.unique()) == 100
        assert visible(model.operator, sample) is bits


def test_its_samples_show_the_correlations_of_the_data(trained: tuple[Trainer, Tensor]) -> None:
    """The first bit agrees with the third more often than by chance, z > 4.5, as it does in the data."""
    model = trained[0].averaged_model
    state = last(anneal(model.operator, model.prior, model.levels(), 4000, rng()))
    bits = leaves(state)[0]
    agree = (bits[:, 0, 0] == bits[:, 0, 2]).double().mean().item()
    assert (agree - 0.5) / (0.5 / math.sqrt(4000)) > LIMIT


def test_its_prior_followed_both_leaves(trained: tuple[Trainer, Tensor]) -> None:
    fresh, followed = mixed_model().prior.state_dict(), trained[0].model.prior.state_dict()
    assert all(not followed[name].equal(fresh[name]) for name in fresh)


def test_it_resumes_exactly() -> None:
    straight, stopped, fresh = (mixed_trainer("batch") for _ in range(3))
    for _ in range(2):
        straight.walk()
        stopped.walk()
    tensors, document = stopped.state()
    fresh.restore(
        stopped.averaged_model.tensors(),
        {name: value.clone() for name, value in tensors.items()},
        json.loads(json.dumps(document)),
    )
    assert straight.walk().equal(fresh.walk())
    assert all(
        a.equal(b) for a, b in zip(straight.state()[0].values(), fresh.state()[0].values(), strict=True)
    )


@pytest.mark.parametrize("walker", [walk, reference_walk])
def test_its_transitions_are_scored_leaf_by_leaf(walker: Callable[..., Iterator[Transition]]) -> None:
    """log p of the pair is the sum of both leaves' own."""
    model = mixed_model()
    state, _ = initial_state(model.operator, striped(5, 0), rng())
    for step in walker(model.operator, TiedProcess().heating, Start(state), model.levels(), rng()):
        parts = zip(step.reverse.kernels, leaves(step.source), strict=True)
        assert step.log_p.equal(torch.stack([kernel.log_prob(leaf) for kernel, leaf in parts]).sum(0))


def test_its_space_is_that_of_both_leaves() -> None:
    assert state_space(Mixed(), VISIBLE) == (VISIBLE, HIDDEN)
