"""Several processes train one operator: the same weights everywhere, and one run directory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.program import (
    ENVIRONMENT,
    PATIENCE,
    TINY,
    elsewhere,
    finish,
    records,
    running,
    wait_until,
    walkback,
)

from walkback.training.distributed import World, joined_world, local_device

PAIR = """
import hashlib, json, os, sys
import torch
from torch import nn
import torch.distributed as dist
from walkback.training.distributed import World

def pair(work):
    \"\"\"Run `work(world)` in two processes; prints what each returns, a line a rank.\"\"\"
    children = []
    for rank in range(2):
        child = os.fork()
        if not child:
            code = 1
            try:
                dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
                answer = work(World(rank, 2))
                dist.destroy_process_group()
                with open(f"{sys.argv[1]}-{rank}", "w") as file:
                    json.dump(answer, file)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
"""

GRADIENTS = """
def joint():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1), nn.Linear(1, 1)).double()
    return model, torch.randn(8, 3, dtype=torch.float64)

def gradient(model, rows):
    model[:3](rows).square().mean().backward()  # the last layer gets no gradient

def flat(model):
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    return torch.cat([gradient.flatten() for gradient in gradients]).tolist()

def work(world):
    model, rows = joint()
    gradient(model, rows[4 * world.rank : 4 * world.rank + 4])
    world.average_gradients(list(model.parameters()))
    return flat(model)

pair(work)
model, rows = joint()
gradient(model, rows)
print(json.dumps(flat(model)))
"""

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
    pair_of_leaves = world.gather((mine, mine + 10))
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
    }

pair(work)
"""


def together(code: str, tmp_path: Path) -> tuple[list[Any], str]:
    """What two processes that ran the code returned, and what it printed."""
    meeting = tmp_path / "meeting"
    line = [sys.executable, "-c", PAIR + code, str(meeting)]
    done = subprocess.run(
        line, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((tmp_path / f"meeting-{rank}").read_text()) for rank in range(2)], done.stdout


# --- the world


def test_averaged_gradients_are_those_of_the_joint_batch(tmp_path: Path) -> None:
    ranks, printed = together(GRADIENTS, tmp_path)
    assert ranks[0] == ranks[1]
    assert ranks[0] == pytest.approx(json.loads(printed), rel=1e-12, abs=1e-15)
    assert any(abs(value) > 1e-3 for value in ranks[0])
    assert ranks[0][-2:] == [0.0, 0.0]


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
        }


def test_a_process_alone_needs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_world(torch.device("cpu")) as world:
        layer = torch.nn.Linear(1, 1)
        world.average_gradients(list(layer.parameters()))
        world.copy_from_main(layer)
        world.wait()
        state = (torch.ones(1, 1), torch.zeros(1, 2))
        assert world == World(0, 1)
        assert world.gather(state) is state
        assert (world.any(False), world.any(True), layer.weight.grad) == (False, True, None)


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


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a process has started and that are still there."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if re.search(rf"^PPid:\t{process.pid}$", text, re.MULTILINE):
            found.append(int(status.parent.name))
    return found


def is_running(number: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return not re.search(r"^State:\tZ", Path(f"/proc/{number}/status").read_text(), re.MULTILINE)
    except OSError:
        return False


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
    assert [number for number in children if is_running(number)] == []


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
