"""Training: what it learns, the three kinds of update, precision, and what stops it."""

from __future__ import annotations

import math
from typing import Any, final

import pytest
import torch
from tests.toy.data import InMemory
from tests.toy.learned import seeing_gaussian
from tests.toy.paper import gaussian_mlp
from tests.toy.statistics import LIMIT, normal, rng
from tests.toy.trainers import (
    CPU,
    MODES,
    ROWS,
    Spy,
    Updates,
    bf16_trainer,
    everything,
    trainer,
    weights,
)
from torch import Tensor, nn

from walkback.building.devices import autocast
from walkback.configuration.settings import TrainingSettings
from walkback.errors import WalkbackError
from walkback.measuring.bound import path_bound
from walkback.model import Model
from walkback.objectives import Objective
from walkback.processes import TiedProcess
from walkback.schedules import Level
from walkback.state import Space, leaves
from walkback.support.seeding import generator
from walkback.training.trainer import Trainer
from walkback.walk import Start, Transition
from walkback_paper.objectives import WalkbackLoss
from walkback_paper.priors import GaussianPrior
from walkback_paper.schedules import DoublingSchedule

SIGMA, MEANS, VARIANCES = 0.3, torch.tensor([1.0, -2.0]), torch.tensor([1.0, 0.4])


def plane(num: int, seed: int) -> Tensor:
    return MEANS + VARIANCES.sqrt() * normal(num, 2, seed=seed).float()


def gap(model: Model) -> tuple[float, float]:
    """Mean and standard error of log p_true - L on 5,000 new examples, nats."""
    data = plane(5000, 7)
    true = torch.distributions.Normal(MEANS, VARIANCES.sqrt()).log_prob(data).sum(1)
    with model.evaluating():
        lost = true - path_bound(model, data, model.levels(), rng())
    return lost.mean().item(), lost.std().item() / math.sqrt(len(lost))


