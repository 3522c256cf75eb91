"""One-hot states: kernel, operator and priors against counting, and trained chains against exact laws."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from tests.toy.statistics import rng
from torch import Tensor
from torch.nn.functional import one_hot

import walkback as wb
from walkback.data.symbols import SymbolData
from walkback.errors import ConfigurationError, DataError
from walkback.kernels import CategoricalKernel, categorical_at
from walkback.model import Model
from walkback.sampling import anneal, chain, last
from walkback.schedules import Level
from walkback.state import Space, leaves
from walkback.testing import Case, failed, outcomes
from walkback_paper.bernoulli import Bernoulli
from walkback_paper.categorical import Categorical
from walkback_toys.potts import Potts

LIMIT = 4.5
P_LIMIT = 7e-6
"""Two-sided probability of |z| > 4.5, with which a right law fails one of these χ² tests at another seed."""

SPACES = (Space((3, 4), "one-hot"), Space((2, 2, 3), "one-hot"))
SMALL = {"network": {"name": "mlp", "hidden": 16, "depth": 1}}
RING = {"coupling": 1.0, "num": 20_000, "num_held_out": 500}

REPLACING = Case.of("categorical", {**SMALL, "heating": "replacements"}, spaces=SPACES)


def test_the_operator_that_heats_by_replacements_conforms() -> None:
    assert not failed(outcomes("operator", REPLACING))


def every_state(places: int, symbols: int) -> Tensor:
    """One-hot, `(S^L, L, S)`, float64."""
    numbers = torch.tensor(list(itertools.product(range(symbols), repeat=places)))
    return one_hot(numbers, symbols).double()


def p_value(counts: Tensor, probability: Tensor) -> float:
    """χ² of counts `(n,)` against a law `(n,)`; rare outcomes are taken together."""
    expected = probability * counts.sum()
    kept = expected >= 5
    pairs = [(float(c), float(e)) for c, e in zip(counts[kept], expected[kept], strict=True)]
    rest = float(counts[~kept].sum()), float(expected[~kept].sum())
    pairs += [rest] if rest[1] > 0 else []
    statistic = sum((c - e) ** 2 / e for c, e in pairs)
    return float(chi2.sf(statistic, len(pairs) - 1))


def test_the_kernel_is_normalized_and_draws_what_it_scores() -> None:
    """Over all 64 states Σ p = 1, and 50,000 draws fit p."""
    states, num = every_state(3, 4), 50_000
    logits = torch.randn(1, 3, 4, generator=rng(1), dtype=torch.float64)
    probability = categorical_at(logits.expand(64, 3, 4), Level(1, 2.0)).log_prob(states).exp()
    assert probability.sum().item() == pytest.approx(1, abs=1e-12)
    drawn = categorical_at(logits.expand(num, 3, 4), Level(1, 2.0)).sample(rng())
    numbers = drawn.argmax(-1) @ torch.tensor([16, 4, 1])
    assert p_value(numbers.bincount(minlength=64), probability) > P_LIMIT


def test_temperature_divides_logits_and_gradients_reach_them() -> None:
    """Two symbols at log-odds 3: at T = 3 the odds are e. ∂ log p / ∂ logits = one-hot - softmax."""
    kernel = categorical_at(torch.tensor([[[3.0, 0.0]]]), Level(1, 3.0))
    odds = kernel.log_prob(torch.tensor([[[1.0, 0.0]]])) - kernel.log_prob(torch.tensor([[[0.0, 1.0]]]))
    assert odds.item() == pytest.approx(1.0)
    logits = torch.randn(2, 3, 4, generator=rng(), dtype=torch.float64, requires_grad=True)
    x = CategoricalKernel(logits).sample(rng(1))
    (gradient,) = torch.autograd.grad(CategoricalKernel(logits).log_prob(x).sum(), logits)
    torch.testing.assert_close(gradient, x - logits.detach().softmax(-1))


def test_impossible_symbols_have_probability_0_and_never_come() -> None:
    logits = torch.tensor([0.0, -math.inf, 0.0]).expand(1000, 1, 3)
    kernel = CategoricalKernel(logits)
    drawn = kernel.sample(rng())
    assert not drawn[..., 1].any()
    assert kernel.log_prob(drawn).exp().tolist() == pytest.approx([0.5] * 1000)
    assert kernel.log_prob(one_hot(torch.ones(1000, 1, dtype=torch.long), 3).float()).max() == -math.inf


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_two_symbols_are_bits(temperature: float) -> None:
    """Untrained, with the same ε: log p of the categorical operator is that of the Bernoulli operator."""
    bits = (torch.rand(50, 6, generator=rng()) < 0.4).double()
    there = (torch.rand(50, 6, generator=rng(1)) < 0.4).double()
    level = Level(1, temperature)
    network = Case.of("mlp", {"hidden": 8, "depth": 1}).build("network")
    binary = Bernoulli(Space((6,), "binary"), network, flip=0.1, heating="tied").double()
    found = Categorical(Space((6, 2), "one-hot"), network, replaced=0.1).double()
    expected = binary(bits, level).cooling(level).log_prob(there)
    pairs = [torch.stack([1 - x, x], -1) for x in (bits, there)]
    torch.testing.assert_close(found(pairs[0], level).cooling(level).log_prob(pairs[1]), expected)


@pytest.mark.parametrize("field", [0.0, 0.4])
@pytest.mark.parametrize("sites", [1, 2, 4])
def test_potts_data_have_their_law(sites: int, field: float) -> None:
    """log p is that of the definition, and 20,000 draws fit it, all states counted."""
    data = Potts(sites=sites, coupling=0.7, field=field, num=20_000, num_held_out=12)
    data.prepare()
    states = every_state(sites, 3)
    x = states.argmax(-1)
    energy = 0.7 * (x == x.roll(-1, 1)).double().sum(1) + field * x.double().sum(1)
    probability = energy.softmax(0)
    torch.testing.assert_close(data.log_prob(states).exp(), probability)
    weights = 3 ** torch.arange(sites - 1, -1, -1)
    counts = (data.examples("train").long() @ weights).bincount(minlength=3**sites)
    assert p_value(counts, probability) > P_LIMIT


def test_whole_numbers_are_data_and_others_are_refused() -> None:
    numbers = torch.randint(0, 5, (100, 7), generator=rng())
    data = SymbolData(numbers)
    assert data.info.shape == (7, 5)
    assert data.info.splits == {"train": 80, "validation": 10, "test": 10}
    stored = data.examples("train")
    assert data.states(stored, rng()).argmax(-1).equal(stored.long())
    for wrong, words in (
        (numbers.float(), "whole numbers"),
        (numbers[:4], "N >= 12"),
        (numbers - 1, "0 to 3"),
    ):
        with pytest.raises(DataError, match=words):
            SymbolData(wrong)
    with pytest.raises(DataError, match="0 to 2"):
        SymbolData(numbers, 3)


def test_other_states_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="one one-hot tensor"):
        Categorical(Space((3,)), Case.of("mlp").build("network"))
    with pytest.raises(ConfigurationError, match="at least two"):
        Categorical(Space((3, 1), "one-hot"), Case.of("mlp").build("network"))


def train(steps: int, settings: dict[str, object], **data: object) -> wb.Trained:
    small = {
        "operator.network.hidden": 64,
        "operator.network.depth": 1,
        "schedule.n1": 2,
        "training.lr": 1e-2,
    }
    few = {"training.validate_every": 10_000, "training.validation_examples": 50, "evaluation.limit": 100}
    own = {f"data.{name}": value for name, value in data.items()}
    settings = {**small, **few, **own, **settings}
    return wb.train("categorical", data="potts", steps=steps, settings=settings, progress=False)


def run_on(model: Model, num: int, steps: int) -> Tensor:
    """Spins `(num, L)` after annealing and further steps at T = 1."""
    with model.evaluating(), torch.no_grad():
        start = last(anneal(model.operator, model.prior, model.levels(), num, rng(3)))
        return leaves(last(chain(model.operator, start, steps, rng(4))))[0].argmax(-1)


@pytest.fixture(scope="module")
def single() -> wb.Trained:
    """One symbol of three, p(x) ∝ exp(0.6 x)."""
    return train(120, {}, sites=1, field=0.6, num=20_000, num_held_out=500)


def test_a_cycle_of_three_states_is_learned_and_diagnosed_exactly(single: wb.Trained) -> None:
    """The 3 × 3 matrix of the trained chain says all: its stationary law, and its entropy production.

    π P = π,   e = Σ π_i P_ij log(P_ij / P_ji);   χ² of samples against the data's law; |z| < 4.5 of e.
    """
    model, level = single.model, Level(1, 1.0)
    states = torch.eye(3)[:, None]
    with model.evaluating(), torch.no_grad():
        kernel = model.operator(states.repeat_interleave(3, 0), level).cooling(level)
        matrix = kernel.log_prob(states.repeat(3, 1, 1)).exp().double().reshape(3, 3)
    stationary = torch.linalg.matrix_power(matrix, 10_000)[0]
    law = (0.6 * torch.arange(3).double()).softmax(0)
    counts = run_on(model, 2000, 100)[:, 0].bincount(minlength=3)
    assert p_value(counts, stationary) > P_LIMIT
    assert p_value(counts, law) > P_LIMIT
    exact = float((stationary[:, None] * matrix * (matrix / matrix.T).log()).sum())
    report = wb.diagnose("reversibility", single, chains=200, steps=200, rank_chains=0, progress=False)
    figure = report["entropy_production"]
    assert figure.error is not None
    assert abs(figure.value - exact) < LIMIT * figure.error


@pytest.fixture(scope="module")
def ring() -> wb.Trained:
    """Twelve sites of three states."""
    return train(150, {"training.batch_size": 512}, **RING)


def test_a_ring_of_spins_is_sampled_as_its_exact_law_says(ring: wb.Trained) -> None:
    """χ² of three neighbours (27 cells), and of the number of equal neighbours, against sums over all 3^12 rings."""
    x = torch.cartesian_prod(*[torch.arange(3)] * 12)
    weights = ((x == x.roll(-1, 1)).sum(1) * 1.0).double().softmax(0)
    drawn = run_on(ring.model, 1000, 100)

    def three(spins: Tensor) -> Tensor:
        return spins[:, :3] @ torch.tensor([9, 3, 1])

    def equal(spins: Tensor) -> Tensor:
        return (spins == spins.roll(-1, 1)).sum(1)

    for statistic, size in ((three, 27), (equal, 13)):
        law = torch.zeros(size, dtype=torch.float64).scatter_add_(0, statistic(x), weights)
        assert p_value(statistic(drawn).bincount(minlength=size), law) > P_LIMIT


def test_the_bound_of_a_ring_is_above_its_entropy_and_below_independent_symbols(ring: wb.Trained) -> None:
    report = wb.evaluate(ring, limit=200, simulated=0, progress=False)
    figures = {figure.name: figure for figure in report.figures}
    assert not [name for name in figures if name.endswith("_bits")]
    bound = figures["bound"]
    data = Potts(**RING)  # type: ignore[arg-type]
    entropy = -data.log_prob(torch.eye(3)[torch.cartesian_prod(*[torch.arange(3)] * 12)])
    exact = float((entropy * (-entropy).exp()).sum())
    assert bound.error is not None
    assert exact - LIMIT * bound.error < bound.value < 12 * math.log(3) - LIMIT * bound.error


def over_half(log_probability: Tensor) -> Tensor:
    """Products over six places of `(N, 6, 3)`, for each of their 3^6 values: `(N, 729)`."""
    found = log_probability[:, 0]
    for place in log_probability.unbind(1)[1:]:
        found = (found[:, :, None] + place[:, None]).flatten(1)
    return found.exp()


@pytest.mark.slow
def test_a_trained_ring_produces_as_much_entropy_as_the_sum_over_all_its_steps() -> None:
    """One step from the data's law μ, |z| < 4.5 of 100,000 chains:

    e = Σ_s μ(s) Σ_s' p(s'|s) [log p(s'|s) - log p(s|s')],   over (3^12)² steps

    log p(s|s') is a sum over places, so W_lk(s') = Σ_{s: s_l = k} μ(s) p(s'|s) is all that is needed, and p(s'|s) is a
    product over the two halves of the ring, so W_lk is a matrix product.
    """
    trained = train(150, {"training.batch_size": 512}, coupling=1.0, num=20_000, num_held_out=100_000)
    model, level, symbols = trained.model, Level(1, 1.0), torch.eye(3)
    states = torch.cartesian_prod(*[torch.arange(3)] * 12)
    law = Potts(coupling=1.0, num=100, num_held_out=12)
    law.prepare()
    with model.evaluating(), torch.no_grad():
        kernels = [model.operator(symbols[part], level).cooling(level) for part in states.split(20_000)]
    step = torch.cat([kernel.logits.log_softmax(-1) for kernel in kernels])  # type: ignore[attr-defined]
    mass = torch.cat([law.log_prob(symbols[part]) for part in states.split(20_000)]).exp()
    onto = torch.zeros(12, 3, 729, 729, dtype=torch.float64)
    for spins, weight, own in zip(states.split(20_000), mass.split(20_000), step.split(20_000), strict=True):
        first, second = over_half(own[:, :6]) * weight[:, None].float(), over_half(own[:, 6:])
        for place, symbol in itertools.product(range(12), range(3)):
            rows = spins[:, place] == symbol
            onto[place, symbol] += first[rows].T @ second[rows]
    there = float((mass * (step.exp() * step).double().sum((1, 2))).sum())
    back = float((onto.flatten(2).permute(2, 0, 1) * step).sum())
    report = wb.diagnose(
        "reversibility",
        trained,
        chains=100_000,
        burn_in=0,
        steps=1,
        start="data",
        rank_chains=0,
        progress=False,
    )
    figure = report["entropy_production"]
    assert figure.error is not None
    assert figure.error < 0.005
    assert abs(figure.value - (there - back)) < LIMIT * figure.error


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mixing", {"chains": 10, "steps": 60}),
        ("stationarity", {"chains": 20, "steps": 20, "frames": 10, "reference": 100}),
        ("thermodynamics", {"examples": 20, "paths": 4, "chains": 20, "stationary_steps": 4, "burn_in": 2}),
    ],
)
def test_diagnostics_measure_symbols(ring: wb.Trained, name: str, options: dict[str, Any]) -> None:
    assert wb.diagnose(name, ring, progress=False, **options).figures


def test_symbols_are_inpainted(ring: wb.Trained) -> None:
    """What is kept is kept, and the rest are symbols, more often like their neighbour than a third of the time."""
    keep = (torch.arange(12) % 2 == 0)[:, None]
    known = one_hot(torch.zeros(500, 12, dtype=torch.long), 3).float()
    spins = wb.inpaint(ring, keep, known=known, extra=20, progress=False).states.argmax(-1)
    assert not spins[:, ::2].any()
    # Between two equal neighbours a spin is equal to them with probability e² / (e² + 2) = 0.787.
    assert 0.6 < float((spins[:, 1::2] == 0).double().mean()) < 0.95
