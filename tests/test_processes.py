"""What a process may be: with state that is fitted, learned, averaged, kept; and with paths that are not walks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Install
from tests.program import run, walkback
from tests.toy.data import InMemory
from tests.toy.exact import Fixed
from tests.toy.learned import seeing_gaussian
from tests.toy.processes import Descent, Jumps, Spreading, Untold
from tests.toy.statistics import LIMIT, normal, rng, z_of_variance
from tests.toy.trainers import CPU, MODES, ROWS, Updates, everything, resumed
from torch import Tensor

from walkback.building.assembly import fit_to_data, load_model
from walkback.configuration.settings import TrainingSettings
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.levels import stack_levels
from walkback.measuring.work import cooling_work, heating_work
from walkback.model import Model
from walkback.objectives import AnyObjective
from walkback.processes import Process, TiedProcess
from walkback.schedules import Level, levels_from
from walkback.state import Space, State, leaves
from walkback.storage.checkpoint import load_checkpoint
from walkback.support.world import World
from walkback.testing import Case, failed, outcomes
from walkback.training.paths import path_loss
from walkback.training.persistent_chains import PersistentChains
from walkback.training.trainer import Trainer
from walkback.walk import Start
from walkback_paper.objectives import NegativeBound, WalkbackLoss
from walkback_paper.priors import GaussianPrior
from walkback_paper.schedules import DoublingSchedule

LEVELS = levels_from([1.0, 2.0, 4.0])


def small(process: Process, *, levels: Any = None) -> Model:
    """A small float64 model that heats by `process`, fitted to `ROWS`."""
    schedule = DoublingSchedule(n1=1) if levels is None else Fixed(levels)
    found = Model(seeing_gaussian(), schedule, process, GaussianPrior(Space((3,))).double())
    fit_to_data(found, InMemory(ROWS), seed=0)
    return found


def trainer(process: Process, objective: AnyObjective, *, levels: Any = None, **settings: Any) -> Trainer:
    chosen = TrainingSettings(**{"steps": 20, "batch_size": 8, "lr": 0.01, **settings})
    found = small(process, levels=levels)
    return Trainer(found, objective, InMemory(ROWS), chosen, seed=0, device=CPU)


# --- a process with state


def test_a_process_takes_what_it_needs_from_the_data() -> None:
    process = Spreading(share=0.25)
    small(process)
    assert process.log_variance.exp().item() == pytest.approx(0.25 * float(ROWS.var()))


def test_its_own_largest_temperature_is_that_of_the_schedule() -> None:
    own, tied = small(Spreading()), small(TiedProcess())
    assert own.max_temperature == 8.0
    assert own.levels() == DoublingSchedule(n1=1).levels(8.0)
    assert own.levels_of_length(5) == DoublingSchedule(n1=1).levels_of_length(8.0, 5)
    assert tied.max_temperature == tied.operator.max_temperature != 8.0


def test_a_local_objective_leaves_its_parameters_alone() -> None:
    worker = trainer(Spreading(), WalkbackLoss())
    before = worker.model.process.state_dict()["log_variance"].clone()
    worker.walk()
    assert worker.model.process.state_dict()["log_variance"].equal(before)


def test_an_objective_of_whole_walks_learns_them_and_they_are_averaged() -> None:
    """θ̄ after two updates is d θ̄ + (1 - d) θ with d = 3 / 12."""
    worker, seen = trainer(Spreading(), NegativeBound(), ema=0.9), []
    first = worker.model.process.state_dict()["log_variance"].clone()
    for _ in range(2):
        worker.walk()
        seen.append(worker.model.process.state_dict()["log_variance"].clone())
    assert len({float(value) for value in (first, *seen)}) == 3
    averaged = worker.averaged_model.process.state_dict()["log_variance"]
    assert float(averaged) == pytest.approx(0.25 * float(seen[0]) + 0.75 * float(seen[1]), rel=1e-12)


@pytest.mark.parametrize("how", ["never", "always"])
def test_its_gradient_is_that_of_the_bound(how: Any) -> None:
    """Against the difference quotient of the loss with the noise held."""
    found = small(Spreading(), levels=LEVELS)
    weight = found.process.get_parameter("log_variance")

    def loss() -> Tensor:
        objective = NegativeBound(checkpointing=how)
        return path_loss(found, objective, Start(normal(20, 3)), LEVELS, rng(3))[0].mean()

    torch.autograd.backward(loss())
    assert weight.grad is not None
    gradient, step, values = float(weight.grad), 1e-5, []
    with torch.no_grad():
        for sign in (1, -1):
            weight += sign * step
            values.append(float(loss()))
            weight -= sign * step
    assert gradient == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6)
    assert abs(gradient) > 1e-2


def test_a_walk_of_it_has_the_variance_that_it_says() -> None:
    """Var(s_K) = Var(s_0) + v Σ T_t."""
    process = Spreading()
    with torch.no_grad():
        process.log_variance.fill_(math.log(0.3))
    found = small(TiedProcess(), levels=LEVELS)
    steps = list(process.path(found.operator, Start(torch.zeros(20_000, 1).double()), LEVELS, rng()))
    assert abs(z_of_variance(leaves(steps[-1].target)[0][:, 0], 0.3 * 7)) < LIMIT


def test_a_trainer_with_it_resumes_exactly() -> None:
    straight, stopped = (trainer(Spreading(), NegativeBound(), ema=0.9) for _ in range(2))
    for number in range(4):
        if number == 2:
            stopped = resumed(stopped, trainer(Spreading(share=0.7), NegativeBound(), ema=0.9))
        assert straight.walk().equal(stopped.walk())
    ours, theirs = everything(straight), everything(stopped)
    assert {"process.log_variance", "averaged.process.log_variance"} < ours.keys()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


def test_a_model_moves_all_of_its_parts_and_gives_all_of_its_tensors() -> None:
    found = small(Spreading()).to(torch.device("meta"))
    assert {tensor.device.type for tensor in found.tensors().values()} == {"meta"}
    assert "process.log_variance" in found.tensors()


def test_evaluation_mode_is_that_of_the_process_too() -> None:
    found = small(Spreading())
    found.process.train()
    with found.evaluating():
        assert not found.process.training
    assert found.process.training


def test_the_kit_proves_processes_of_all_three_kinds() -> None:
    assert not failed(outcomes("process", Case.of(Spreading, spaces=[Space((2,))])))
    assert not failed(outcomes("process", Case.of(Jumps, {"apart": True}, spaces=[Space((2,))])))
    assert not failed(outcomes("process", Case.of(lambda: Descent(), spaces=[Space((2,))])))


OFFER = """
    @hookimpl
    def walkback_processes():
        yield Component("spreading", "tests.toy.processes:Spreading", "Noise of a learned size")
