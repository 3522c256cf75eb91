"""The device computes what the CPU computes: the same numbers in float64, up to the order of sums."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy

import pytest
import torch
from tests.cuda.parts import (
    IMAGES,
    ROWS,
    TEMPERATURES,
    accepted_space,
    build_model,
    build_operator,
    build_prior,
    generator,
    learners,
    levels,
    make,
    offers,
    operator_of,
    operators,
    process_for,
    states,
    to_cpu,
    walkers,
)
from tests.cuda.same_noise import SameNoise
from torch import Tensor

import walkback.kernels
from walkback.kernels import (
    BernoulliKernel,
    CategoricalKernel,
    DiscretizedKernel,
    Kernel,
    NormalKernel,
    ProductKernel,
    StackedKernel,
)
from walkback.model import Model
from walkback.objectives import PathObjective
from walkback.state import leaves, map_state
from walkback.training.paths import path_loss
from walkback.walk import Start

pytestmark = pytest.mark.cuda

CPU, F64 = torch.device("cpu"), torch.float64
KERNELS: Mapping[type[Kernel], Callable[[Tensor], Kernel]] = {
    NormalKernel: lambda x: NormalKernel(x, x.square() + 0.1),
    BernoulliKernel: BernoulliKernel,
    CategoricalKernel: CategoricalKernel,
    ProductKernel: lambda x: ProductKernel([BernoulliKernel(x), NormalKernel(2 * x, x.square() + 0.1)]),
    DiscretizedKernel: lambda x: DiscretizedKernel(
        NormalKernel(x.sigmoid(), 0.01 * x.square() + 0.01),
        8,
        torch.arange(len(x), device=x.device)[:, None, None] > 3,
    ),
    StackedKernel: lambda x: StackedKernel([NormalKernel(x[:4], x[:4].exp()), BernoulliKernel(x[4:])], 4),
}
"""Each kernel of the core, made from some numbers."""


def agree(found: Tensor, expected: Tensor) -> None:
    """Equal up to rounding in float64."""
    torch.testing.assert_close(to_cpu(found), to_cpu(expected), rtol=1e-9, atol=1e-9)


def test_no_kernel_of_the_core_is_forgotten() -> None:
    found = {
        value
        for name, value in vars(walkback.kernels).items()
        if inspect.isclass(value) and issubclass(value, Kernel) and not inspect.isabstract(value)
        if not name.startswith("_")
    }
    assert found == set(KERNELS)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_kernels(device: torch.device, kernel: type[Kernel]) -> None:
    """Samples with the same noise, and their log-probabilities."""
    numbers = torch.randn(ROWS, 3, 2, generator=generator("cpu", 0), dtype=F64)
    found = []
    for where in (CPU, device):
        made = KERNELS[kernel](numbers.to(where))
        with SameNoise() as noise:
            drawn = made.sample(generator(where, 0))
        assert noise.draws > 0
        found.append((*leaves(drawn), made.log_prob(drawn)))
    for expected, value in zip(*found, strict=True):
        assert value.device.type == device.type
        agree(value, expected)


@pytest.mark.parametrize("name", operators())
def test_log_densities_of_operators(device: torch.device, name: str) -> None:
    """Cooling and heating, at every level, of states that are no samples."""
    space = accepted_space("operator", name)
    here = build_operator(name, space, F64).eval()
    there = deepcopy(here).to(device)
    source, target = states(space, ROWS), states(space, ROWS, seed=2)
    with torch.no_grad():
        for level, moved in zip(levels(CPU), levels(device), strict=True):
            expected, found = here(source, level), there(source.to(device), moved)
            for wanted, kernel in (
                (expected.cooling(level), found.cooling(moved)),
                (expected.heating(level), found.heating(moved)),
            ):
                agree(kernel.log_prob(target.to(device)), wanted.log_prob(target))


@pytest.mark.parametrize("name", offers()["prior"])
def test_priors(device: torch.device, name: str) -> None:
    """Samples with the same noise and log-densities, before and after it has seen states."""
    space = accepted_space("prior", name)
    here = build_prior(name, space, F64)
    there = deepcopy(here).to(device)
    seen, judged = states(space, 64, seed=3), states(space, ROWS)
    for _ in range(2):
        agree(there.log_prob(judged.to(device)), here.log_prob(judged))
        drawn = []
        for prior, where in ((here, CPU), (there, device)):
            with SameNoise():
                drawn.append(prior.sample(ROWS, generator(where, 0)))
        agree(drawn[1], drawn[0])
        here.observe(seen)
        there.observe(seen.to(device))


def both(name: str, device: torch.device, process: str = "tied") -> tuple[Model, Model]:
    """The same model on the CPU and on the device."""
    here = build_model(name, process, F64)
    return here, deepcopy(here).to(device)


def walked(model: Model, origin: Tensor, where: torch.device) -> list[dict[str, Tensor]]:
    """States and log-probabilities of each step of a walk."""
    steps = []
    with SameNoise() as noise, torch.no_grad(), model.evaluating():
        start = Start(origin, prior=model.prior)
        for step in model.path(start, levels(where), generator(where, 0)):
            (target,) = leaves(step.target)
            steps.append({"target": target, "log_p": step.log_p, "log_q": step.log_q})
    assert noise.draws >= len(TEMPERATURES)
    return steps


@pytest.mark.parametrize(("name", "process"), walkers())
def test_walks_with_the_same_noise(device: torch.device, name: str, process: str) -> None:
    here, there = both(name, device, process)
    origin = states(accepted_space("operator", name), ROWS)
    pairs = zip(walked(here, origin, CPU), walked(there, origin.to(device), device), strict=True)
    for expected, found in pairs:
        for key, value in found.items():
            assert value.device.type == device.type
            agree(value, expected[key])


def updated(model: Model, objective_name: str, origin: Tensor, where: torch.device) -> list[Tensor]:
    """Parameters after one step of Adam along the gradient of a walk's objective."""
    objective = make("objective", objective_name).build("objective")
    model.operator.train()
    optimizer = torch.optim.Adam(model.operator.parameters(), lr=1e-2)
    noise = generator(where, 0)
    with SameNoise():
        if isinstance(objective, PathObjective):
            loss = path_loss(model, objective, Start(origin), levels(where), noise)[0].mean()
        else:
            steps = model.path(Start(origin), levels(where), noise)
            loss = torch.stack([objective(step).mean() for step in steps]).mean()
    loss.backward()
    optimizer.step()
    return list(model.operator.parameters())


