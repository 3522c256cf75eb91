"""Training and sampling as a user would write them by hand: the scale of a benchmark.

    reference    two runs of the network a step, fp32, torch.distributions, AdamW by torch._foreach
    shared       one run a state, whose output scores the step to it and draws the next
    densities    kernels of walkback
    fused        fused AdamW
    bare         the precision of the run: the operations of `Trainer.walk` without anything around them

Each variant adds one switch to the one before. Operator, data, levels, and number of updates are those of the run; the
learning rate is constant. With stacked updates, the loop makes the same update step by step.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal, OneHotCategorical

from walkback.building.devices import Precision, autocast
from walkback.building.preparation import Prepared
from walkback.kernels import BernoulliKernel, CategoricalKernel, Kernel, NormalKernel
from walkback.model import Model
from walkback.objectives import Objective, PathObjective, Restricted
from walkback.processes import Stepwise
from walkback.sampling.chains import COLD
from walkback.schedules import Learned, Levels
from walkback.speed.race import Work
from walkback.state import State, leaves
from walkback.support.seeding import generator
from walkback.training.batches import BatchOrder
from walkback.training.optimization import WeightAverage, clip_gradients
from walkback.training.starts import DataStarts
from walkback.training.trainer import levels_of_walk
from walkback.walk import Start, Transition

Variant: TypeAlias = Literal["reference", "shared", "densities", "fused", "bare"]
VARIANTS: tuple[Variant, ...] = ("reference", "shared", "densities", "fused", "bare")
"""In the order of their switches."""


@final
class PlainKernel(Kernel):
    """A kernel of `torch.distributions`.

    Args:
        distribution: With one event dimension for each dimension of a state; it draws from the global generator.
    """

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution

    def sample(self, generator: torch.Generator) -> State:
        """Draw from the distribution, `(B, *E)`; `generator` is not used."""
        drawn: Tensor = self._distribution.sample()
        return drawn

    def log_prob(self, state: State) -> Tensor:
        """`(B,)`, nats."""
        density: Tensor = self._distribution.log_prob(leaves(state)[0])
        return density


def plain(kernel: Kernel) -> Kernel:
    """Return the same kernel by `torch.distributions`; kernels without one are returned unchanged."""
    if isinstance(kernel, NormalKernel):
        deviation = kernel.variance.sqrt().expand_as(kernel.mean)
        normal = Normal(kernel.mean, deviation)
        return PlainKernel(Independent(normal, kernel.mean.dim() - 1))
    if isinstance(kernel, BernoulliKernel):
        bits = Bernoulli(logits=kernel.logits)
        return PlainKernel(Independent(bits, kernel.logits.dim() - 1))
    if isinstance(kernel, CategoricalKernel):
        symbols = OneHotCategorical(logits=kernel.logits)
        return PlainKernel(Independent(symbols, kernel.logits.dim() - 2))
    return kernel


def writable_by_hand(prepared: Prepared) -> bool:
    """Whether a run is of the kind that these loops train: a local objective on stepwise walks, all from data."""
    return (
        not isinstance(prepared.objective, PathObjective)
        and isinstance(prepared.model.process, Stepwise)
        and not prepared.config.training.chains.share
        and not isinstance(prepared.model.schedule, Learned)
    )


@dataclass(frozen=True, slots=True)
class _Switches:
    """What a variant has beyond the reference."""

    shared: bool
    densities: bool
    fused: bool
    precision: Precision


def _switches(prepared: Prepared, variant: Variant) -> _Switches:
    place = VARIANTS.index(variant)
    return _Switches(place > 0, place > 1, place > 2, prepared.precision if place > 3 else "fp32")


def training_by_hand(prepared: Prepared, model: Model, variant: Variant, first: int) -> Work:
    """Return work that trains `model` on walks, beginning with number `first`; see `writable_by_hand`.

    It returns the loss, nats per step and example, a scalar.
    """
    settings, device, seed = prepared.config.training, prepared.device, prepared.config.run.seed
    objective, switches = prepared.objective, _switches(prepared, variant)
    if isinstance(objective, PathObjective):
        raise TypeError("Got an objective of whole walks, expected one of steps.")
    parameters = [p for p in model.operator.parameters() if p.requires_grad]
    update = _update(prepared, model, parameters, fused=switches.fused)
    starts = DataStarts(model, prepared.dataset, settings.unlabelled, device)
    order = BatchOrder(starts.count, settings.batch_size, seed)
    size, online, numbers = (
        prepared.dataset.info.space.size,
        settings.updates == "online",
        itertools.count(first),
    )
    model.operator.train()

    def work() -> Tensor:
        number, total = next(numbers), torch.zeros((), device=device)
        noise, levels = generator(device, seed, "noise", number, 0), levels_of_walk(model, seed, number)
        with autocast(device, switches.precision):
            start = starts.at(order.batch(number), noise)
            steps = model.walk(start, levels, noise) if switches.shared else _twice(model, start, levels)
            for transition in steps:
                loss = _loss(objective, transition, switches.densities).mean()
                (loss / size / (1 if online else len(levels))).backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
                last = transition.target
                if online:
                    update()
            if not online:
                update()
        model.prior.observe(last)
        return total / len(levels)

    return work


def sampling_by_hand(device: torch.device, model: Model, start: Start, steps: int) -> Work:
    """Return work that takes `steps` steps at T = 1 in fp32 by torch.distributions, from where it last ended."""
    state, noise = start.state, torch.Generator(device)
    operator = model.operator.eval()

    @torch.no_grad()
    def work() -> None:
        nonlocal state
        for _ in range(steps):
            state = plain(operator(state, COLD, start.context).cooling(COLD)).sample(noise)

    return work


def _update(prepared: Prepared, model: Model, parameters: list[nn.Parameter], *, fused: bool) -> Work:
    """Return work that updates the weights from their gradients."""
    settings = prepared.config.training
    optimizer = torch.optim.AdamW(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=fused or None,
        foreach=None if fused else True,
    )
    average = WeightAverage(model, settings.ema) if settings.ema else None

    def update() -> None:
        clip_gradients(parameters, settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        torch.clear_autocast_cache()
        if average is not None:
            average.update()

    return update


def _twice(model: Model, start: Start, levels: Levels) -> Iterator[Transition]:
    """Walk with two runs of the network a step, one to draw and one to score."""
    process, source, unused = model.process, start.state, torch.Generator(model.device)
    anchor = start.state if start.anchor is None else start.anchor
    if not isinstance(process, Stepwise):
        raise TypeError(f"Got {type(process).__name__}, expected a process that draws step by step.")
    for level in levels:
        with torch.no_grad():
            conditional = model.operator(source, level, start.context)
            forward = process.heating(conditional, source, level, start.state)
            target = plain(forward).sample(unused)
        reverse = model.operator(target, level, start.context).cooling(level)
        yield Transition(source, target, level, forward, reverse, anchor, start.context)
        source = target


def _loss(objective: Objective, transition: Transition, densities: bool) -> Tensor:
    """Return the loss of a step; objectives that look into kernels get those of walkback."""
    if densities or isinstance(objective, Restricted):
        return objective(transition)
    return objective(transition._replace(reverse=plain(transition.reverse)))
