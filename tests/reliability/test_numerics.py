"""NaN and infinity in states, losses and gradients: named, refused before the update, skipped or gone back from."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, final

import pytest
import torch
from tests.program import ENVIRONMENT, digest, figures, records, run, walkback
from tests.toy.data import InMemory
from tests.toy.statistics import normal
from tests.toy.trainers import ROWS, batchnorm_conv, everything, resumed, trainer
from torch import Tensor

import walkback.training.run_bound as walkback_run
from walkback.kernels import Kernel
from walkback.measuring.estimates import NotFiniteValuesError
from walkback.objectives import Objective
from walkback.operators import Conditional
from walkback.processes import TiedProcess
from walkback.schedules import Level
from walkback.state import State
from walkback.storage.store import CheckpointStore
from walkback.training.finite import NotFiniteError
from walkback.training.last_good import LastGood
from walkback.training.trainer import Trainer
from walkback.walk import Transition
from walkback_paper.objectives import WalkbackLoss

BAD_WALK, BAD_STEP = 3, 2
MODES = ("online", "batch", "stacked")


@final
class Planted(Objective):
    """-log p, and NaN at some steps of some walks; `trainer` says which walk it is."""

    def __init__(self, walks: tuple[int, ...] = (BAD_WALK,), step: int = BAD_STEP) -> None:
        self.walks = walks
        self.step = step
        self.trainer: Trainer | None = None

    def __call__(self, transition: Transition) -> Tensor:
        assert self.trainer is not None
        loss = -transition.log_p
        step = torch.as_tensor(transition.level.step).expand(loss.shape)
        planted = (step == self.step) & (self.trainer.progress.walks in self.walks)
        return loss + torch.where(planted, math.nan, 0.0)  # gradients stay finite


def planted(operator: Any = None, rows: Tensor = ROWS, **settings: Any) -> Trainer:
    objective = Planted(**{name: settings.pop(name) for name in ("walks", "step") if name in settings})
    worker = trainer(operator, rows=rows, objective=objective, **settings)
    objective.trainer = worker
    return worker


def copied(worker: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in everything(worker).items()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(one[name].equal(two[name]) for name in one)


def walk_until(worker: Trainer, walks: int) -> None:
    while worker.progress.walks < walks:
        worker.walk()


# --- what the message says


@pytest.mark.parametrize("chains", [0.0, 0.5])
@pytest.mark.parametrize("updates", MODES)
def test_a_loss_is_named_by_walk_step_level_and_temperature(updates: str, chains: float) -> None:
    worker = planted(updates=updates, step=4, chains={"share": chains, "pool": 8, "steps": 2})
    walk_until(worker, BAD_WALK)
    before = copied(worker)
    with pytest.raises(NotFiniteError) as caught:
        worker.walk()
    found = re.fullmatch(
        r"Got a loss of nan and a gradient norm of \S+ at walk 3, step 4 of (\d) \(level 4, temperature (\d)\), "
        r"expected finite numbers: lower the learning rate .*",
        str(caught.value),
    )
    assert found is not None, caught.value
    levels = worker.model.levels(None)
    assert (int(found[1]) <= len(levels), int(found[2]) in {2, 4, 8}) == (True, True)
    assert caught.value.walk == 3
    if updates != "online":  # steps before it have made their updates
        chains_kept = {name for name in before if name.startswith("chains.")}
        after = copied(worker)
        assert [
            name for name in before if not after[name].equal(before[name]) and name not in chains_kept
        ] == []


def test_before_any_update_the_learning_rate_is_not_blamed() -> None:
    with pytest.raises(NotFiniteError, match=r"at walk 0, step 2 of .*no update has been made yet") as caught:
        planted(walks=(0,)).walk()
    assert "learning rate" not in str(caught.value)


@pytest.mark.parametrize("updates", MODES)
def test_a_state_is_named_before_its_loss(updates: str, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = trainer(updates=updates)
    heating = TiedProcess.heating

    def lost(
        self: TiedProcess, conditional: Conditional, source: State, level: Level, origin: State
    ) -> Kernel:
        kernel = heating(self, conditional, source, level, origin)
        if worker.progress.walks == BAD_WALK and level.step == BAD_STEP:
            sample = kernel.sample
            object.__setattr__(kernel, "sample", lambda generator: sample(generator) * math.inf)
        return kernel

    monkeypatch.setattr(TiedProcess, "heating", lost)
    try:
        walk_until(worker, BAD_WALK)
        with pytest.raises(NotFiniteError, match=r"Got a state that is not finite at walk 3, step 2 of \d"):
            worker.walk()
    except AttributeError:  # records with slots have no place for another method
        pytest.fail("the kernel could not be changed")


def test_starting_states_are_blamed_on_the_data() -> None:
    rows = ROWS.clone()
    rows[7] = math.nan
    worker = trainer(rows=rows)
    with pytest.raises(NotFiniteError, match=r"Got starting states that are not finite .*check the data"):
        walk_until(worker, 20)


@pytest.mark.parametrize("updates", MODES)
def test_a_gradient_is_named(updates: str) -> None:
    worker = trainer(updates=updates)
    walk_until(worker, BAD_WALK)
    parameter = next(worker.model.operator.parameters())
    parameter.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NotFiniteError, match=r"and a gradient norm of (nan|inf) at walk 3") as caught:
        worker.walk()
    assert "loss of nan" not in str(caught.value)
    assert ("step 1 of" in str(caught.value)) is (updates == "online")


# --- skipping


@pytest.mark.parametrize("chains", [0.0, 0.5])
@pytest.mark.parametrize("updates", ["batch", "stacked"])
def test_a_skipped_minibatch_moves_nothing_and_is_counted(updates: str, chains: float) -> None:
    settings = {"updates": updates, "ema": 0.9, "chains": {"share": chains, "pool": 8, "steps": 2}}
    worker = planted(on_nonfinite="skip", **settings)
    walk_until(worker, BAD_WALK)
    before = copied(worker)
    assert math.isnan(worker.walk().item())
    after = copied(worker)
    assert [n for n in before if not after[n].equal(before[n]) and not n.startswith("chains.")] == []
    assert (worker.progress.walks, worker.progress.updates, worker.progress.skipped) == (4, 3, 1)
    assert math.isfinite(worker.walk().item())
    assert worker.progress.skipped == 1


@pytest.mark.parametrize("updates", MODES)
def test_statistics_of_layers_forget_a_skipped_minibatch(
    updates: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States that are infinite would stay in the running mean of batch norm for good."""
    rows = normal(30, 1, 4, 4)
    worker = trainer(batchnorm_conv(), rows=rows, updates=updates, on_nonfinite="skip")
    states = InMemory.states

    def lost(self: InMemory, examples: Tensor, generator: torch.Generator) -> Tensor:
        found = states(self, examples, generator)
        return found * math.nan if worker.progress.walks == BAD_WALK else found

    monkeypatch.setattr(InMemory, "states", lost)
    walk_until(worker, BAD_WALK)
    before = copied(worker)
    worker.walk()
    assert same(before, copied(worker))
    walk_until(worker, 6)
    assert all(bool(value.isfinite().all()) for value in copied(worker).values())
    assert worker.progress.skipped == 1


