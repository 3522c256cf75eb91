"""The energy's gradient is what it should be, with and without gradients, and the operator learns a Swiss roll."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from walkback_langevin.operator import Langevin

from walkback.configuration.layering import resolve
from walkback.data import Batch
from walkback.extensions.registry import Registry
from walkback.kernels import NormalKernel
from walkback.measuring.bound import estimate_bound
from walkback.schedules import Level
from walkback.state import Space
from walkback.testing import Case, Check, checks
from walkback.training.preparation import prepare
from walkback.training.trainer import Trainer

LEVEL = Level(2, 3.0)
CASE = Case.of("langevin", {"hidden": 16})


@pytest.mark.parametrize("check", checks("operator"), ids=str)
def test_conforms(check: Check) -> None:
    check(CASE)


def shaken() -> Langevin:
    """An operator in float64 with random weights everywhere."""
    operator = Langevin(Space((3,)), sigma=0.4, hidden=8).double()
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in operator.parameters():
            weight.normal_(std=0.7, generator=noise)
    return operator


def points(num: int = 5) -> Tensor:
    return torch.randn(num, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def mean(operator: Langevin, state: Tensor) -> Tensor:
    kernel = operator(state, LEVEL).cooling(LEVEL)
    assert isinstance(kernel, NormalKernel)
    return kernel.mean


def test_the_drift_is_half_a_step_down_the_energy() -> None:
    """Against central differences of the energy: μ - s = -½ T σ² ∇E."""
    operator, state, h = shaken(), points(), 1e-5
    drift = mean(operator, state) - state
    for i, shift in enumerate(h * torch.eye(3, dtype=torch.float64)):
        with torch.no_grad():
            slope = (operator.energy(state + shift, LEVEL) - operator.energy(state - shift, LEVEL)) / (2 * h)
        torch.testing.assert_close(drift[:, i], -0.5 * 3.0 * 0.4**2 * slope, rtol=1e-7, atol=1e-9)


def test_its_jacobian_is_symmetric() -> None:
    """It is I - ½ v times a Hessian; without f it would be diagonal, so the learned part must show."""
    operator = shaken()
    jacobian = torch.func.jacrev(lambda s: mean(operator, s[None])[0])(points(1)[0])
    torch.testing.assert_close(jacobian, jacobian.T, rtol=1e-9, atol=1e-12)
    assert (jacobian - torch.diag(jacobian.diag())).abs().max() > 1e-3


def test_sampling_without_gradients_gives_the_same_drift() -> None:
    operator, state = shaken(), points()
    with torch.no_grad():
        quiet = mean(operator, state)
    assert not quiet.requires_grad
    # Not bit by bit: torch differentiates SiLU by another formula where it may be differentiated again.
    torch.testing.assert_close(quiet, mean(operator, state).detach(), rtol=1e-12, atol=1e-12)


def test_the_loss_reaches_every_weight() -> None:
    """The second backward pass, against central differences in one weight of the first layer."""
    operator, state, target = shaken(), points(), points(10)[5:]

    def loss() -> Tensor:
        value: Tensor = -operator(state, LEVEL).cooling(LEVEL).log_prob(target).sum()
        return value

    loss().backward()  # type: ignore[no-untyped-call]
    assert all(w.grad is not None and bool(w.grad.abs().max() > 0) for w in operator.parameters())
    weight, h = operator.network[0].get_parameter("weight"), 1e-5
    assert weight.grad is not None
    with torch.no_grad():
        weight[0, 0] += h
        above = loss()
        weight[0, 0] -= 2 * h
        below = loss()
    assert weight.grad[0, 0].item() == pytest.approx((above - below).item() / (2 * h), rel=1e-6)


def test_it_learns_a_swiss_roll_better_than_any_gaussian() -> None:
    """-E[L] is below the entropy of the Gaussian with the data's covariance, ½ log |2πe Σ|, by 4.5 errors."""
    config = resolve(
        Registry.discover(),
        components={"operator": "langevin", "data": "swiss-roll"},
        overrides=[
            *("operator.sigma=0.1", "operator.hidden=64", "data.num=2000", "schedule.factor=2.0"),
            *("training.steps=300", "training.batch_size=64", "training.updates=stacked"),
            *("training.lr=0.01", "training.lr_schedule=cosine", "training.ema=0.98"),
        ],
    )
    parts = prepare(config, Registry.discover())
    trainer = Trainer(
        parts.model, parts.objective, parts.dataset, config.training, seed=0, device=torch.device("cpu")
    )
    for _ in range(config.training.steps):
        trainer.walk()
    data = parts.dataset.examples("test")
    noise = torch.Generator().manual_seed(0)
    bound = estimate_bound(trainer.averaged_model, [Batch(data)], parts.dataset.info, noise)
    gaussian = 0.5 * torch.logdet(2 * math.pi * math.e * data.double().T.cov()).item()
    assert bound.nats + 4.5 * bound.nats_error < gaussian
