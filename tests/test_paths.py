"""Walks that are differentiated: gradients against finite differences, memory, what they learn, what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from tests.program import TINY, run, walkback
from tests.toy.exact import Fixed, gaussian
from tests.toy.learned import blind_bernoulli, seeing_gaussian
from tests.toy.paper import gaussian_mlp
from tests.toy.statistics import normal, rng
from tests.toy.trainers import (
    CPU,
    ROWS,
    batchnorm_conv,
    bf16_trainer,
    dropout_mlp,
    everything,
    resumed,
    small_model,
    trainer,
    weights,
)
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import BernoulliKernel, NormalKernel, ProductKernel
from walkback.measuring.bound import path_bound
from walkback.model import Model
from walkback.operators import TransitionOperator
from walkback.processes import TiedProcess
from walkback.schedules import Levels, levels_from
from walkback.state import Space, leaves
from walkback.training.paths import path_loss, reparametrized, require_reparametrized
from walkback.walk import Start
from walkback_paper.objectives import NegativeBound

LEVELS = levels_from([1.0, 1.0, 2.0, 4.0])
HOW: list[Literal["never", "always"]] = ["never", "always"]


def tiny(levels: Levels = LEVELS, operator: TransitionOperator | None = None) -> Model:
    """A Gaussian operator with every weight at random; its heating and cooling variances differ."""
    prior = gaussian(torch.tensor([0.3, -1.0, 0.5]).double(), torch.tensor([2.0, 3.0, 1.5]).double())
    return Model(operator or seeing_gaussian(), Fixed(levels), TiedProcess(), prior)


def gradients(model: Model, how: Literal["never", "always"], levels: Levels = LEVELS) -> list[Tensor]:
    parameters = list(model.operator.parameters())
    loss, _ = path_loss(model, NegativeBound(checkpointing=how), Start(normal(5, 3)), levels, rng(4))
    return list(torch.autograd.grad(loss.mean(), parameters))


# --- kernels as functions of noise


def test_a_normal_kernel_transports_its_noise_to_what_it_would_draw() -> None:
    mean = normal(4, 2, 3).requires_grad_()
    variance = normal(4, 2, 3, seed=1).exp().requires_grad_()
    kernel = NormalKernel(mean, variance)
    drawn, moved = kernel.sample(rng(2)), kernel.transport(kernel.noise(rng(2)))
    assert drawn.equal(moved.detach())
    assert not drawn.requires_grad
    to_mean, to_variance = torch.autograd.grad(moved.sum(), [mean, variance])
    assert to_mean.equal(torch.ones_like(mean))
    noise = (drawn - mean) / variance.sqrt()  # x = μ + √v ε, so ∂x/∂v = ε / (2 √v)
    torch.testing.assert_close(to_variance, (noise / (2 * variance.sqrt())).detach())


def test_a_product_is_a_function_of_noise_if_all_of_its_parts_are() -> None:
    one, two = NormalKernel(normal(4, 2), torch.ones(1, 2)), NormalKernel(normal(4, 3), torch.ones(1, 3))
    product = ProductKernel([one, ProductKernel([two])])
    found = reparametrized(product)
    assert found is not None
    drawn, moved = leaves(product.sample(rng())), leaves(found.transport(found.noise(rng())))
    assert [a.equal(b) for a, b in zip(drawn, moved, strict=True)] == [True, True]
    assert reparametrized(ProductKernel([one, BernoulliKernel(normal(4, 2))])) is None


def test_bits_are_no_function_of_noise() -> None:
    with pytest.raises(
        ConfigurationError, match=r"BernoulliKernel are not a differentiable function.* choose"
    ):
        require_reparametrized(BernoulliKernel(normal(4, 2)))


# --- the gradient


@pytest.mark.parametrize("how", HOW)
def test_the_loss_is_minus_the_bound_of_the_same_path(how: Literal["never", "always"]) -> None:
    model, data = tiny(), normal(50, 3)
    loss, last = path_loss(model, NegativeBound(checkpointing=how), Start(data), LEVELS, rng(3))
    torch.testing.assert_close(loss, -path_bound(model, data, LEVELS, rng(3)), rtol=1e-12, atol=1e-12)
    assert loss.shape == (50,)
    assert not leaves(last)[0].requires_grad


@pytest.mark.parametrize("how", HOW)
def test_the_gradient_is_that_of_finite_differences(how: Literal["never", "always"]) -> None:
    """Along random directions of all weights, with the noise held fixed: central differences of `path_bound`."""
    model, data, step = tiny(), normal(5, 3), 1e-5
    found = gradients(model, how)
    parameters = list(model.operator.parameters())
    for number in range(4):
        directions = [
            torch.randn(p.shape, generator=rng(100 + number), dtype=torch.float64) for p in parameters
        ]
        values = []
        for sign in (1, -2, 1):  # to +h, to -h, and back
            with torch.no_grad():
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter += sign * step * direction
            values.append(float(-path_bound(model, data, LEVELS, rng(4)).mean()))
        slope = sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True))
        assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6)
        assert abs(slope) > 1e-2


def test_the_gradient_reaches_data_independent_parts_of_the_prior() -> None:
    """p*'s mean, were it a parameter: ∂(-log p*)/∂m = -(s_K - m) / v."""
    model = tiny()
    prior: Any = model.prior
    prior.mean.requires_grad_()
    loss, last = path_loss(model, NegativeBound(), Start(normal(5, 3)), LEVELS, rng(4))
    (found,) = torch.autograd.grad(loss.sum(), [prior.mean])
    torch.testing.assert_close(found, -((leaves(last)[0] - prior.mean) / prior.variance).sum(0).detach())


