"""Walks from persistent chains: who starts where, how long chains live, what they must not touch, resuming."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import pytest
import torch
from tests.program import TINY, elsewhere, run, walkback
from tests.toy.data import InMemory
from tests.toy.exact import Fixed, Pair, Toy, UniformPrior, filled
from tests.toy.learned import seeing_gaussian, shaken
from tests.toy.statistics import LIMIT, normal
from tests.toy.trainers import (
    CPU,
    MODES,
    ROWS,
    Spy,
    Updates,
    batchnorm_conv,
    bf16_trainer,
    dropout_mlp,
    everything,
    resumed,
    trainer,
    weights,
)
from torch import Tensor

from walkback.configuration.settings import TrainingSettings
from walkback.errors import ConfigurationError
from walkback.kernels import NormalKernel, ProductKernel
from walkback.model import Model
from walkback.objectives import Objective
from walkback.operators import Conditional, TransitionOperator
from walkback.processes import Process, StepwiseProcess, TiedProcess
from walkback.schedules import Level, levels_from
from walkback.state import Context, State, leaves
from walkback.storage.checkpoint import load_checkpoint
from walkback.support.world import World
from walkback.training.persistent_chains import PersistentChains
from walkback.training.trainer import Trainer
from walkback.walk import Start, Transition
from walkback_paper.priors import GaussianPrior


def counting(step: float = 1.0) -> Toy:
    """s' = s + 1, nearly: a state that starts at 0 counts the steps of its chain."""
    return Toy(lambda state: Pair(lambda _: NormalKernel(state + step, filled(1e-30, state))))


def chains(
    operator: TransitionOperator, process: Process | None = None, *, batch_size: int = 10, **settings: Any
) -> PersistentChains:
    """Chains on the operator, at rest."""
    model = Model(operator, Fixed(levels_from([1.0])), process or TiedProcess(), UniformPrior(()))
    chosen = TrainingSettings(batch_size=batch_size, chains={"share": 0.6, "pool": 20, **settings})
    return PersistentChains(model, chosen, seed=0, world=World())


def zeros(num: int, _: torch.Generator | None = None) -> Start:
    return Start(torch.zeros(num, 1, dtype=torch.float64))


# --- who starts where


def test_the_first_rows_are_of_chains_and_the_others_stay() -> None:
    own, data = chains(counting(), steps=7), 1000 + normal(10, 1)
    started = own.start(Start(data, anchor=data - 1), 0, zeros)
    state, anchor = leaves(started.state)[0], leaves(started.anchor)[0]
    assert own.rows == 6
    assert state[6:].equal(data[6:])
    assert anchor[6:].equal(data[6:] - 1)
    assert state[:6].round().flatten().tolist() == [7.0] * 6
    assert anchor[:6].equal(state[:6])


def test_chains_may_step_by_the_heating_kernel() -> None:
    """Cooling counts up and heating down: the direction says which of them the chains took."""

    def there(step: float, state: State) -> NormalKernel:
        (x,) = leaves(state)
        return NormalKernel(x + step, filled(1e-30, x))

    operator = Toy(lambda state: Pair(lambda _: there(1.0, state), lambda _: there(-1.0, state)))
    for direction, sign in (("cooling", 1), ("heating", -1)):
        own = chains(operator, steps=7, direction=direction)
        started = leaves(own.start(zeros(10), 0, zeros).state)[0]
        assert started[:6].round().flatten().tolist() == [7.0 * sign] * 6


@final
class Leap(StepwiseProcess):
    """s_t = s_{t-1} + 100, nearly; or 100 above where the walk began."""

    def __init__(self, *, from_origin: bool = False) -> None:
        super().__init__()
        self._from_origin = from_origin

    @property
    def max_temperature(self) -> None:
        """The operator's."""

    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> NormalKernel:
        (x,) = leaves(origin if self._from_origin else source)
        return NormalKernel(x + 100, filled(1e-30, x))


