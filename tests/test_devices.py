"""Training and walks on a device that is not the CPU: every part in place, nothing waited for, the CPU's numbers.

The device is the stand-in of `tests/toy/standin.py`. Every built-in component of a kind is taken from the registry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from tests.test_conformance_builtins import NAMES, SMALL, registry
from tests.toy.data import InMemory
from tests.toy.standin import CPU, DEVICE, Machine, standin
from torch import Tensor

from walkback.configuration.settings import TrainingSettings
from walkback.engine.own_chains import OwnChains
from walkback.engine.training import Trainer
from walkback.errors import ConfigurationError
from walkback.inpainting import inpaint
from walkback.model import Model
from walkback.operators import DataAware
from walkback.readout import read_out
from walkback.sampling import SamplePlan, cool, last, sample_frames
from walkback.schedules import Levels, levels_from
from walkback.seeding import generator, lent_seed
from walkback.state import Space, leaves
from walkback.testing import Case
from walkback.work import cooling_work, heating_work, reheating_work

REAL, BITS = Space((1, 8, 8)), Space((1, 8, 8), "binary")
WALKS = 3


def names(kind: str) -> list[str]:
    return [name for found, name in NAMES if found == kind]


@dataclass(frozen=True)
class Parts:
    """Components by name, with more options than `SMALL` has."""

    operator: str = "gaussian-mlp"
    prior: str = ""
    process: str = "tied"
    objective: str = "walkback"
    schedule: str = "doubling"
    options: dict[str, Any] = field(default_factory=dict)

    def space(self) -> Space:
        """What the operator is for; a prior for bits wants an operator for them."""
        return BITS if self.operator.startswith("bernoulli") else REAL

    def build(self, kind: str, *arguments: Any) -> Any:
        name = getattr(self, kind)
        more = self.options.get(kind, {})
        if name == "doubling":
            more = {"n1": 1, "max_temperature": 4.0, **more}
        return Case.of(name, {**SMALL.get(name, {}), **more}, registry=registry()).build(kind, *arguments)

    def model(self) -> tuple[Model, Tensor]:
        """A small model on the CPU, fitted to its data, and the data `(30, *E)`."""
        space = self.space()
        rows = torch.randn(30, *space.shape, generator=torch.Generator().manual_seed(3))
        rows = (rows > 0).float() if space.support == "binary" else 0.5 + 0.25 * rows
        operator = self.build("operator", space)
        if isinstance(operator, DataAware):
            operator.fit_data(rows)
        with lent_seed(1), torch.no_grad():  # outputs that are not all zero
            for parameter in operator.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape))
        prior = Parts(prior=self.prior or ("bernoulli" if space.support == "binary" else "gaussian")).build(
            "prior", space
        )
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
    assert waits == []
    assert places == set()
    on_cpu = parts.trainer(CPU, **settings)
    for _ in range(WALKS):
        on_cpu.walk()
    expected = everything(on_cpu)
    assert found.keys() == expected.keys()
    assert [name for name in expected if not found[name].equal(expected[name])] == []


UPDATES = ("online", "batch", "stacked")


# --- training


@pytest.mark.parametrize("updates", UPDATES)
@pytest.mark.parametrize("operator", names("operator"))
def test_every_operator_trains(operator: str, updates: str) -> None:
    require_the_same(Parts(operator), updates=updates)


@pytest.mark.parametrize(
    "options",
    [
        {"variance": "tied"},
        {"variance": "softplus", "mean": "mix", "learn_alpha": True},
        {"variance": "fixed", "temperature_law": "std", "sigma_share": 0.1},
        {"level_norms": 4, "conditioning": "embedding"},
        {"dropout": 0.3, "smoothing": 0.05},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_form_of_the_gaussian_trains(options: dict[str, Any]) -> None:
    for updates in ("batch", "stacked"):
        require_the_same(Parts(options={"operator": options}), updates=updates)


@pytest.mark.parametrize("norm", ["table", "batch", "layer", "group", "none"])
@pytest.mark.parametrize("operator", ["gaussian-conv", "bernoulli-conv"])
def test_every_norm_trains(operator: str, norm: str) -> None:
    require_the_same(Parts(operator, options={"operator": {"norm": norm}}))
    if norm != "none":
        for updates in ("batch", "stacked"):
            options = {"norm": norm, "level_norms": 3}
            require_the_same(Parts(operator, options={"operator": options}), updates=updates)


@pytest.mark.parametrize("prior", names("prior"))
def test_every_prior_follows(prior: str) -> None:
    bits = prior in ("bernoulli", "fair-bits")
    require_the_same(Parts("bernoulli-mlp" if bits else "gaussian-mlp", prior))


@pytest.mark.parametrize("process", names("process"))
def test_every_process_heats(process: str) -> None:
    require_the_same(Parts(process=process))


@pytest.mark.parametrize("schedule", names("schedule"))
def test_every_schedule_is_walked(schedule: str) -> None:
    require_the_same(
        Parts(schedule=schedule, options={"schedule": {"num_steps": 3} if schedule == "sqrt2" else {}})
    )


OPTIONS_OF_OBJECTIVES: dict[str, list[dict[str, Any]]] = {
    "elbo": [{"checkpointing": "always"}, {"checkpointing": "never"}],
    "conditional": [{"kept": 0.5}, {"weighting": "snr"}],
}


@pytest.mark.parametrize("objective", names("objective"))
def test_every_objective_teaches(objective: str) -> None:
    for options in OPTIONS_OF_OBJECTIVES.get(objective, [{}]):
        for updates in UPDATES:
            parts = Parts(objective=objective, options={"objective": options})
            try:
                parts.trainer(CPU, updates=updates)
            except ConfigurationError:
                assert objective == "elbo"
                assert updates != "batch"
                continue
            require_the_same(parts, updates=updates)


@pytest.mark.parametrize("direction", ["cooling", "heating"])
@pytest.mark.parametrize("operator", ["gaussian-mlp", "gaussian-conv", "bernoulli-mlp"])
def test_chains_live_on_the_device(operator: str, direction: str) -> None:
    """They are drawn from data when they begin, for which the rows are copied to the CPU, once."""
    require_the_same(Parts(operator), own_starts=0.5, own_pool=8, own_steps=2, own_direction=direction)


def test_bf16_reaches_the_network() -> None:
    with standin() as machine:
        worker = Parts("gaussian-conv").trainer(DEVICE, precision="bf16")
        assert waits_of_training(machine, worker) == []
        assert torch.bfloat16 in machine.dtypes
        assert {value.dtype for value in worker.model.operator.parameters()} == {torch.float32}


def test_layers_draw_from_the_generator_of_the_device_which_is_put_back() -> None:
    with standin() as machine:
        torch.cuda.manual_seed(77)
        worker = Parts(options={"operator": {"dropout": 0.3}}).trainer(DEVICE)
        worker.walk()
        assert machine.most_drawn > 0
        assert machine.draws == (77, 0)


# --- what is not training: no wait for each step


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
    return heating_work(at.model, at.rows, levels(count), at.noise()).work


def reheat(at: Placed, count: int) -> Tensor:
    return reheating_work(at.model, at.rows, levels(count), at.noise()).work


def cooled(at: Placed, count: int) -> Tensor:
    return cooling_work(at.model, 20, levels(count), at.noise())[1].work


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
    mask = torch.arange(8, device=at.device) < 4
    return leaves(last(inpaint(at.model, at.rows, mask, levels(count), at.noise(), extra=count)))[0]


VERBS = (heat, reheat, cooled, annealed, framed, started, filled)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("operator", names("operator"))
def test_steps_are_not_waited_for(operator: str, verb: Any) -> None:
    """However many steps there are, the CPU waits as often; and the numbers are the CPU's."""
    with standin() as machine:
        at, waits = placed(operator, DEVICE), []
        with at.model.evaluating():
            for count in (2, 2, 6):
                machine.waits.clear()
                found = verb(at, count)
                waits.append(sorted(machine.waits))
    assert waits[2] == waits[1]  # the first may make ready
    here = placed(operator, CPU)
    with here.model.evaluating():
        assert found.equal(verb(here, 6))


def test_the_pool_of_chains_is_read_and_restored_where_it_is() -> None:
    with standin() as machine:
        parts = Parts()
        model, rows = parts.model()
        settings = TrainingSettings(batch_size=6, own_starts=0.5, own_pool=8)
        chains = OwnChains(model.to(DEVICE), settings, 0, _alone())
        origin = rows[:6].to(DEVICE)
        chains.start(origin, 0, lambda num, noise: rows[:num].to(DEVICE))
        again = OwnChains(model, settings, 0, _alone())
        again.restore(chains.state())
        machine.waits.clear()
        first, second = chains.start(origin, 1, _never), again.start(origin, 1, _never)
        assert machine.waits == []
        assert torch.equal(leaves(first)[0], leaves(second)[0])


def _alone() -> Any:
    from walkback.engine.distributed import World

    return World()


def _never(num: int, noise: torch.Generator) -> Tensor:
    raise AssertionError("the pool is there")
