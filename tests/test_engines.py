"""Processes that train together learn what one process learns from their joined batches."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from tests.pairs import together
from tests.program import TINY, elsewhere, records
from torch import nn

from walkback.errors import ConfigurationError
from walkback.storage.tensorfile import read_tensors
from walkback.training.engines import require_synchronizable
from walkback_networks.norms import LevelBatchNorm

LEARNING = """
from dataclasses import replace
from typing import final

from tests.toy.data import InMemory
from tests.toy.learned import seeing_gaussian, shaken
from tests.toy.statistics import normal
from tests.toy.trainers import ROWS, small_model
from walkback.configuration.settings import TrainingSettings
from walkback.model import Model
from walkback.operators import TransitionOperator
from walkback.support.seeding import generator
from walkback.training.batches import BatchOrder
from walkback.training.paths import path_loss
from walkback.training.trainer import Trainer, levels_of_walk
from walkback.walk import Start
from walkback_paper.objectives import NegativeBound, WalkbackLoss

WALKS, RATE, CLIP = 4, 0.01, 0.5

@final
class Partial(TransitionOperator):
    \"\"\"An operator with weights that only the first level uses, and some that nothing uses.\"\"\"

    def __init__(self):
        super().__init__()
        self.inner = seeing_gaussian()
        self.layers = nn.ModuleList([shaken(nn.Linear(3, 5), 1), shaken(nn.Linear(5, 3), 2)])
        self.never = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, state, level, context=None):
        moved = self.layers[1](self.layers[0](state).tanh())
        step = torch.as_tensor(level.step, device=state.device)
        first = (step == 1).reshape(-1, 1)
        if bool(first.any()):  # no gradient at all at other levels
            state = state + torch.where(first, moved, torch.zeros_like(moved))
        return self.inner(state, level, context)

    @property
    def max_temperature(self):
        return self.inner.max_temperature

def model():
    made = small_model(Partial())
    made.prior.fit(ROWS)
    return made

def objective(updates):
    return NegativeBound() if updates == "path" else WalkbackLoss()

def settings(updates, **more):
    kind = "batch" if updates == "path" else updates
    chosen = {"steps": 20, "batch_size": 4, "lr": RATE, "clip": CLIP, "updates": kind, "ema": 0.9, "weight_decay": 0.1}
    return TrainingSettings(**(chosen | more))

def trained(world, updates, walks=WALKS, **more):
    system = model()
    chosen, device = settings(updates, **more), torch.device("cpu")
    trainer = Trainer(system, objective(updates), InMemory(ROWS), chosen, seed=0, device=device, world=world)
    norms = []
    while trainer.progress.walks < walks:
        trainer.walk()
        norms.append(trainer.gradient_norm.item())
    return trainer, norms

def numbers(trainer):
    tensors, _ = trainer.state()
    averaged = trainer.averaged_model.tensors()
    lists = lambda part: {name: value.flatten().tolist() for name, value in part.items() if not value.is_meta}
    return lists(tensors), lists(averaged)

def joint(updates):
    \"\"\"The same in one process, from the mean loss of the joined batches, with the plain optimizer.\"\"\"
    system, chosen = model(), settings(updates)
    weights = [weight for weight in system.operator.parameters()]
    adam = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.1, foreach=False)
    orders = [BatchOrder(len(ROWS), 4, 0, rank=rank, world_size=2) for rank in range(2)]
    averages, norms, count = None, [], 0

    def step():
        nonlocal averages, count
        norms.append(nn.utils.clip_grad_norm_(weights, CLIP).item())
        adam.step()
        adam.zero_grad()
        count += 1
        keep = 0.0 if averages is None else min(0.9, (1 + count) / (10 + count))
        averages = [keep * old + (1 - keep) * weight.detach() for old, weight in zip(averages or weights, weights)]
        averages = [average.detach() for average in averages]

    for walk in range(WALKS):
        noises = [generator("cpu", 0, "noise", walk, rank) for rank in range(2)]
        starts = [Start(ROWS[order.batch(walk)], prior=system.prior) for order in orders]
        levels = levels_of_walk(system, 0, walk)
        if updates == "path":
            both = [path_loss(system, objective(updates), *each) for each in zip(starts, [levels] * 2, noises)]
            (torch.cat([losses for losses, _ in both]).mean() / len(levels) / 3).backward()
            step()
            ends = [end for _, end in both]
        else:
            paths = [system.path(start, levels, noise) for start, noise in zip(starts, noises)]
            for _ in levels:
                steps = [next(path) for path in paths]
                loss = torch.cat([objective(updates)(each) for each in steps]).mean() / 3
                (loss if updates == "online" else loss / len(levels)).backward()
                if updates == "online":
                    step()
            if updates != "online":
                step()
            ends = [each.target for each in steps]
        system.prior.observe(torch.cat(ends))
    return weights, averages, norms[-1]
"""

COMPARED = """
KINDS = ("online", "batch", "stacked", "path")

def work(world):
    found = {}
    for shards in (False, True):
        for updates in KINDS:
            trainer, norms = trained(replace(world, shards=shards), updates)
            found[f"{updates}-{shards}"] = [*numbers(trainer), norms[-1]]
    return found

