"""Small models of any components on a chosen device, trained and asked for steps; and what must hold of them.

`require_the_same` and `require_no_wait_per_step` are what the device tests assert; planted mistakes must break them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tests.test_conformance_builtins import NAMES, registry, small
from tests.toy.data import InMemory
from tests.toy.standin import CPU, DEVICE, Machine, standin
from torch import Tensor
from torch.nn.functional import one_hot

from walkback.configuration.settings import TrainingSettings
from walkback.measuring import work
from walkback.model import Model
from walkback.operators import DataAware
from walkback.sampling import SamplePlan, cool, last, sample_frames
from walkback.sampling.inpainting import inpaint
from walkback.sampling.readout import read_out
from walkback.schedules import Levels, levels_from
from walkback.state import Space, leaves
from walkback.support.seeding import generator, lent_seed
from walkback.testing import Case
from walkback.training.trainer import Trainer

REAL, BITS, SYMBOLS = Space((1, 8, 8)), Space((1, 8, 8), "binary"), Space((6, 3), "one-hot")
SUPPORTS = {"bernoulli": BITS, "fair-bits": BITS}
SUPPORTS |= dict.fromkeys(("categorical", "markov", "uniform-symbols"), SYMBOLS)
"""Spaces by the beginning of the name of an operator or of a prior; the others are for real states."""

PRIORS = {"real": "gaussian", "binary": "bernoulli", "one-hot": "categorical"}
WALKS = 2


def space_of(name: str) -> Space:
    return next((space for start, space in SUPPORTS.items() if name.startswith(start)), REAL)


def names(kind: str) -> list[str]:
    return [name for found, name in NAMES if found == kind]


@dataclass(frozen=True)
class Parts:
    """Components by name, with more options than those that keep them small."""

    operator: str = "gaussian-mlp"
    prior: str = ""
    process: str = "tied"
    objective: str = "walkback"
    schedule: str = "doubling"
    options: dict[str, Any] = field(default_factory=dict)

    def space(self) -> Space:
        """What the operator is for; a prior for bits wants an operator for them."""
        if space_of(self.operator) is not REAL:
            return space_of(self.operator)
        options = self.options.get("operator", {})
        noise = 0.05 if options.get("smoothed") else 0.0
        return replace(REAL, noise=noise, bins=16 if options.get("last") == "discretized" else None)

    def build(self, kind: str, *arguments: Any) -> Any:
        name = getattr(self, kind)
        more = self.options.get(kind, {})
        if name == "doubling":
            more = {"n1": 1, "max_temperature": 4.0, **more}
        options = {**small(kind, name), **more}
        if "network" in more:
            options["network"] = {**small(kind, name)["network"], **more["network"]}
        return Case.of(name, options, registry=registry()).build(kind, *arguments)

    def model(self) -> tuple[Model, Tensor]:
        """A small model on the CPU, fitted to its data, and the data `(30, *E)`."""
        space = self.space()
        rows = torch.randn(30, *space.shape, generator=torch.Generator().manual_seed(3))
        if space.support == "one-hot":
            rows = one_hot(rows.argmax(-1), space.shape[-1]).float()
        else:
            rows = (rows > 0).float() if space.support == "binary" else 0.5 + 0.25 * rows
            rows = rows if space.bins is None else rows.clamp(0.0, 1.0)
        operator = self.build("operator", space)
        if isinstance(operator, DataAware):
            operator.fit_data(rows)
        with lent_seed(1), torch.no_grad():  # outputs that are not all zero
            for parameter in operator.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape))
        prior = Parts(prior=self.prior or PRIORS[space.support]).build("prior", space)
        prior.fit(rows)
        return Model(operator, self.build("schedule"), self.build("process"), prior), rows

    def trainer(self, device: torch.device, **settings: Any) -> Trainer:
        model, rows = self.model()
        precision = settings.pop("precision", "fp32")
        chosen = TrainingSettings(**{"batch_size": 6, "ema": 0.9, "lr": 1e-3, **settings})
        return Trainer(
            model.to(device),
            self.build("objective"),
            InMemory(rows, support=self.space().support),
            chosen,
            seed=5,
            device=device,
            precision=precision,
        )


def everything(worker: Trainer) -> dict[str, Tensor]:
    """All that training has changed."""
    return {
        **worker.state()[0],
        **{f"averaged.{k}": v for k, v in worker.averaged_model.operator.state_dict().items()},
        **{f"prior.{k}": v for k, v in worker.model.prior.state_dict().items()},
    }


def waits_of_training(machine: Machine, worker: Trainer, walks: int = WALKS) -> list[str]:
    """What the walks after the first made the CPU wait for; the first may make ready."""
    worker.walk()
    machine.waits.clear()
    for _ in range(walks - 1):
        worker.walk()
    return list(machine.waits)


def require_the_same(parts: Parts, **settings: Any) -> None:
    """Training on the stand-in has no mistake, waits for nothing, and leaves what the CPU leaves, bit for bit."""
    with standin() as machine:
        worker = parts.trainer(DEVICE, **settings)
        waits = waits_of_training(machine, worker)
        found = everything(worker)
        places = {name for name, value in found.items() if not machine.on_device(value)}
    assert not waits, f"waits in walks: {waits}"
    assert not places, f"left on the CPU: {places}"
    on_cpu = parts.trainer(CPU, **settings)
    for _ in range(WALKS):
        on_cpu.walk()
    expected = everything(on_cpu)
    assert found.keys() == expected.keys()
    wrong = [name for name in expected if not found[name].equal(expected[name])]
    assert not wrong, f"other numbers than on the CPU: {wrong}"


# --- what is not training


@dataclass(frozen=True)
class Placed:
    """A model and data of its kind on one device."""

    model: Model
    rows: Tensor
    device: torch.device

    def noise(self) -> torch.Generator:
        return generator(self.device, 0, "test")


def placed(operator: str, device: torch.device) -> Placed:
    model, rows = Parts(operator).model()
    return Placed(model.to(device), rows.to(device), device)


def levels(count: int) -> Levels:
    return levels_from([1.0 + number for number in range(count)])


def heat(at: Placed, count: int) -> Tensor:
    return work.heating_work(at.model, at.rows, levels(count), at.noise()).work


def reheat(at: Placed, count: int) -> Tensor:
    return work.reheating_work(at.model, at.rows, levels(count), at.noise()).work


def cooled(at: Placed, count: int) -> Tensor:
    return work.cooling_work(at.model, 20, levels(count), at.noise())[1].work


def annealed(at: Placed, count: int) -> Tensor:
    start = at.model.prior.sample(5, at.noise())
    return leaves(last(cool(at.model.operator, start, levels(count), at.noise())))[0]


def framed(at: Placed, count: int) -> Tensor:
    """One frame at the end of a chain: it is read, the steps are not."""
    plan = SamplePlan(num=5, chain=count, every=count, batch_size=3)
    frames = [
        state for _, _, state in sample_frames(at.model, levels(2), plan, at.device) if state is not None
    ]
    return torch.stack([read_out(at.model.operator, frame, "mean").cpu() for frame in frames])


def started(at: Placed, count: int) -> Tensor:
    plan = SamplePlan(num=30, chain=count, every=count)
    frames = [s for _, _, s in sample_frames(at.model, (), plan, at.device, at.rows.cpu()) if s is not None]
    return leaves(frames[-1])[0]


def filled(at: Placed, count: int) -> Tensor:
    mask = (
        torch.arange(at.rows.shape[-2], device=at.device)[:, None] < 4
    )  # rows of pixels, or places of symbols
    return leaves(last(inpaint(at.model, at.rows, mask, levels(count), at.noise(), extra=count)))[0]


Verb = Callable[[Placed, int], Tensor]
VERBS: tuple[Verb, ...] = (heat, reheat, cooled, annealed, framed, started, filled)


def require_no_wait_per_step(operator: str, verb: Verb) -> None:
    """However many steps there are, the CPU waits as often; and the numbers are the CPU's."""
    with standin() as machine:
        at, waits = placed(operator, DEVICE), []
        with at.model.evaluating():
            for count in (1, 1, 3):
                machine.waits.clear()
                found = verb(at, count)
                waits.append(sorted(machine.waits))
    more = [wait for wait in set(waits[2]) if waits[2].count(wait) > waits[1].count(wait)]
    assert not more, f"waits for each step: {more}"  # the first of the three may make ready
    here = placed(operator, CPU)
    with here.model.evaluating():
        assert found.equal(verb(here, 3)), "other numbers than on the CPU"