def assert_one_update_agrees(name: str, objective: str, device: torch.device) -> None:
    space = accepted_space("operator", name)
    here, there = both(name, device, process_for(objective))
    before = [parameter.detach().clone() for parameter in here.operator.parameters()]
    origin = states(space, ROWS)
    expected = updated(here, objective, origin, CPU)
    found = updated(there, objective, origin.to(device), device)
    assert any(not torch.equal(old, new) for old, new in zip(before, expected, strict=True))
    for value, wanted in zip(found, expected, strict=True):
        # Adam divides by |g| + 1e-8: a gradient that is 0 but for rounding may move a weight by 1e-9.
        torch.testing.assert_close(to_cpu(value), to_cpu(wanted), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", learners())
def test_one_update_of_every_operator(device: torch.device, name: str) -> None:
    assert_one_update_agrees(name, "walkback", device)


@pytest.mark.parametrize("objective", offers()["objective"])
def test_one_update_by_every_objective(device: torch.device, objective: str) -> None:
    assert_one_update_agrees(operator_of("real"), objective, device)


def test_the_same_noise_is_the_same_and_comes_from_the_generator(device: torch.device) -> None:
    """The tests above see a difference: another seed gives other states."""
    shape = (4, *IMAGES["real"].shape)
    drawn = []
    for where, seed in ((CPU, 0), (device, 0), (device, 1)):
        with SameNoise():
            drawn.append(torch.randn(shape, generator=generator(where, seed), device=where, dtype=F64))
    expected, found, other = map(to_cpu, drawn)
    assert torch.equal(found, expected)
    assert not torch.equal(other, expected)
    assert map_state(torch.Tensor.cpu, drawn[1]).device == CPU
