"""Several processes divide an evaluation, samples and a diagnostic: the figures are those of one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from tests.pairs import together
from tests.program import children_of, elsewhere, finish, run, running, tree

DIVIDED = """
from pathlib import Path

from walkback.building.assembly import build_dataset, build_model, fit_to_data
from walkback.configuration.layering import resolve
from walkback.data import batch_of
from walkback.diagnostics import Subject
from walkback.extensions.registry import Registry
from walkback.measuring.bound import estimate_bound
from walkback.measuring.divided_calls import divided_calls
from walkback.measuring.path_works import EvaluationPlan, heat_data
from walkback.sampling import SamplePlan, sample_frames
from walkback.storage.work_cache import WorkCache
from walkback.support.seeding import generator
from walkback_diagnostics.reversibility import Reversibility

CPU = torch.device("cpu")
registry = Registry.discover()
config = resolve(registry, overrides=["operator.network.hidden=16", "operator.network.depth=1", "schedule.n1=3"])
dataset = build_dataset(config.data, registry)
dataset.prepare()
parts = {name: getattr(config, name) for name in ("operator", "schedule", "process", "prior")}
model = build_model(parts, registry, dataset.info.space, seed=0)
fit_to_data(model, dataset, 0)
levels = model.levels()[:6]

def bound(world):
    firsts = range(0, 100, 20)
    noises = [generator(CPU, 0, "test", first) for first in firsts]
    batches = [batch_of(dataset, "test", slice(first, first + 20), noise) for first, noise in zip(firsts, noises)]
    return estimate_bound(model, batches, dataset.info, noises, paths=2, world=world).to_dict()

def heated(world, directory):
    plan = EvaluationPlan(limit=50, paths=3, batch_size=20)
    cache = WorkCache(directory, {"of": "a test"}).divided(world)
    found = heat_data(model, dataset, plan, levels, CPU, cache)
    return [found.work.tolist(), found.bound.tolist(), found.production.tolist()]

def sampled(world, num):
    plan = SamplePlan(num=num, chain=4, every=2, batch_size=20)
    with model.evaluating():
        frames = sample_frames(model, levels, plan, CPU, world=world)
        return [[done, step, state.flatten().tolist()] for done, step, state in frames if state is not None]

def reversed_chains(world, directory):
    cache = WorkCache(directory, {"of": "a test"}).divided(world)
    diagnostic = Reversibility(chains=50, steps=20, burn_in=5, rank_chains=0)
    with model.evaluating(), divided_calls(model.operator, world):
        report = diagnostic.measure(Subject(model, dataset.info, lambda: dataset, cache=cache))
    return report.to_dict()

def work(world):
    place = Path(sys.argv[1]).parent
    mine = place / "heated" if world.is_main else None
    alone = heated(World(), place / f"alone-{world.rank}")
    equal = {
        "bound": bound(world) == bound(World()),
        "heated": heated(world, mine) == alone,
        "samples": sampled(world, 50) == sampled(World(), 50),
        "one batch": sampled(world, 7) == sampled(World(), 7),
    }
    if world.is_main:  # the second piece is missing, the third one broken
        (mine / "heating-1.safetensors").unlink()
        (mine / "heating-2.safetensors").write_bytes(b"no tensors")
    equal["resumed"] = heated(world, mine) == alone
    chains = place / "chains" if world.is_main else None
    expected = reversed_chains(World(), None)
    equal["chains"] = reversed_chains(world, chains) == expected
    equal["chains resumed"] = reversed_chains(world, chains) == expected
    return equal

pair(work)
"""

ROWS = """
from walkback.errors import WalkbackError
from walkback.measuring.divided_calls import divided_calls
from walkback.networks import Told

class Seen(nn.Module):
    def __init__(self, inner=None):
        super().__init__()
        self.inner, self.rows = inner, []

    def forward(self, state, told):
        self.rows.append(len(state))
        if self.inner is not None:
            return self.inner(state, told)
        labels = 0 if told.label is None else told.label[:, None]
        return state * told.log2_temperature[:, None] + labels, state + 1