"""


def test_a_process_of_a_plugin_goes_through_the_whole_program(tmp_path: Path, install: Install) -> None:
    """It is fitted, learns, travels with checkpoints, and a stopped run goes on as one that was not."""
    install("walkback-spreading", OFFER)
    options = ("--process", "spreading", "--objective", "elbo", "--set", "training.checkpoint_every=2")
    directory = tmp_path / "a"
    done = run(directory, *options, "--set", "training.keep_checkpoints=9", steps=4)
    assert done.code == 0, done.err
    final, key = directory / "final.safetensors", "process.log_variance"
    early = load_checkpoint(directory / "checkpoints" / "step-2.safetensors").tensors
    learned = load_checkpoint(final).tensors
    assert not learned[key].equal(early[key])
    for path in [*(directory / "checkpoints").glob("step-4.*"), final]:
        path.unlink()
    done = walkback("run", "--resume", directory)
    assert done.code == 0, done.err
    again = load_checkpoint(final).tensors
    assert [name for name in learned if not learned[name].equal(again[name])] == []
    loaded = load_model(final, Registry.discover(), torch.device("cpu")).model
    assert loaded.process.state_dict()["log_variance"].equal(learned[key])
    assert loaded.max_temperature == 8.0
    done = walkback("sample", final, "--num", "4", "--out", tmp_path / "a.png")
    assert done.code == 0, done.err
    done = walkback("evaluate", final, "--limit", "4", "--paths", "2", "--simulated", "4")
    assert done.code == 0, done.err


def test_a_process_that_does_not_tell_its_steps_is_refused_before_a_run(
    tmp_path: Path, install: Install
) -> None:
    install("walkback-untold", OFFER.replace("toy.processes:Spreading", "toy.processes:Untold"))
    done = run(tmp_path / "a", "--process", "spreading")
    assert (done.code, (tmp_path / "a").exists()) == (2, False)
    assert "Untold, whose paths are not told step by step" in done.err


# --- paths that are not walks


@pytest.mark.parametrize("updates", MODES)
@pytest.mark.parametrize(
    "process", [Jumps(), Jumps(apart=True), Descent()], ids=["jumps", "apart", "descent"]
)
def test_every_update_learns_from_paths_that_are_not_walks(process: Process, updates: Updates) -> None:
    worker = trainer(process, WalkbackLoss(), levels=LEVELS, updates=updates)
    before = {name: value.clone() for name, value in worker.model.operator.state_dict().items()}
    assert bool(worker.walk().isfinite())
    after = worker.model.operator.state_dict()
    assert any(not value.equal(before[name]) for name, value in after.items())
    assert worker.progress.updates == (3 if updates == "online" else 1)


@pytest.mark.parametrize("apart", [False, True])
def test_batch_and_stacked_updates_agree_on_jumps(apart: bool) -> None:
    """One is a mean over transitions that came one by one, the other over rows of them all."""
    batch, stacked = (
        trainer(Jumps(apart=apart), WalkbackLoss(), levels=LEVELS, updates=updates)
        for updates in ("batch", "stacked")
    )
    assert float(batch.walk()) == pytest.approx(float(stacked.walk()), rel=1e-6)


def seen_by_the_prior(process: Process, updates: Updates, monkeypatch: pytest.MonkeyPatch) -> list[State]:
    worker = trainer(process, WalkbackLoss(), levels=LEVELS, updates=updates)
    seen: list[State] = []
    monkeypatch.setattr(GaussianPrior, "observe", lambda _, state: seen.append(state))
    worker.walk()
    return seen


@pytest.mark.parametrize("updates", MODES)
def test_the_prior_observes_the_last_level_wherever_it_comes_up(
    updates: Updates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Descent ends at s_1: what it began with, draws of the prior itself, is s_K."""
    found = seen_by_the_prior(Descent(), updates, monkeypatch)
    assert len(found) == 1
    drawn = small(Descent(), levels=LEVELS).prior
    assert seen_by_the_prior(Jumps(apart=True), updates, monkeypatch) == []
    assert leaves(found[0])[0].shape == leaves(drawn.sample(8, rng()))[0].shape


def test_levels_with_a_temperature_a_row_are_stacked() -> None:
    apart = Level(torch.tensor([3, 1]), torch.tensor([4.0, 1.0], dtype=torch.float64))
    whole = stack_levels((LEVELS[1], apart), 2, CPU)
    assert torch.as_tensor(whole.step).tolist() == [2, 2, 3, 1]
    assert torch.as_tensor(whole.temperature).tolist() == [2.0, 2.0, 4.0, 1.0]


# --- what needs single steps


def test_what_needs_single_steps_says_so() -> None:
    found = small(Untold(), levels=LEVELS)
    for refused in (
        lambda: heating_work(found, normal(2, 3), LEVELS, rng()),
        lambda: cooling_work(found, 2, LEVELS, rng()),
        lambda: path_loss(found, NegativeBound(), Start(normal(2, 3)), LEVELS, rng()),
        lambda: PersistentChains(
            found, TrainingSettings(chains={"share": 0.5, "direction": "heating"}), seed=0, world=World()
        ),
    ):
        with pytest.raises(ConfigurationError, match="Untold, whose paths are not told step by step"):
            refused()
    PersistentChains(
        found, TrainingSettings(chains={"share": 0.5}), seed=0, world=World()
    )  # cools: no process