@pytest.fixture(
    scope="module", params=[("stacked", 200), ("batch", 120), ("online", 100)], ids=lambda p: p[0]
)
def learned(request: pytest.FixtureRequest) -> tuple[Model, float]:
    """A model trained on 20,000 points of a 2-D Gaussian, and the gap of its bound before."""
    updates, steps = request.param
    rows = plane(20_000, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        operator = gaussian_mlp(Space((2,)), sigma=SIGMA, hidden=16, depth=1)
    operator.fit_data(rows)
    prior = GaussianPrior(Space((2,)))
    prior.fit(rows)
    model = Model(operator, DoublingSchedule(n1=2, max_temperature=4.0), TiedProcess(), prior)
    before, _ = gap(model)
    settings = TrainingSettings(
        steps=steps,
        batch_size=256,
        updates=updates,
        lr=5e-3 if updates == "online" else 1e-2,
        lr_schedule="cosine",
        ema=0.98,
    )
    worker = Trainer(model, WalkbackLoss(), InMemory(rows), settings, seed=0, device=CPU)
    for _ in range(steps):
        worker.walk()
    return worker.averaged_model, before


def test_the_bound_reaches_the_entropy_of_gaussian_data(learned: tuple[Model, float]) -> None:
    """From a gap above 0.1 nats to one below 0.02 nats, and never below zero, within 4.5 standard errors."""
    model, before = learned
    after, error = gap(model)
    assert before > 0.1
    assert -LIMIT * error < after < 0.02 + LIMIT * error


def test_training_finds_the_self_consistent_operator(learned: tuple[Model, float]) -> None:
    """The slope of the mean at T = 1 becomes √(1 - σ²/u) in each direction (DESIGN section 8), to 0.025."""
    model, _ = learned
    operator, level = model.operator.eval(), Level(1, 1.0)

    def mean(state: Tensor) -> Tensor:
        kernel: Any = operator(state[None], level).cooling(level)
        found: Tensor = kernel.mean[0]
        return found

    slopes = torch.autograd.functional.jacobian(mean, MEANS)
    expected = (1 - SIGMA**2 / VARIANCES).sqrt().diag()
    assert (slopes - expected).abs().max() < 0.025


def test_stacked_updates_are_batch_updates() -> None:
    """The same weights, average and prior after ten walks of a network that treats rows alone, to rounding."""
    batch, stacked = trainer(updates="batch"), trainer(updates="stacked")
    for _ in range(10):
        assert float(batch.walk()) == pytest.approx(float(stacked.walk()), rel=1e-6)
    for one, two in ((batch, stacked), (batch.averaged_model, stacked.averaged_model)):
        ours = one.model.operator if isinstance(one, Trainer) else one.operator
        theirs = two.model.operator if isinstance(two, Trainer) else two.operator
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    probe = normal(5, 3)
    torch.testing.assert_close(
        batch.model.prior.log_prob(probe), stacked.model.prior.log_prob(probe), atol=1e-9, rtol=0
    )


def test_online_updates_are_others() -> None:
    online, batch = trainer(updates="online"), trainer(updates="batch")
    online.walk()
    batch.walk()
    assert any(not a.equal(b) for a, b in zip(weights(online).values(), weights(batch).values(), strict=True))


@pytest.mark.parametrize("updates", MODES)
def test_updates_are_one_a_step_online_and_one_a_walk_otherwise(updates: Updates) -> None:
    worker = trainer(updates=updates, n1=0)
    for number in range(1, 4):
        worker.walk()
        assert worker.progress.walks == number
        assert worker.progress.updates == number * (3 if updates == "online" else 1)


def first_walk(worker: Trainer) -> list[Transition]:
    """The first walk of a trainer with seed 0, recomputed from the streams of its seed."""
    noise = generator("cpu", 0, "noise", 0, 0)
    levels = worker.model.levels(generator("cpu", 0, "schedule", 0))
    order = torch.randperm(50, generator=generator("cpu", 0, "order", 0))[:8]
    return list(worker.model.walk(Start(ROWS[order]), levels, noise))


@pytest.mark.parametrize("updates", ["batch", "stacked"])
def test_the_loss_is_the_mean_over_steps_and_rows_in_nats(updates: Updates) -> None:
    worker = trainer(updates=updates)
    expected = torch.stack([-step.log_p.mean() for step in first_walk(worker)]).mean().item()
    assert float(worker.walk()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("updates", ["batch", "stacked"])
def test_one_update_is_adams(updates: Updates) -> None:
    """θ ← θ - lr g / (|g| + ε), with g the gradient of the mean loss per dimension, by hand."""
    worker = trainer(updates=updates, clip=0.0)
    before = [p.detach().clone() for p in worker.model.operator.parameters()]
    loss = torch.stack([-step.log_p.mean() for step in first_walk(worker)]).mean() / 3
    gradients = torch.autograd.grad(loss, list(worker.model.operator.parameters()))
    worker.walk()
    for old, new, g in zip(before, worker.model.operator.parameters(), gradients, strict=True):
        torch.testing.assert_close(new.detach(), old - 0.01 * g / (g.abs() + 1e-8), rtol=0, atol=1e-9)


def test_the_prior_sees_the_last_states() -> None:
    worker = trainer(updates="batch")
    last = leaves(first_walk(worker)[-1].target)[0]
    worker.walk()
    prior = worker.model.prior
    assert isinstance(prior, GaussianPrior)
    torch.testing.assert_close(prior.mean, last.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(prior.variance, last.var(0, correction=0), rtol=1e-12, atol=1e-12)


def test_every_walk_has_noise_of_its_own() -> None:
    """From one example, with weights that do not move, no first step is taken twice."""
    spy = Spy()
    worker = trainer(rows=ROWS[:1].repeat(8, 1), objective=spy, lr=1e-300)
    for _ in range(5):
        worker.walk()
    assert len(torch.cat(spy.firsts).unique(dim=0)) == 5 * 8


def test_every_walk_drops_units_of_its_own() -> None:
    """Training mode returns after an evaluation, and no two walks share their masks."""
    operator, masks = seeing_gaussian(dropout=0.4), list[Tensor]()
    dropout = next(module for module in operator.modules() if isinstance(module, nn.Dropout))
    dropout.register_forward_hook(lambda _, inputs, output: masks.append(output == 0))
    worker = trainer(operator, n1=0)
    for _ in range(3):
        operator.eval()
        worker.walk()
    walks = torch.stack(masks).reshape(3, -1)
    assert (walks.double().mean(1) - 0.4).abs().max() < 0.2
    assert len(walks.unique(dim=0)) == 3


@pytest.mark.parametrize("updates", MODES)
def test_under_bf16_every_weight_learns_and_densities_stay_in_single_precision(updates: Updates) -> None:
    spy, operator = Spy(), seeing_gaussian().float()
    worker = bf16_trainer(updates, operator)
    before = weights(worker)
    worker.walk()
    assert all(not value.equal(before[name]) for name, value in weights(worker).items() if "weight" in name)
    with autocast(CPU, "bf16"):
        steps = list(worker.model.walk(Start(ROWS[:4].float()), worker.model.levels(), rng()))
    assert (
        {spy(step).dtype for step in steps}
        == {leaves(step.target)[0].dtype for step in steps}
        == {torch.float32}
    )


@pytest.mark.parametrize("updates", MODES)
def test_under_bf16_every_forward_sees_the_current_weights(updates: Updates) -> None:
    """The first layer's output, recomputed from its input and the weights at the time of the call."""
    operator = seeing_gaussian().float()
    errors: list[float] = []

    def compare(layer: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> None:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            expected = nn.functional.linear(inputs[0], layer.weight, layer.bias)
            errors.append(float((expected - output).abs().max()))

    operator.network.input.register_forward_hook(compare)
    worker = bf16_trainer(updates, operator)
    for _ in range(3):
        worker.walk()
    assert len(errors) >= 12
    assert max(errors) < 0.05


@final
class Failing(Objective):
    """The walkback loss, until the call of a given number."""

    def __init__(self, call: int, value: float) -> None:
        self._left = call
        self._value = value

    def __call__(self, transition: Transition) -> Tensor:
        self._left -= 1
        return -transition.log_p * (self._value if self._left == 0 else 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("updates", "call"), [("batch", 8), ("stacked", 3), ("online", 7)])
def test_a_loss_that_is_not_finite_stops_before_the_update(updates: Updates, call: int, value: float) -> None:
    """Two walks of three steps go well; in the third the loss is not finite: nothing has changed by then."""
    good = trainer(updates=updates, n1=0)
    bad = trainer(updates=updates, n1=0, objective=Failing(call, value))
    for _ in range(2):
        good.walk()
        bad.walk()
    with pytest.raises(WalkbackError, match=r"at walk 2.*training\.lr"):
        bad.walk()
    ours, theirs = everything(good), everything(bad)
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


def test_online_keeps_the_updates_before_the_bad_step() -> None:
    bad = trainer(updates="online", n1=0, objective=Failing(3, math.nan))
    with pytest.raises(WalkbackError, match="nan"):
        bad.walk()
    assert bad.progress.updates == 2
    assert all(bool(value.isfinite().all()) for value in weights(bad).values())


@final
class Jagged(Objective):
    """A finite loss whose gradient is not: √ at zero."""

    def __call__(self, transition: Transition) -> Tensor:
        return (transition.log_p - transition.log_p.detach()).abs().sqrt()


def test_a_gradient_that_is_not_finite_stops_too() -> None:
    bad = trainer(objective=Jagged())
    before = weights(bad)
    with pytest.raises(WalkbackError, match="gradient norm of nan"):
        bad.walk()
    assert all(value.equal(before[name]) for name, value in weights(bad).items())