@pytest.mark.parametrize("make", [seeing_gaussian, dropout_mlp])
def test_computing_steps_again_changes_no_gradient(make: Callable[[], TransitionOperator]) -> None:
    found = []
    for how in HOW:
        torch.manual_seed(3)
        found.append(gradients(tiny(operator=make().train()), how))
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-12, atol=1e-12)
    assert max(float(gradient.abs().max()) for gradient in found[0]) > 1e-2


def test_computing_steps_again_counts_no_batch_twice() -> None:
    """Weights and statistics of batch norm after three walks are those of walks without checkpoints."""
    ours, theirs = (
        everything_after(
            trainer(batchnorm_conv(), rows=normal(30, 1, 4, 4), objective=NegativeBound(checkpointing=how))
        )
        for how in HOW
    )
    assert [name for name in ours if name.startswith("operator.") and name.endswith("running_mean")]
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-9, atol=1e-9)


def everything_after(worker: Any, walks: int = 3) -> dict[str, Tensor]:
    for _ in range(walks):
        worker.walk()
    return everything(worker)


def kept(how: Literal["never", "always"], steps: int) -> int:
    """Numbers held for the backward pass."""
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.data_ptr()] = tensor
        return tensor

    operator = gaussian_mlp(Space((3,)), hidden=64, depth=3).double()
    levels = levels_from([1.0] * steps)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss, _ = path_loss(
            tiny(levels, operator), NegativeBound(checkpointing=how), Start(normal(50, 3)), levels, rng()
        )
    loss.mean().backward()  # type: ignore[no-untyped-call]
    return sum(tensor.numel() for tensor in held.values())


def test_memory_of_a_step_is_that_of_states_instead_of_networks() -> None:
    """A further step keeps a network's activations, 64 × 50 numbers a layer; checkpointed, a few 3 × 50."""
    plain, again = ((kept(how, 12) - kept(how, 6)) / 6 for how in HOW)
    assert plain > 6 * 64 * 50
    assert again < 12 * 3 * 50


def test_auto_computes_long_walks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    real = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        "walkback.training.paths.checkpoint", lambda *a, **k: calls.append(a) or real(*a, **k)
    )
    for steps in (19, 20):
        levels = levels_from([1.0] * steps)
        path_loss(tiny(levels), NegativeBound(), Start(normal(2, 3)), levels, rng())
        assert len(calls) == (0 if steps == 19 else 21)  # the network at s_0, and one a step


# --- training