def test_too_many_skipped_minibatches_end_training() -> None:
    worker = planted(walks=tuple(range(1, 20)), on_nonfinite="skip", nonfinite_limit=3)
    with pytest.raises(NotFiniteError, match=r"at walk 4, .*; 3 minibatches have been skipped before it"):
        walk_until(worker, 20)
    assert worker.progress.skipped == 3


@pytest.mark.parametrize("updates", MODES)
def test_resuming_holds_through_skipped_minibatches(updates: str) -> None:
    settings = {"updates": updates, "ema": 0.9, "walks": (1, 3, 4), "on_nonfinite": "skip"}
    straight, stopped = planted(**settings), planted(**settings)
    walk_until(straight, 7)
    for walks in (2, 4, 5, 7):
        walk_until(stopped, walks)
        fresh = planted(**settings)
        stopped = resumed(stopped, fresh)
    assert same(copied(straight), copied(stopped))
    assert (stopped.progress.skipped, stopped.progress.updates) == (3, straight.progress.updates)


PAIR = """
import json, math, os, sys
import torch
import torch.distributed as dist
from tests.reliability.test_numerics import Planted
from tests.toy.trainers import ROWS, small_model
from tests.toy.learned import seeing_gaussian
from tests.toy.data import InMemory
from walkback.configuration.settings import TrainingSettings
from walkback.support.world import World
from walkback.training.finite import NotFiniteError
from walkback.training.trainer import Trainer

def work(rank):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
    answers = []
    for mode in ("stop", "skip"):
        model = small_model(seeing_gaussian())
        model.prior.fit(ROWS)
        objective = Planted(walks=(2,) if rank == 1 else ())  # one process alone sees it
        settings = TrainingSettings(steps=20, batch_size=8, lr=0.01, on_nonfinite=mode)
        world = World(rank, 2)
        trainer = Trainer(model, objective, InMemory(ROWS), settings, seed=0, device=torch.device("cpu"), world=world)
        objective.trainer = trainer
        try:
            while trainer.progress.walks < 5:
                trainer.walk()
            error = ""
        except NotFiniteError as found:
            error = str(found)
        weights = sum(float(p.sum()) for p in trainer.model.operator.parameters())
        answers.append([error, trainer.progress.walks, trainer.progress.skipped, weights])
    with open(f"{sys.argv[1]}-{rank}", "w") as file:
        json.dump(answers, file)
    dist.destroy_process_group()

child = os.fork()
work(0 if child else 1)
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_processes_that_train_together_decide_alike(tmp_path: Path) -> None:
    """The loss of one of two processes is not finite: both stop before the same update, or both skip it."""
    done = subprocess.run(
        [sys.executable, "-c", PAIR, str(tmp_path / "pair")],
        env={**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"pair-{rank}").read_text()) for rank in range(2))
    assert [row[1:] for row in first] == [row[1:] for row in second]
    assert [row[1:3] for row in first] == [[2, 0], [5, 1]]
    assert "at walk 2" in first[0][0]
    assert "at walk 2, step 2" in second[0][0]


# --- the last good checkpoint


def followed(losses: dict[int, float], every: int = 2, bounds: dict[int, float] | None = None) -> LastGood:
    """What is known after these walks of a run with 10 dimensions."""
    good = LastGood(10)
    for walks, loss in losses.items():
        good.observe(walks, torch.tensor(loss))
        if walks % every == 0:
            if bounds is not None:
                good.observe_bound(bounds[walks])
            good.saved(walks)
        again = LastGood(10)
        again.restore(json.loads(json.dumps(good.state())), walks)
        good = again
    return good


def test_a_checkpoint_is_good_if_the_next_loss_is() -> None:
    assert followed({1: 5.0, 2: 4.0}).newest() is None
    assert followed({1: 5.0, 2: 4.0, 3: 3.0}).newest() == 2
    assert followed({1: 5.0, 2: 4.0, 3: 3.0, 4: 2.0}).kept == {2, 4}
    assert followed({1: 5.0, 2: 4.0, 3: 3.0, 4: 2.0, 5: 12.9}).newest() == 4  # within 10 nats of the best
    assert followed({1: 5.0, 2: 4.0, 3: 3.0, 4: 2.0, 5: 13.1}).newest() == 2
    assert followed({1: 5.0, 2: 4.0, 3: 3.0, 4: 2.0, 5: math.nan}).newest() == 2
    ruined = dict.fromkeys(range(5, 30), 1e20)
    assert followed({1: 5.0, 2: 4.0, 3: 3.0, 4: 2.0, **ruined}).newest() == 2
    assert followed({1: 5.0, 2: 1e9, 3: 1e9, 4: 1e9, 5: 1e9}).newest() is None  # worse than untrained


def test_a_bad_bound_makes_a_checkpoint_bad() -> None:
    losses = dict.fromkeys(range(1, 8), 3.0)
    assert followed(losses, bounds={2: 9.0, 4: 8.0, 6: 7.0}).newest() == 6
    assert followed(losses, bounds={2: 9.0, 4: 8.0, 6: 18.5}).newest() == 4
    assert followed(losses, bounds={2: 9.0, 4: 8.0, 6: math.inf}).newest() == 4


EVERY_WALK = [
    part
    for name, value in {"checkpoint_every": 1, "log_every": 1, "ema": 0.5, "clip": 0, "batch_size": 8}.items()
    for part in ("--set", f"training.{name}={value}")
]
FAR = ("--steps", "14", "--lr", "1e3")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained") / "a"
    constant = ("--set", "training.lr_schedule=constant", "--set", "training.warmup=0")
    assert run(directory, *EVERY_WALK, *constant, steps=6).code == 0
    return directory


def copy_of(directory: Path, place: Path) -> Path:
    shutil.copytree(directory, place)
    return place


def test_a_run_that_diverges_names_a_checkpoint_that_is_not_ruined(trained: Path, tmp_path: Path) -> None:
    directory = copy_of(trained, tmp_path / "a")
    done = walkback("run", "--resume", directory, *FAR)
    assert done.code == 1
    found = re.search(
        rf"the last good checkpoint is that of 6 walks: --resume {directory}@6 --lr RATE", done.err
    )
    assert found is not None, done.err
    kept = CheckpointStore(directory / "checkpoints").steps()
    assert kept[0] > 6  # later ones are there, and ruined
    assert 6 in kept
    assert walkback("run", "--resume", directory, "--steps", "14", "--lr", "1e-3").code == 1
    done = walkback("run", "--resume", f"{directory}@6", "--steps", "14", "--lr", "1e-3")
    assert done.code == 0, done.err
    assert all(math.isfinite(line["loss"]) for line in figures(directory) if "loss" in line)


ROLLBACK = (
    *("--set", "training.on_nonfinite=rollback", "--set", "training.rollback_rate=1e-6"),
    *("--set", "training.keep_checkpoints=1"),
)


@pytest.fixture(scope="module")
def recovered(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has diverged, went back, and came to its end without being interrupted."""
    directory = copy_of(trained, tmp_path_factory.mktemp("recovered") / "a")
    done = walkback("run", "--resume", directory, *FAR, *ROLLBACK)
    assert done.code == 0, done.err
    assert "went back to the checkpoint of 6 walks" in done.err
    return directory


