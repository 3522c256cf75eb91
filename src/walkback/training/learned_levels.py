"""Levels that are learned with the operator, for the bound.

    -L(T_1 … T_K) = E[-log p(s_0 | s_1)] + Σ_{t=2}^K E[KL(q(s_{t-1} | s_t, s_0) ‖ p_{T_t}(s_{t-1} | s_t))]
                    + E[log q(s_K | s_0) - log p*(s_K)],      s_t = τ_t(ε; s_0)

As K grows, the bound of a diffusion depends on the first and the last level only (Kingma et al. 2021, eq. 18), and
levels between them can be chosen for the variance of the loss. With K levels it depends on all of them, so all are
trained for the bound itself, whatever the objective of the operator.

The gradient is exact on average: states are functions of noise, and p depends on the levels as q does. Each walk runs
the network once more: the rows are spread evenly over the levels, and K times the mean of their terms is the sum.
Operator and prior are constants here; a prior that tracks the moments of s_K minimizes the last term, so that its own
change with the levels adds nothing to first order.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from walkback.configuration.settings import TrainingSettings
from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, divergence
from walkback.levels import rows_of
from walkback.model import Model
from walkback.processes import Jumping
from walkback.schedules import Learned, Level
from walkback.state import State, batch_size, device_of
from walkback.support.seeding import generator
from walkback.support.world import World
from walkback.training.paths import reparametrized
from walkback.walk import Start, bound_term


def level_bound(model: Model, temperatures: Tensor, start: Start, noise: torch.Generator) -> Tensor:
    """Return an estimate of -L for each row, differentiable in the temperatures, `(B,)`, nats; unbiased in their mean.

    Args:
        model: A model whose process is `Jumping`, with noise that is a function of standard noise.
        temperatures: T_1 … T_K, `(K,)`, float64.
        start: s_0 with its context.
        noise: The only source of randomness.
    """
    process, state = _jumping(model), start.state
    count, rows, device = len(temperatures), batch_size(state), device_of(state)
    table = _table(temperatures.to(device))
    places = torch.randperm(rows, generator=noise, device=device)
    shift = torch.rand((), generator=noise, device=device, dtype=torch.float64)
    level = rows_of(table, ((places + shift) * count / rows).long().clamp(max=count - 1))
    target, _ = _moved(process.marginal(state, level), noise)
    reverse = model.operator(target, level, start.context).cooling(level)
    term = bound_term(process.posterior(target, level, state), reverse, state, level)
    hottest = rows_of(table, torch.full((1,), count - 1, device=device))
    end, kernel = _moved(process.marginal(state, hottest), noise)
    return count * term + kernel.log_prob(end) - model.prior.log_prob(end)


@final
class LevelGradients:
    """Gives the parameters of a schedule the gradient of the bound; does nothing if levels are not learned.

    Args:
        model: The model in training.
        dimensions: Number of dimensions; like other losses, the bound is divided by it, and by K.
        seed: The run's seed.
        world: The place of this process among others, which have equal levels.

    Attributes:
        parameters: The parameters of the schedule, if it is `Learned`.
    """

    def __init__(self, model: Model, dimensions: int, seed: int, world: World) -> None:
        self._model = model
        self._dimensions = dimensions
        self._seed = seed
        self._world = world
        own = model.modules["schedule"] if isinstance(model.schedule, Learned) else nn.Module()
        self.parameters: list[nn.Parameter] = list(own.parameters())

    def add(self, start: Start, number: int) -> None:
        """Set the gradients from the starts of walk `number`."""
        schedule, model = self._model.schedule, self._model
        if not isinstance(schedule, Learned):
            return
        noise = generator(device_of(start.state), self._seed, "levels", number, self._world.rank)
        temperatures = schedule.temperatures(model.max_temperature)
        with model.evaluating():  # dropout and batch statistics are not part of the bound
            bound = level_bound(model, temperatures, start, noise).mean()
        loss = bound / self._dimensions / len(temperatures)
        for parameter, gradient in zip(
            self.parameters, torch.autograd.grad(loss, self.parameters), strict=True
        ):
            parameter.grad = gradient if self._world.size == 1 else self._world.mean(gradient)


def require_learnable_levels(
    model: Model, settings: TrainingSettings, start: Start, noise: torch.Generator
) -> None:
    """Check that the levels of a model can be learned.

    Raises:
        ConfigurationError: The noise of the process is not known in closed form or not differentiable, terms of the
            bound have no closed form, or walks start from persistent chains.
    """
    process, name = _jumping(model), type(model.schedule).__name__
    if settings.chains.share:
        raise ConfigurationError(
            f"Got training.chains.share = {settings.chains.share} with {name}, whose levels are learned, expected 0: "
            "the bound is that of data."
        )
    level = model.levels()[-1]
    marginal = process.marginal(start.state, level)
    if reparametrized(marginal) is None:
        raise ConfigurationError(
            f"Got noise that draws {type(marginal).__name__}s with {name}, whose levels are learned, expected Gaussian "
            "noise, which is differentiable: choose another schedule.name."
        )
    target = marginal.sample(noise)
    reverse = model.operator(target, level, start.context).cooling(level)
    if divergence(process.posterior(target, level, start.state), reverse) is None:
        raise ConfigurationError(
            f"Got an operator that draws {type(reverse).__name__}s with {name}, whose levels are learned, expected "
            "kernels whose divergence from the noise is known: choose an operator with normal kernels."
        )


def _jumping(model: Model) -> Jumping:
    process = model.process
    if not isinstance(process, Jumping):
        raise ConfigurationError(
            f"Got the process {type(process).__name__} with {type(model.schedule).__name__}, whose levels are learned, "
            "expected noise that does not depend on the operator: set process.name = 'diffusion', or choose another "
            "schedule.name."
        )
    return process


def _table(temperatures: Tensor) -> Level:
    """Return all levels as one of tensors `(K,)`."""
    none = temperatures.new_zeros(1)
    steps = torch.arange(1, len(temperatures) + 1, device=temperatures.device)
    colder = torch.cat([none, temperatures[:-1]])
    return Level(steps, temperatures, colder, torch.cat([none, temperatures[:-1].cumsum(0)]))


def _moved(kernel: Kernel, noise: torch.Generator) -> tuple[State, Kernel]:
    """Draw a state as a differentiable function of noise; return it with its kernel."""
    found = reparametrized(kernel)
    if found is None:
        raise TypeError(f"Got {type(kernel).__name__}, expected a function of noise.")
    return found.transport(found.noise(noise)), kernel