def test_one_update_is_adams_with_the_gradient_of_the_bound_per_step_and_dimension() -> None:
    """θ ← θ - lr g / (|g| + ε), g = ∇ (-L) / (K · D)."""
    worker = trainer(objective=NegativeBound(), clip=0.0, n1=0, betas=(0.0, 0.999))
    worker.walk()
    moments = [value for name, value in worker.state()[0].items() if name.endswith("exp_avg")]
    again = trainer(n1=0)
    from walkback.support.seeding import generator

    levels = again.model.levels(generator("cpu", 0, "schedule", 0))
    order = torch.randperm(50, generator=generator("cpu", 0, "order", 0))[:8]
    loss, _ = path_loss(
        again.model, NegativeBound(), Start(ROWS[order]), levels, generator("cpu", 0, "noise", 0, 0)
    )
    expected = torch.autograd.grad(loss.mean() / len(levels) / 3, list(again.model.operator.parameters()))
    assert len(levels) == 3
    for moment, gradient in zip(moments, expected, strict=True):
        torch.testing.assert_close(moment, gradient, rtol=1e-9, atol=1e-12)
    assert (worker.progress.walks, worker.progress.updates) == (1, 1)


def test_resuming_is_bit_identical() -> None:
    def make() -> Any:
        return trainer(dropout_mlp(), objective=NegativeBound(checkpointing="always"))

    straight, stopped = make(), make()
    for _ in range(4):
        straight.walk()
    for _ in range(2):
        stopped.walk()
    stopped = resumed(stopped, make())
    for _ in range(2):
        stopped.walk()
    ours, theirs = everything(straight), everything(stopped)
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


@pytest.mark.parametrize("how", HOW)
def test_under_bf16_every_weight_learns(how: Literal["never", "always"]) -> None:
    operator = seeing_gaussian().float()
    worker = bf16_trainer("batch", operator, NegativeBound(checkpointing=how))
    before = weights(worker)
    worker.walk()
    assert all(not value.equal(before[name]) for name, value in weights(worker).items() if "weight" in name)


def gap_after(objective: Any, steps: int) -> tuple[float, float]:
    """log p_true - L on Gaussian points after training a fixed-variance operator, mean and standard error."""
    means, spread = torch.tensor([1.0, -2.0]), torch.tensor([1.0, 0.6])
    rows = means + spread * normal(20_000, 2).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        operator = gaussian_mlp(Space((2,)), sigma=0.4, variance="fixed", mean="mix", hidden=16, depth=1)
    operator.fit_data(rows)
    system = small_model(operator, (2,), n1=1)
    system.prior.float().fit(rows)
    from tests.toy.data import InMemory

    from walkback.configuration.settings import TrainingSettings
    from walkback.training.trainer import Trainer

    settings = TrainingSettings(steps=steps, batch_size=256, lr=1e-2, lr_schedule="cosine", ema=0.98)
    worker = Trainer(system, objective, InMemory(rows), settings, seed=0, device=CPU)
    for _ in range(steps):
        worker.walk()
    data = means + spread * normal(5000, 2, seed=7).float()
    model = worker.averaged_model
    with model.evaluating():
        lost = torch.distributions.Normal(means, spread).log_prob(data).sum(1) - path_bound(
            model, data, model.levels(), rng()
        )
    return lost.mean().item(), lost.std().item() / math.sqrt(len(lost))


def test_it_reaches_a_bound_no_worse_than_the_local_rules() -> None:
    from walkback_paper.objectives import WalkbackLoss

    (local, error), (full, other) = (gap_after(rule, 150) for rule in (WalkbackLoss(), NegativeBound()))
    assert -4.5 * other < full < local + 4.5 * math.hypot(error, other)
    assert full < 0.5


# --- what is refused


@pytest.mark.parametrize("updates", ["online", "stacked"])
def test_a_walk_has_one_gradient(updates: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"training\.updates = '{updates}' .* expected 'batch'"):
        trainer(objective=NegativeBound(), updates=updates)


def test_walks_from_own_chains_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"chains\.share = 0\.5 .* expected 0"):
        trainer(objective=NegativeBound(), chains={"share": 0.5, "pool": 8})


def test_bits_are_refused_before_training() -> None:
    done = walkback("run", "--dry-run", *TINY, "--operator", "bernoulli-mlp", "--set", "objective.name=elbo")
    assert (done.code, done.out) == (2, "")
    assert "Samples of BernoulliKernel are not a differentiable function" in done.err
    with pytest.raises(ConfigurationError, match="BernoulliKernel"):
        path_loss(
            tiny(operator=blind_bernoulli()), NegativeBound(), Start(torch.ones(2, 3).double()), LEVELS, rng()
        )


def test_a_run_with_the_bound_as_objective(tmp_path: Any) -> None:
    done = run(tmp_path / "a", "--set", "objective.name=elbo", "--set", "objective.checkpointing=always")
    assert done.code == 0, done.err
