"""Several processes train one operator: the same weights everywhere, and one run directory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from tests.pairs import together
from tests.program import (
    ENVIRONMENT,
    PATIENCE,
    TINY,
    children_of,
    elsewhere,
    finish,
    is_running,
    records,
    running,
    wait_until,
    walkback,
)

import walkback as wb
from walkback.errors import ConfigurationError
from walkback.storage.tensorfile import read_tensors
from walkback.support.world import World, joined_world, local_device

TRAINING = """
from walkback.building.assembly import build_dataset, build_model, build_objective, fit_to_data
from walkback.configuration.layering import resolve
from walkback.extensions.registry import Registry
from walkback.training.trainer import Trainer

registry = Registry.discover()
network = ["hidden=16", "depth=1", "dropout=0.2"]
overrides = [*(f"operator.network.{option}" for option in network), "training.batch_size=4"]

def digest(*modules):
    values = hashlib.sha256()
    for module in modules:
        for value in module.state_dict().values():
            values.update(value.numpy().tobytes())
    return values.hexdigest()

def train(world, updates):
    config = resolve(registry, overrides=[*overrides, f"training.updates={updates}"])
    dataset = build_dataset(config.data, registry)
    dataset.prepare()
    parts = {name: getattr(config, name) for name in ("operator", "schedule", "process", "prior")}
    model = build_model(parts, registry, dataset.info.space, seed=world.rank)  # as if they had started apart
    fit_to_data(model, dataset, config.run.seed)
    objective = build_objective(config.objective, registry)
    device = torch.device("cpu")
    trainer = Trainer(model, objective, dataset, config.training, seed=0, device=device, world=world)
    seen = [digest(model.operator, model.prior)]
    losses = []
    for _ in range(3):
        losses.append(trainer.walk().item())
        seen.append(digest(model.operator, model.prior, trainer.averaged_model.operator))
    return {"seen": seen, "losses": losses}

def work(world):
    return {updates: train(world, updates) for updates in ("batch", "online", "stacked")}

pair(work)
"""

COLLECTIVES = """
def work(world):
    mine = torch.full((2, 1), float(world.rank))
    pair_of_leaves = [world.gather(mine), world.gather(mine + 10)]
    module = nn.BatchNorm1d(1)
    nn.init.constant_(module.weight, float(world.rank + 1))
    module.running_mean.fill_(float(world.rank + 1))
    world.copy_from_main(module)
    world.wait()
    return {
        "gathered": [leaf.flatten().tolist() for leaf in pair_of_leaves],
        "any": [world.any(False), world.any(world.rank == 1), world.any(True)],
        "copied": [module.weight.item(), module.running_mean.item()],
        "main": world.is_main,
        "text": world.text_from_main("σ" if world.is_main else "other"),
        "empty": world.text_from_main("" if world.is_main else "other"),
        "tensors": [world.tensors_from(1, {"a": mine, "b": mine.bool()[0, 0]})[name].tolist() for name in "ab"],
        "none": world.tensors_from(0, {}),
        "mean": world.mean(torch.tensor(float(world.rank))).item(),
    }