def test_a_run_goes_back_and_says_so_in_its_metrics(recovered: Path) -> None:
    lines = [line for line in records(recovered) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 15))
    assert [line.get("rollbacks", 0) for line in lines] == [0] * 6 + [1] * 8
    assert [line["learning_rate"] for line in lines[6:]] == pytest.approx([1e-3] * 8)
    document = walkback("info", recovered / "final.safetensors", "--json").document()
    assert document["progress"]["rollbacks"] == 1


@pytest.mark.parametrize("interrupted", [1, 2, 4, 6, 9])
def test_resuming_holds_through_a_return(
    trained: Path, recovered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: int
) -> None:
    """Killed before walk number `interrupted` of those that it takes, before, at and after the return."""
    directory, walk, taken = copy_of(trained, tmp_path / "a"), Trainer.walk, [0]

    def killed(worker: Trainer) -> Tensor:
        taken[0] += 1
        if taken[0] == interrupted:
            raise KeyboardInterrupt
        return walk(worker)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "walk", killed)
        assert walkback("run", "--resume", directory, *FAR, *ROLLBACK).code == 130
    done = walkback("run", "--resume", directory, *FAR, *ROLLBACK)
    assert done.code == 0, done.err
    assert digest(directory / "final.safetensors") == digest(recovered / "final.safetensors")
    assert figures(directory) == figures(recovered)