def test_chains_that_heat_step_by_the_process_and_not_by_the_operator() -> None:
    """A walk of one step goes to 100, and so does a chain; the operator's own heating kernel would count by 1."""
    own = chains(counting(), Leap(), steps=1, direction="heating")
    started = leaves(own.start(zeros(10), 0, zeros).state)[0]
    assert started[:6].round().flatten().tolist() == [100.0] * 6
    (step,) = Leap().path(counting(), zeros(1), levels_from([1.0]), torch.Generator())
    assert leaves(step.target)[0].round().item() == 100.0
    cooling = chains(counting(), Leap(), steps=1)
    assert leaves(cooling.start(zeros(10), 0, zeros).state)[0][:6].round().flatten().tolist() == [1.0] * 6


def test_a_process_that_looks_at_the_origin_sees_where_the_chain_began() -> None:
    """However often a chain is used, and after a stop: it stays 100 above its origin, which restarts renew."""
    settings = {"steps": 3, "direction": "heating", "restart": 0.0, "pool": 6}
    own = chains(counting(), Leap(from_origin=True), **settings)
    for walk in range(4):
        started = leaves(own.start(zeros(10), walk, zeros).state)[0]
        assert started[:6].round().flatten().tolist() == [100.0] * 6
    again = chains(counting(), Leap(from_origin=True), **settings)
    again.restore({name: leaf.clone() for name, leaf in own.state().items()})
    assert leaves(again.start(zeros(10), 4, zeros).state)[0][:6].round().flatten().tolist() == [100.0] * 6
    renewed = chains(counting(), Leap(from_origin=True), **settings | {"restart": 1.0})
    for walk, expected in ((0, 100.0), (1, 107.0)):  # the second time from where the data were at the first
        data = Start(zeros(10).state + 7)
        started = leaves(renewed.start(data, walk, zeros).state)[0]
        assert started[:6].round().flatten().tolist() == [expected] * 6


def test_chains_go_on_where_they_were() -> None:
    """Without restarts, the steps of all chains are those of all uses; every chain is used now and then."""
    own = chains(counting(), steps=5, restart=0.0)
    for walk in range(30):
        started = leaves(own.start(zeros(10), walk, zeros).state)[0][:6].round()
        assert bool((started % 5 == 0).all())
    ages = own.state()["0"].round()
    assert (ages.shape, float(ages.sum())) == ((20, 1), 30 * 6 * 5)
    assert float(ages.min()) > 0  # unused with probability (14/20)^30 = 2e-5 each


@pytest.mark.parametrize("restart", [0.2, 1.0])
def test_chains_restart_from_the_data_that_they_replaced(restart: float) -> None:
    """All chains used each time: restarts are Binomial(walks · rows, p), and each holds one of the displaced rows."""
    own = chains(counting(), restart=restart, pool=6, steps=3)
    restarted = 0
    for walk in range(300):
        data = (-1000.0 - torch.arange(10, dtype=torch.float64) / 10)[:, None]
        own.start(Start(data), walk, zeros)
        pool = own.state()["0"].flatten()
        fresh = pool[torch.isin(pool, data)]
        assert bool((fresh > -1000.55).all())  # of the first six rows
        assert len(fresh.unique()) == len(fresh)
        restarted += len(fresh)
    expected, spread = 1800 * restart, math.sqrt(1800 * restart * (1 - restart))
    assert abs(restarted - expected) <= LIMIT * spread


def test_a_chain_that_is_no_number_any_more_restarts() -> None:
    own, data = chains(counting(math.inf)), normal(10, 1)
    assert leaves(own.start(Start(data), 0, zeros).state)[0].equal(data)
    assert bool(own.state()["0"].isfinite().all())