pair(work)
names = [f"operator.{name}" for name, _ in model().operator.named_parameters()]
flat = lambda values: {name: value.flatten().tolist() for name, value in zip(names, values)}
print(json.dumps({updates: [*map(flat, joint(updates)[:2]), joint(updates)[2]] for updates in KINDS}))
"""


def close(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-9, abs=1e-11), name


def test_processes_learn_what_one_learns_from_their_joined_batches(tmp_path: Path) -> None:
    """Weights, their average and the norm of gradients; some weights get a gradient at one level only, or never."""
    ranks, printed = together(LEARNING + COMPARED, tmp_path)
    for updates, (weights, averages, norm) in json.loads(printed).items():
        for shards in (False, True):
            first, second = (rank[f"{updates}-{shards}"] for rank in ranks)
            close(first[0], weights)
            close(first[1], averages)
            assert first[2] == pytest.approx(norm, rel=1e-9)
            assert second[2] == first[2]
            if not shards:
                assert second[:2] == first[:2]


NORMS = """
from walkback.support.seeding import generator
from walkback.training.engines import synchronize_norms
from walkback_networks.norms import LevelBatchNorm

COUNTS = (3, 5)

def made():
    norm = LevelBatchNorm(2, 4).double()
    with torch.no_grad():
        for weight in norm.parameters():
            weight.normal_(generator=generator("cpu", 0, "weights"))
    return norm

def seen(norm, rows, level, wanted):
    rows = rows.clone().requires_grad_()
    outputs = norm(rows, level)
    (outputs * wanted).sum().backward()
    return outputs.detach(), rows.grad, norm

def work(world):
    noise = generator("cpu", 0, "rows")
    rows, wanted = (torch.randn(8, 2, 3, generator=noise, dtype=torch.float64) for _ in range(2))
    found = {}
    for name, level in {"one": torch.tensor([2]), "own": torch.tensor([0, 1, 2, 1, 1, 0, 2, 1])}.items():
        joint = seen(made(), rows, level.expand(8), wanted)
        mine = list(range(8))[: COUNTS[0]] if world.is_main else list(range(8))[COUNTS[0] :]
        norm = made()
        synchronize_norms(norm)
        parts = seen(norm, rows[mine], level if len(level) == 1 else level[mine], wanted[mine])
        gradients = []
        for weight, other in zip(parts[2].parameters(), joint[2].parameters()):
            dist.all_reduce(weight.grad)
            gradients.append([weight.grad.flatten().tolist(), other.grad.flatten().tolist()])
        buffers = [[a.flatten().tolist(), b.flatten().tolist()] for a, b in zip(parts[2].buffers(), joint[2].buffers())]
        rest = [[part.flatten().tolist(), whole[mine].flatten().tolist()] for part, whole in zip(parts[:2], joint[:2])]
        found[name] = [*rest, *gradients, *buffers]
    return found

pair(work)
"""


def test_synchronized_norms_are_those_of_the_joined_batch(tmp_path: Path) -> None:
    """Outputs, gradients and running statistics, of rows at one level and at different ones."""
    ranks, _ = together(NORMS, tmp_path)
    for found in ranks:
        for each in found.values():
            assert len(each) == 7
            for ours, expected in each:
                assert ours == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_norms_that_cannot_be_synchronized_are_refused() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(ConfigurationError, match="without batch norm"):
        require_synchronizable(nn.Sequential(nn.Linear(1, 1), nn.LayerNorm(1)), cpu)
    with pytest.raises(
        ConfigurationError, match="1, a BatchNorm1d, which torch synchronizes on CUDA devices only"
    ):
        require_synchronizable(nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)), cpu)
    require_synchronizable(nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)), torch.device("cuda"))
    require_synchronizable(LevelBatchNorm(1, 2), cpu)


def files(directory: Path) -> set[str]:
    """The names in a run directory, without numbers of walks."""
    return {re.sub(r"\d+", "N", str(path.relative_to(directory))) for path in directory.rglob("*")}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_divided_weights_are_resumed_by_any_number_of_processes_divided_or_not(tmp_path: Path) -> None:
    """Two processes learn the same; `pytest -m slow tests/test_engines.py`."""
    shared, plain, alone = (tmp_path / name for name in ("shared", "plain", "alone"))
    often = ("--set", "training.checkpoint_every=2", "--no-pictures")

    def trained(*options: str | Path) -> None:
        done = elsewhere("run", *options)
        assert done.code == 0, done.err

    def divided(number: int, shard: bool) -> tuple[str, ...]:
        return ("--nproc", str(number), "--set", f"run.shard={str(shard).lower()}")

    trained(*TINY, *often, "--steps", "4", *divided(2, True), "--out", shared)
    trained("--resume", shared, "--steps", "6", *divided(2, False))
    trained(*TINY, *often, "--steps", "6", *divided(2, False), "--out", plain)
    ours, theirs = (read_tensors(place / "final.safetensors")[0] for place in (shared, plain))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-6, msg=name)
    trained("--resume", shared, "--steps", "8", *divided(1, True))
    trained("--resume", shared, "--steps", "10", *divided(2, True))
    assert [line["step"] for line in records(shared) if "loss" in line][-1] == 10
    trained(*TINY, *often, "--steps", "10", "--out", alone)
    assert files(shared) == files(plain) == files(alone)