def test_a_validation_bound_that_is_not_finite_is_gone_back_from(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is lost once, after walk 9, while the loss is fine."""
    directory, estimate, lost = copy_of(trained, tmp_path / "a"), walkback_run.estimate_bound, [True]
    options = ("--steps", "12", "--set", "training.validate_every=3")

    def estimated(*arguments: Any, **more: Any) -> Any:
        walks = max(CheckpointStore(directory / "checkpoints").steps())
        if walks == 8 and lost.pop():
            lost.append(False)
            raise NotFiniteValuesError("Got 2 of 20 values of bound that are not finite.")
        return estimate(*arguments, **more)

    monkeypatch.setattr(walkback_run, "estimate_bound", estimated)
    done = walkback("run", "--resume", directory, *options)
    assert done.code == 1
    assert "Validation after 9 walks failed: Got 2 of 20 values" in done.err
    assert f"--resume {directory}@" in done.err
    lost[:] = [True]
    shutil.rmtree(directory)
    copy_of(trained, directory)
    done = walkback("run", "--resume", directory, *options, *ROLLBACK)
    assert done.code == 0, done.err
    assert "Validation after 9 walks failed" in done.err
    assert "went back to the checkpoint of" in done.err
    assert [line["step"] for line in records(directory) if "validation_nats" in line] == [6, 9, 12]


def test_a_run_goes_back_to_its_beginning_and_no_more_often_than_it_may(tmp_path: Path) -> None:
    options = [*EVERY_WALK, *ROLLBACK, "--lr", "1e3"]
    assert run(tmp_path / "a", *options, steps=8).code == 0
    stubborn = ["--set", "training.rollback_rate=1", "--set", "training.nonfinite_limit=2"]
    done = run(tmp_path / "b", *options, *stubborn, steps=8)
    assert done.code == 1
    assert done.err.count("went back to the checkpoint of 0 walks") == 2
    assert "training went back 2 times before it (training.nonfinite_limit)" in done.err


def test_going_back_cannot_help_before_any_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WalkbackLoss, "__call__", lambda self, step: -step.log_p * math.nan)
    done = run(tmp_path / "a", *ROLLBACK, steps=4)
    assert done.code == 1
    assert "at walk 0, step 1 of" in done.err
    assert "no update has been made yet" in done.err
    assert "went back" not in done.err