class Single(nn.Module):
    def forward(self, state, told):
        return state

def work(world):
    network, state = Seen(Seen()), torch.arange(10.0).reshape(5, 2)
    found = {}
    for name, told in {
        "same": Told(torch.tensor([2.0])),
        "own": Told(torch.arange(5.0), torch.arange(5)),
    }.items():
        with torch.no_grad():
            expected = network(state, told)
            with divided_calls(network, world):
                network.rows.clear(), network.inner.rows.clear()
                outputs = network(state, told)
                found[name] = [all(map(torch.equal, outputs, expected)), network.rows[:], network.inner.rows[:]]
    with divided_calls(network, world):
        network.rows.clear()
        network(state, told)  # records a graph
        found["graph"] = network.rows[:]
    single = Single()
    try:
        with torch.no_grad(), divided_calls(single, world):
            single(state, told)
    except WalkbackError as error:
        found["refused"] = str(error)
    return found

pair(work)
"""


def test_parts_of_several_processes_are_those_of_one(tmp_path: Path) -> None:
    """To the last bit: batches have their own streams, and 25 rows are computed like 50 on a CPU."""
    ranks, _ = together(DIVIDED, tmp_path)
    names = ("bound", "heated", "samples", "one batch", "resumed", "chains", "chains resumed")
    assert ranks == [dict.fromkeys(names, True)] * 2


def test_rows_of_network_calls_are_divided(tmp_path: Path) -> None:
    ranks, _ = together(ROWS, tmp_path)
    for found in ranks:
        assert found["same"] == [True, [3], [3]]
        assert found["own"] == [True, [3], [3]]
        assert found["graph"] == [5]
        assert found["refused"] == "Got Tensor from the network Single, expected a tuple of tensors."


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "a"
    assert run(directory, "--no-pictures").code == 0
    return directory


@pytest.mark.slow
def test_commands_write_the_same_from_two_processes(trained: Path, tmp_path: Path) -> None:
    """`pytest -m slow tests/test_divided.py`."""
    few = ("--limit", "60", "--paths", "2", "--simulated", "40", "--batch-size", "20")
    quick = ("--set", "chains=50", "--set", "steps=20", "--set", "burn_in=2", "--set", "rank_chains=0")
    for command in (("evaluate", trained, *few), ("diagnose", "reversibility", trained, *quick)):
        found = elsewhere(*command, "--json", "--nproc", "2", "--cache", tmp_path / command[0])
        assert found.code == 0, found.err
        assert found.document() == elsewhere(*command, "--json").document()
        entries = {path.suffix for path in (tmp_path / command[0]).iterdir()}
        assert entries == {".json", ".safetensors"}
    words = ("sample", trained, "--num", "50", "--batch-size", "20", "--chain", "4", "--every", "2")
    for name, nproc in (("one", ()), ("two", ("--nproc", "2"))):
        (tmp_path / name).mkdir()
        done = elsewhere(*words, *nproc, "--out", tmp_path / name / "a.npz", "--force")
        assert done.code == 0, done.err
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    refused = elsewhere(*words, "--nproc", "2", "--out", tmp_path / "two" / "a.npz")
    assert refused.code == 2
    assert len(refused.err.splitlines()) == 1


@pytest.mark.slow
def test_a_lost_process_ends_an_evaluation(trained: Path) -> None:
    """`pytest -m slow tests/test_divided.py`."""
    with running("evaluate", trained, "--paths", "100000", "--nproc", "2") as process:
        while len(children_of(process)) < 2:
            time.sleep(0.1)
        time.sleep(5)
        os.kill(max(children_of(process)), signal.SIGKILL)
        done = finish(process)
    assert done.code == 128 + signal.SIGKILL
    assert "was ended by SIGKILL." in done.err
