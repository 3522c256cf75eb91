"""The blocked kernel against sums by hand, the bound against a single real Gaussian, and what is learned."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from walkback_latent.kernel import BlockedKernel, CodeKernel
from walkback_latent.operator import Blocked

from walkback.configuration.layering import resolve
from walkback.data import Batch
from walkback.extensions.registry import Registry
from walkback.kernels import NormalKernel
from walkback.measuring.bound import estimate_bound
from walkback.sampling import anneal, last
from walkback.schedules import Level
from walkback.state import Space, leaves
from walkback.testing import Case, Check, checks
from walkback.training.preparation import prepare
from walkback.training.trainer import Trainer

LIMIT = 4.5
OPERATOR = Case.of(
    "blocked", {"hidden": 16, "latents": 3, "sigma": 0.2}, spaces=[Space((2,)), Space((1, 2, 2))]
)
PRIOR = Case.of("blocked", spaces=[(Space((2,)), Space((3,), "binary"))])


@pytest.mark.parametrize("check", checks("operator"), ids=str)
def test_the_operator_conforms(check: Check) -> None:
    check(OPERATOR)


@pytest.mark.parametrize("check", checks("prior"), ids=str)
def test_the_prior_conforms(check: Check) -> None:
    check(PRIOR)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_code(bits: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=bits)), dtype=torch.float64)


def test_codes_are_normalized_and_drawn_as_they_are_scored() -> None:
    """Over all 8 codes: Σ p = 1, and counts of 40,000 draws fit p (each |z| < 4.5)."""
    logits, num = torch.randn(1, 8, generator=rng(), dtype=torch.float64), 40_000
    probability = CodeKernel(logits.expand(8, 8)).log_prob(every_code(3)).exp()
    assert probability.sum().item() == pytest.approx(1)
    draws = CodeKernel(logits.expand(num, 8)).sample(rng())
    counts = (draws[:, None] == every_code(3)).all(-1).sum(0)
    z = (counts - num * probability) / (num * probability * (1 - probability)).sqrt()
    assert z.abs().max() < LIMIT


def test_a_blocked_kernel_is_a_mixture() -> None:
    """Two codes with means ∓3: v' has the mean 3 (2 p - 1) and the variance 1 + 36 p (1 - p) (z < 4.5)."""
    num, p = 40_000, 0.3
    logits = torch.tensor([[0.0, math.log(p / (1 - p))]], dtype=torch.float64).expand(num, 2)
    kernel = BlockedKernel(
        "h", CodeKernel(logits), lambda h: NormalKernel(6 * h - 3, torch.ones(1, 1).double())
    )
    v, h = leaves(kernel.sample(rng()))
    exact = 3 * (2 * p - 1)
    variance = 1 + 36 * p * (1 - p)
    assert abs(v.mean().item() - exact) / math.sqrt(variance / num) < LIMIT
    squares = (v - exact).square()
    assert abs(squares.mean().item() - variance) / (squares.std().item() / math.sqrt(num)) < LIMIT
    by_hand = torch.where(h == 1, math.log(p), math.log(1 - p)) - 0.5 * (
        (v - torch.where(h == 1, 3.0, -3.0)).square() + math.log(2 * math.pi)
    )
    torch.testing.assert_close(kernel.log_prob((v, h)), by_hand[:, 0])


def test_blocks_are_undone_in_reverse() -> None:
    """Heating draws h' from the v' beside it, cooling v' from the h' beside it."""
    case = Case.of("blocked", {"latents": 1, "sigma": 1.0, "hidden": 4})
    operator = case.build("operator", Space((1,)), seed=0).double()
    with torch.no_grad():
        operator.offsets.zero_()
        operator.network[-1].get_parameter("weight").normal_(std=10.0, generator=rng())
    level = Level(1, 1.0)
    state = (torch.zeros(20_000, 1).double(), torch.zeros(20_000, 1).double())
    with torch.no_grad():
        heated = leaves(operator(state, level).heating(level).sample(rng()))
        cooled = leaves(operator(state, level).cooling(level).sample(rng()))
    up = heated[1] == 1
    assert (heated[0][up].mean() - heated[0][~up].mean()).abs() > 0.5
    means = [cooled[0][cooled[1] == bit].mean().item() for bit in (0, 1)]
    assert abs(means[0] - means[1]) > 0.1


def test_it_learns_a_swiss_roll_better_than_any_gaussian() -> None:
    """-E[L], log q(h_0 | data) included, is below ½ log |2πe Σ| of the data by 4.5 errors, in two levels."""
    config = resolve(
        Registry.discover(),
        components={"operator": "blocked", "data": "swiss-roll"},
        overrides=[
            *("operator.sigma=0.1", "operator.hidden=64", "operator.latents=2", "data.num=2000"),
            *("schedule.factor=16.0", "schedule.n1=0", "training.steps=700", "training.batch_size=64"),
            *(
                "training.updates=stacked",
                "training.lr=0.01",
                "training.ema=0.98",
                "training.lr_schedule=cosine",
            ),
        ],
    )
    parts = prepare(config, Registry.discover())
    device = torch.device("cpu")
    trainer = Trainer(parts.model, parts.objective, parts.dataset, config.training, seed=0, device=device)
    for _ in range(config.training.steps):
        trainer.walk()
    model, data = trainer.averaged_model, parts.dataset.examples("test")
    bound = estimate_bound(model, [Batch(data)], parts.dataset.info, rng())
    gaussian = 0.5 * torch.logdet(2 * math.pi * math.e * data.double().T.cov()).item()
    assert bound.nats + LIMIT * bound.nats_error < gaussian
    v, h = leaves(last(anneal(model.operator, model.prior, model.levels(), 2_000, rng())))
    assert bool(((h == 0) | (h == 1)).all())
    assert isinstance(model.operator, Blocked)
    said = model.operator.posterior_logits(v) > 0
    assert (said == h.bool()).double().mean() > 0.7  # samples agree with their codes