@final
class Two(TransitionOperator):
    """(x, h) → (x + 1, h - 1), nearly."""

    @property
    def max_temperature(self) -> float:
        return 2.0

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        x, h = leaves(state)
        kernels = [NormalKernel(x + 1, filled(1e-30, x)), NormalKernel(h - 1, filled(1e-30, h))]
        return Pair(lambda _: ProductKernel(kernels))


def test_states_of_several_leaves_stay_together() -> None:
    def draw(num: int, _: torch.Generator | None = None) -> Start:
        return Start((torch.zeros(num, 2).double(), torch.zeros(num, 3).double()))

    own = chains(Two(), steps=4)
    for walk in range(5):
        x, h = leaves(own.start(draw(10), walk, draw).state)
        assert (x[:, 0].round() == -h[:, 0].round()).all()
    again = chains(Two(), steps=4)
    again.restore({name: leaf.clone() for name, leaf in own.state().items()})
    ours, theirs = (leaves(chain.start(draw(10), 5, draw).state) for chain in (own, again))
    assert [a.equal(b) for a, b in zip(ours, theirs, strict=True)] == [True, True]


# --- in training


@pytest.mark.parametrize("updates", ["online", "batch"])
def test_walks_from_chains_are_learned_from(updates: Updates) -> None:
    """The objective sees the chains' states in the first rows, and data of the minibatch in the others."""
    spy, plain = Spy(), Spy()
    settings: dict[str, Any] = {"updates": updates, "lr": 1e-300, "n1": 0}
    trainer(objective=plain, **settings).walk()
    worker = trainer(objective=spy, chains={"share": 0.5, "pool": 4, "restart": 0.0}, **settings)
    worker.walk()
    assert spy.origins[0][4:].equal(plain.origins[0][4:])
    pool = worker.state()[0]["chains.0"]
    assert sorted(spy.origins[0][:4, 0].tolist()) == sorted(pool[:, 0].tolist())
    assert not torch.isin(spy.origins[0][:4], ROWS).any()


def test_chains_begin_after_the_walks_of_data_alone() -> None:
    """Until then a run is, bit for bit, one without chains, and the prior sees every row."""
    plain, later = (
        trainer(objective=Last()),
        trainer(objective=Last(), chains={"share": 0.5, "pool": 8, "after": 2}),
    )
    for _ in range(2):
        assert plain.walk().equal(later.walk())
    assert "chains.0" not in later.state()[0]
    ours, theirs = everything(plain), everything(later)
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []
    assert not plain.walk().equal(later.walk())
    assert "chains.0" in later.state()[0]


def test_nothing_is_kept_without_chains() -> None:
    worker = trainer()
    worker.walk()
    assert [name for name in worker.state()[0] if name.startswith("chains.")] == []


@final
class Last(Objective):
    """The walkback loss, noting the last target."""

    def __init__(self) -> None:
        self.target = torch.zeros(())

    def __call__(self, transition: Transition) -> Tensor:
        self.target = leaves(transition.target)[0]
        return -transition.log_p


