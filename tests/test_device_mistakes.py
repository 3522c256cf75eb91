"""Mistakes that only a device shows, planted one at a time: each is found by a check that holds without it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tests.toy import placed
from tests.toy.placed import Parts, require_no_wait_per_step, require_the_same, waits_of_training
from tests.toy.standin import DEVICE, DeviceError, standin
from torch import Tensor

import walkback.levels as levels
import walkback.sampling as sampling
import walkback.training.starts as starts
import walkback.training.trainer as engine
from walkback.kernels import BernoulliKernel, NormalKernel
from walkback.measuring.work import ClippingCheck
from walkback.processes import TiedProcess
from walkback.state import map_state
from walkback.support.readings import Numbers
from walkback.training.finite import FiniteCheck
from walkback.training.persistent_chains import PersistentChains
from walkback_paper.gaussian import GaussianParametrization
from walkback_paper.objectives import WalkbackLoss
from walkback_paper.priors import GaussianPrior

Patch = pytest.MonkeyPatch
Check = Callable[[], None]


def training(operator: str = "gaussian-mlp", **settings: Any) -> Check:
    return lambda: require_the_same(Parts(operator), **settings)


def before(patch: Patch, cls: Any, name: str, more: Callable[..., Any]) -> None:
    """Let a method do something else first."""
    method = getattr(cls, name)

    def both(self: Any, *args: Any, **kwargs: Any) -> Any:
        more(self, *args)
        return method(self, *args, **kwargs)

    patch.setattr(cls, name, both)


# --- tensors of two devices


def density_with_a_constant_of_the_cpu(patch: Patch) -> None:
    method = NormalKernel.log_prob
    patch.setattr(NormalKernel, "log_prob", lambda self, s: method(self, s) + torch.zeros(len(s)))


def prior_that_keeps_a_plain_attribute(patch: Patch) -> None:
    fit, sample = GaussianPrior.fit, GaussianPrior.log_prob

    def keep(self: Any, state: Tensor) -> None:
        fit(self, state)
        self.shift = torch.zeros(state.shape[1:])

    patch.setattr(GaussianPrior, "fit", keep)
    patch.setattr(GaussianPrior, "log_prob", lambda self, state: sample(self, state - self.shift))


def operator_that_looks_its_temperature_up_in_a_table_of_the_cpu(patch: Patch) -> None:
    table = torch.ones(5)

    def look(self: Any, network: Any, state: Tensor, level: Any, context: Any = None) -> None:
        state.mul(table[level.step if isinstance(level.step, int) else 0 : 5][:1])

    before(patch, GaussianParametrization, "forward", look)


# --- generators


def noise_of_a_generator_of_the_cpu(patch: Patch) -> None:
    def sample(self: BernoulliKernel, generator: torch.Generator) -> Tensor:
        own = torch.Generator().manual_seed(0)
        uniform = torch.rand(self.logits.shape, generator=own, device=self.logits.device)
        return (uniform < self.logits.detach().sigmoid()).float()

    patch.setattr(BernoulliKernel, "sample", sample)


def noise_drawn_on_the_cpu_and_copied(patch: Patch) -> None:
    def noise(self: NormalKernel, generator: torch.Generator) -> Tensor:
        return torch.randn(self.mean.shape, generator=torch.Generator().manual_seed(0)).to(self.mean.device)

    patch.setattr(NormalKernel, "noise", noise)


def layers_that_leave_the_generator_of_the_device_changed(patch: Patch) -> None:
    @contextmanager
    def lent(seed: int, device: torch.device | None = None) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield

    patch.setattr(engine, "lent_seed", lent)


def generator_is_put_back() -> None:
    with standin() as machine:
        worker = Parts(options={"operator": {"network": {"dropout": 0.3}}}).trainer(DEVICE)
        machine.draws = (77, 0)
        worker.walk()
        assert machine.draws == (77, 0), "the generator of the device is not put back"


# --- waiting


def objective_that_reads_its_loss(patch: Patch) -> None:
    before(patch, WalkbackLoss, "__call__", lambda self, transition: transition.log_p.mean().item())


def prior_that_asks_whether_states_vary(patch: Patch) -> None:
    before(patch, GaussianPrior, "observe", lambda self, state: bool((state.var(0) > 0).all()))


def process_that_picks_rows_by_a_mask(patch: Patch) -> None:
    before(
        patch, TiedProcess, "heating", lambda self, conditional, source, *_: source[source.sum((1, 2, 3)) > 0]
    )


def process_that_asks_where(patch: Patch) -> None:
    before(patch, TiedProcess, "heating", lambda self, conditional, source, *_: source.nonzero())


def check_that_reads_each_update(patch: Patch) -> None:
    before(patch, FiniteCheck, "look", lambda self, moment, norm, others: bool(norm.isfinite()))


def minibatches_of_pageable_memory(patch: Patch) -> None:
    patch.setattr(starts, "send", lambda rows, device: rows.to(device, non_blocking=True))


def levels_copied_as_they_are_made(patch: Patch) -> None:
    patch.setattr(levels, "send", lambda values, device: torch.tensor(values.tolist(), device=device))


def maximum_temperature_read_at_each_walk(patch: Patch) -> None:
    patch.setattr(Numbers, "__call__", lambda self, a, b: (a.item(), b.item()))


def pool_of_chains_on_the_cpu(patch: Patch) -> None:
    start = PersistentChains.start

    def kept(self: Any, data: Any, walk: int, draw: Any) -> Any:
        if self._pool is not None:
            self._pool = {name: leaf.to(DEVICE) for name, leaf in self._pool.items()}
        begun = start(self, data, walk, draw)
        self._pool = {name: leaf.cpu() for name, leaf in self._pool.items()}
        return begun

    patch.setattr(PersistentChains, "start", kept)


def clipping_read_at_each_step(patch: Patch) -> None:
    look = ClippingCheck.look

    def impatient(self: ClippingCheck, state: Any) -> None:
        look(self, state)
        self.require()

    patch.setattr(ClippingCheck, "look", impatient)


def sampler_that_takes_each_state_to_the_cpu(patch: Patch) -> None:
    cool = sampling.cool

    def collecting(*args: Any) -> Any:
        for state in cool(*args):
            map_state(torch.Tensor.cpu, state)
            yield state

    patch.setattr(placed, "cool", collecting)


# --- wrong numbers


def readout_that_does_not_wait_for_its_copy(patch: Patch) -> None:
    read = placed.read_out
    patch.setattr(placed, "read_out", lambda *args: read(*args).to("cpu", non_blocking=True))


def statistics_through_numpy(patch: Patch) -> None:
    before(patch, GaussianPrior, "observe", lambda self, state: state.numpy().std())


def precision_of_the_cpu(patch: Patch) -> None:
    patch.setattr(engine, "autocast", lambda device, precision: torch.autocast("cpu", torch.bfloat16))


def bf16_reaches_the_network() -> None:
    with standin() as machine:
        waits_of_training(machine, Parts().trainer(DEVICE, precision="bf16"))
        assert torch.bfloat16 in machine.dtypes, "the network is not in bf16"


def step(verb: Any) -> Check:
    return lambda: require_no_wait_per_step("gaussian-mlp", verb)


PLANTS: list[tuple[Callable[[Patch], None], Check, str]] = [
    (density_with_a_constant_of_the_cpu, training(), "two devices in aten.add"),
    (prior_that_keeps_a_plain_attribute, step(placed.heat), "two devices in aten.sub"),
    (operator_that_looks_its_temperature_up_in_a_table_of_the_cpu, training(), "two devices in aten.mul"),
    (noise_of_a_generator_of_the_cpu, training("bernoulli-mlp"), "a generator on cpu for rand on cuda"),
    (noise_drawn_on_the_cpu_and_copied, training(), "waits in walks.*pageable"),
    (layers_that_leave_the_generator_of_the_device_changed, generator_is_put_back, "not put back"),
    (objective_that_reads_its_loss, training(), "waits in walks.*_local_scalar_dense"),
    (prior_that_asks_whether_states_vary, training(), "waits in walks.*_local_scalar_dense"),
    (process_that_picks_rows_by_a_mask, training(), "waits in walks.*index"),
    (process_that_asks_where, training(), "waits in walks.*nonzero"),
    (check_that_reads_each_update, training(updates="online"), "waits in walks.*_local_scalar_dense"),
    (minibatches_of_pageable_memory, training(), "waits in walks.*pageable"),
    (levels_copied_as_they_are_made, training(updates="stacked"), "waits in walks.*pageable"),
    (maximum_temperature_read_at_each_walk, training(), "waits in walks.*_local_scalar_dense"),
    (
        pool_of_chains_on_the_cpu,
        training(chains={"share": 0.5, "pool": 8}),
        "waits in walks.*copy to the CPU",
    ),
    (clipping_read_at_each_step, step(placed.heat), "waits for each step.*tolist"),
    (clipping_read_at_each_step, step(placed.cooled), "waits for each step.*tolist"),
    (sampler_that_takes_each_state_to_the_cpu, step(placed.annealed), "waits for each step.*copy to the CPU"),
    (readout_that_does_not_wait_for_its_copy, step(placed.framed), "not waited for"),
    (statistics_through_numpy, training(), "Tensor.numpy"),
    (precision_of_the_cpu, bf16_reaches_the_network, "not in bf16"),
]


@pytest.mark.parametrize(
    ("plant", "check", "words"), PLANTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_the_mistake_is_found(
    plant: Callable[[Patch], None], check: Check, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check()
    plant(monkeypatch)
    with pytest.raises((DeviceError, AssertionError), match=f"(?s){words}"):
        check()