pair(work)
"""


# --- the world


def test_weights_averages_and_prior_stay_identical(tmp_path: Path) -> None:
    ranks, _ = together(TRAINING, tmp_path)
    for updates in ("batch", "online", "stacked"):
        first, second = (rank[updates] for rank in ranks)
        assert first["seen"] == second["seen"]
        assert len(set(first["seen"])) == 4  # every walk has changed them
        assert not set(first["losses"]) & set(second["losses"])  # from different data


def test_collectives(tmp_path: Path) -> None:
    ranks, _ = together(COLLECTIVES, tmp_path)
    for rank, answer in enumerate(ranks):
        assert answer == {
            "gathered": [[0.0, 0.0, 1.0, 1.0], [10.0, 10.0, 11.0, 11.0]],
            "any": [False, True, True],
            "copied": [1.0, 1.0],
            "main": rank == 0,
            "text": "σ",
            "empty": "",
            "tensors": [[[1.0], [1.0]], True],
            "none": {},
            "mean": 0.5,
        }


def test_a_process_alone_needs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_world(torch.device("cpu")) as world:
        world.copy_from_main(torch.nn.Linear(1, 1))
        world.wait()
        state = torch.ones(1, 1)
        assert world == World(0, 1)
        assert world.gather(state) is state
        assert (world.any(False), world.any(True)) == (False, True)


def test_each_process_takes_the_device_of_its_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    for available, expected in (
        (True, ["cuda:3", "cuda:3", "cpu", "cuda:1"]),
        (False, ["auto", "cuda", "cpu", "cuda:1"]),
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert [local_device(name) for name in ("auto", "cuda", "cpu", "cuda:1")] == expected
    monkeypatch.delenv("LOCAL_RANK")
    assert local_device("auto") == "auto"


# --- the program


@contextlib.contextmanager
def training_pair(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """The launcher of two processes that train and would go on for hours."""
    with running("run", *TINY, "--steps", "1000000", "--nproc", "2", "--out", directory) as process:
        wait_until(lambda: (directory / "metrics.jsonl").exists() and len(records(directory)) > 1, process)
        yield process


def test_two_processes_make_one_run_and_one_of_them_talks(tmp_path: Path) -> None:
    directory = tmp_path / "a"
    done = elsewhere("run", *TINY, "--steps", "6", "--nproc", "2", "--out", directory, "--json")
    assert done.code == 0, done.err
    document = done.document()
    assert (document["directory"], document["walks"]) == (str(directory), 6)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [line["step"] for line in records(directory) if "loss" in line] == [1, 6]
    lines = done.err.splitlines()
    assert len(lines) == len(set(lines))
    assert sum("Training 6/6" in line for line in lines) == 1
    final = directory / "final.safetensors"
    assert walkback("sample", final, "--num", "2", "--out", tmp_path / "a.png").code == 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_an_interrupt_of_the_launcher_stops_all_with_one_checkpoint(tmp_path: Path) -> None:
    directory = tmp_path / "a"
    with training_pair(directory) as process:
        children = children_of(process)
        assert len(children) == 2
        process.send_signal(signal.SIGINT)
        done = finish(process)
    assert (done.code, done.out) == (130, "")
    (walks,) = re.findall(r"Stopped after (\d+) walks; go on with walkback run --resume", done.err)
    assert [path.name for path in (directory / "checkpoints").glob("*.json")] == [f"step-{walks}.json"]
    assert [number for number in children if is_running(number)] == []
    assert not {"Traceback", "error:"} & set(done.err.split())
    resumed = walkback("run", "--resume", directory, "--set", "run.nproc=1", "--steps", walks, "--json")
    assert (resumed.code, resumed.document()["walks"]) == (0, int(walks))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_when_one_process_dies_the_others_are_ended(tmp_path: Path) -> None:
    directory = tmp_path / "a"
    with training_pair(directory) as process:
        children = children_of(process)
        main = int((directory / ".lock").read_text())
        (other,) = set(children) - {main}
        os.kill(other, signal.SIGKILL)
        done = finish(process)
    assert done.code == 128 + signal.SIGKILL
    assert "error: Process 2 of 2 was ended by SIGKILL; go on with --resume." in done.err.splitlines()
    assert [number for number in children if is_running(number)] == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_a_launcher_that_is_terminated_says_so_by_its_code(tmp_path: Path) -> None:
    with training_pair(tmp_path / "a") as process:
        process.terminate()
        done = finish(process)
    assert (done.code, done.out) == (128 + signal.SIGTERM, "")
    assert len(re.findall(r"Stopped after \d+ walks; go on with", done.err)) == 1
    assert len(list((tmp_path / "a" / "checkpoints").glob("*.json"))) == 1


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_processes_save_and_end_when_their_launcher_is_killed(tmp_path: Path) -> None:
    directory = tmp_path / "a"
    with training_pair(directory) as process:
        children = children_of(process)
        assert len(children) == 2
        process.kill()
        deadline = time.monotonic() + PATIENCE
        while any(map(is_running, children)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert len(list((directory / "checkpoints").glob("*.json"))) == 1


def test_torchrun_starts_the_same(tmp_path: Path) -> None:
    directory = tmp_path / "a"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "walkback"]
    words = ["run", *TINY, "--steps", "6", "--out", str(directory), "--json"]
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "WORLD_SIZE"}
    done = subprocess.run(
        [sys.executable, *launcher, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["walks"] == 6
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    same = tmp_path / "b"
    assert elsewhere("run", *TINY, "--steps", "6", "--nproc", "2", "--out", same).code == 0
    ours, theirs = (read_tensors(place / "final.safetensors")[0] for place in (directory, same))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)


def test_one_process_of_several_does_not_train_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="torchrun -m walkback run"):
        wb.train(steps=1, progress=False)


def test_arguments_reach_the_processes_as_they_are(tmp_path: Path) -> None:
    """The launcher would replace `${local_rank}`, and halve `$$`."""
    directory = tmp_path / "a$$b${local_rank}"
    done = elsewhere("run", *TINY, "--steps", "1", "--nproc", "2", "--out", directory)
    assert done.code == 0, done.err
    assert [path.name for path in tmp_path.iterdir()] == [directory.name]


@pytest.mark.parametrize(("world", "late"), [({}, "late\n"), ({"WORLD_SIZE": "2"}, "")])
def test_one_of_several_processes_leaves_without_the_interpreters_farewell(
    world: dict[str, str], late: str
) -> None:
    """What the interpreter would do at its end, which threads of gloo must not meet, is not done; output is."""
    code = (
        "import atexit, sys; from walkback.cli.main import main; sys.argv = ['walkback', '--version'];"
        "atexit.register(print, 'late'); main()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | world, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"walkback {version('walkback')}\n{late}"