def test_the_prior_sees_walks_from_data_alone() -> None:
    last = Last()
    worker = trainer(objective=last, chains={"share": 0.5, "pool": 8})
    worker.walk()
    prior = worker.model.prior
    assert isinstance(prior, GaussianPrior)
    torch.testing.assert_close(prior.mean, last.target[4:].mean(0), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(prior.mean, last.target.mean(0), rtol=1e-3)


def test_chains_run_in_evaluation_mode_and_leave_no_trace() -> None:
    """No statistics of batch norm, no random number of a layer, and training mode comes back."""
    operator = batchnorm_conv().train()
    before = {name: buffer.clone() for name, buffer in operator.named_buffers()}
    modes: list[bool] = []
    operator.register_forward_hook(lambda module, _, __: modes.append(module.training))
    state = torch.get_rng_state()
    chains(operator, steps=3).start(Start(normal(10, 1, 4, 4)), 0, lambda num, _: Start(normal(num, 1, 4, 4)))
    assert torch.get_rng_state().equal(state)
    assert modes == [False] * 3
    assert operator.training
    assert all(buffer.equal(before[name]) for name, buffer in operator.named_buffers())


@pytest.mark.parametrize("updates", MODES)
def test_under_bf16_every_weight_learns(updates: Updates) -> None:
    worker = bf16_trainer(updates, seeing_gaussian().float(), chains={"share": 0.5, "pool": 8})
    before = weights(worker)
    worker.walk()
    assert all(not value.equal(before[name]) for name, value in weights(worker).items() if "weight" in name)


# --- resuming


@pytest.mark.parametrize("updates", MODES)
@pytest.mark.parametrize(("make", "shape"), [(dropout_mlp, (3,)), (batchnorm_conv, (1, 4, 4))])
def test_resuming_is_bit_identical(
    make: Callable[[], TransitionOperator], shape: tuple[int, ...], updates: Updates
) -> None:
    rows = normal(30, *shape)
    settings: dict[str, Any] = {"rows": rows, "updates": updates, "chains": {"share": 0.5, "pool": 9}}
    straight, stopped = trainer(make(), **settings), trainer(make(), **settings)
    for number in range(6):
        if number in (0, 2, 4):
            stopped = resumed(stopped, trainer(shaken(make(), seed=number), **settings))
        assert straight.walk().equal(stopped.walk())
    ours, theirs = everything(straight), everything(stopped)
    assert "chains.0" in ours
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


@pytest.mark.parametrize("before", [{}, {"chains": {"share": 0.5, "pool": 9}}])
def test_another_number_of_chains_starts_them_anew(before: dict[str, Any]) -> None:
    worker = trainer(**before)
    worker.walk()
    again = resumed(worker, trainer(chains={"share": 0.5, "pool": 12}))
    assert [name for name in again.state()[0] if name.startswith("chains.")] == []
    again.walk()
    assert again.state()[0]["chains.0"].shape == (12, 3)


def test_several_processes_have_chains_of_their_own_and_resume(tmp_path: Path) -> None:
    options = (
        *("--set", "training.chains.share=0.5", "--set", "training.chains.pool=5"),
        *("--set", "training.checkpoint_every=2", "--set", "training.keep_checkpoints=9", "--nproc", "2"),
    )
    whole = tmp_path / "a"
    done = elsewhere("run", *TINY, *options, "--steps", "4", "--out", whole)
    assert done.code == 0, done.err
    before = load_checkpoint(whole / "final.safetensors").tensors
    for path in [*(whole / "checkpoints").glob("step-4.*"), whole / "final.safetensors"]:
        path.unlink()
    done = elsewhere("run", "--resume", whole)
    assert done.code == 0, done.err
    after = load_checkpoint(whole / "final.safetensors").tensors
    assert [name for name in before if not before[name].equal(after[name])] == []


# --- what is refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"chains": {"share": 0.05}},
            r"chains\.share = 0\.05 with training\.batch_size = 8.*less than one walk",
        ),
        ({"chains": {"share": 0.9}, "batch_size": 1}, "less than one walk"),
        ({"chains": {"share": 0.5, "pool": 3}}, r"chains\.pool = 3, expected at least 4"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        trainer(**settings)


def test_a_run_says_so_before_it_starts(tmp_path: Path) -> None:
    done = walkback("run", "--dry-run", *TINY, "--set", "training.chains.share=0.01")
    assert (done.code, done.out) == (2, "")
    assert "Got training.chains.share = 0.01" in done.err
    assert run(tmp_path / "a", "--set", "training.chains.share=0.5", steps=2).code == 0


def test_one_row_at_least_starts_from_data() -> None:
    settings = TrainingSettings(batch_size=2, chains={"share": 0.99})
    worker = Trainer(trainer().model, Spy(), InMemory(ROWS), settings, seed=0, device=CPU)
    worker.walk()
    assert chains(counting(), batch_size=2, share=0.99).rows == 1
