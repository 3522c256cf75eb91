"""`walkback bench`: what is measured is what it is called, the figures follow from the times, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
import torch
from tests.program import TINY, finish, running, wait_until, walkback
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from walkback.building.preparation import Prepared, prepare
from walkback.configuration.layering import resolve
from walkback.extensions.registry import Registry
from walkback.kernels import BernoulliKernel, CategoricalKernel, Kernel, NormalKernel
from walkback.operators import TransitionOperator
from walkback.speed.by_hand import VARIANTS, plain, training_by_hand
from walkback.speed.ceilings import CONVOLUTION_FLOPS, PRODUCT_FLOPS, Anatomy
from walkback.speed.records import BenchmarkPlan, Timing, Timings, Way
from walkback.speed.report import CHAIN, benchmark_report
from walkback.speed.timings import WARMUP, time_configuration
from walkback.state import batch_size
from walkback.support.watch import Silent
from walkback.training.trainer import Trainer, levels_of_walk

Install = Callable[..., Path]

SCHEMA = json.loads((Path(__file__).parent.parent / "docs/schemas/report.schema.json").read_text("utf-8"))
ROWS, CHAINS = 8, 9  # of TINY
OWN, ONLINE, STACKED, BF16 = (
    Way("", "batch", "fp32"),
    Way("online", "online", "fp32"),
    Way("stacked", "stacked", "fp32"),
    Way("bf16", "batch", "bf16"),
)


def prepared(*overrides: str) -> Prepared:
    """The tiny configuration."""
    registry = Registry.discover()
    words = [word for word in TINY if word not in ("--set", "--batch-size", str(ROWS))]
    tiny = [*words, f"training.batch_size={ROWS}", "training.updates=batch", *overrides]
    return prepare(resolve(registry, overrides=tiny), registry)


class Call(NamedTuple):
    """One run of an operator's network."""

    rows: int
    precision: str
    learns: bool
    training: bool


class Piece(NamedTuple):
    """What happened between two readings of the clock."""

    calls: list[Call]
    updates: int


class Witness:
    """A clock that notes what the networks and the optimizers do between two readings."""

    def __init__(self) -> None:
        self.readings: list[Piece] = []
        self._calls: list[Call] = []
        self._updates = 0

    def clock(self) -> float:
        self.readings.append(Piece(self._calls, self._updates))
        self._calls, self._updates = [], 0
        return float(len(self.readings))

    @property
    def measured(self) -> list[Piece]:
        """What was timed: between the first and the second reading, the third and the fourth, …"""
        return self.readings[1::2]

    @contextmanager
    def watching(self) -> Iterator[None]:
        def called(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            if isinstance(module, TransitionOperator):
                bf16 = torch.is_autocast_enabled("cpu")
                assert not bf16 or torch.get_autocast_dtype("cpu") is torch.bfloat16
                rows, precision = batch_size(arguments[0]), "bf16" if bf16 else "fp32"
                self._calls.append(Call(rows, precision, torch.is_grad_enabled(), module.training))

        def updated(*_: object) -> None:
            self._updates += 1

        hooks = (
            nn.modules.module.register_module_forward_pre_hook(called),
            register_optimizer_step_post_hook(updated),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def witnessed(work: Prepared, **plan: Any) -> tuple[Timings, list[Piece]]:
    """The timings of a configuration, and what ran in each timed piece, in order."""
    witness = Witness()
    with witness.watching():
        timings = time_configuration(work, BenchmarkPlan(**plan), Silent(), witness.clock)
    return timings, witness.measured


# --- what is measured is what it is called


def test_every_way_runs_what_it_says() -> None:
    """Calls of the network and optimizer steps in each timed piece of the first repeat, K levels."""
    timings, pieces = witnessed(prepared(), repeats=1, chain_steps=5)
    (k,) = timings.levels
    assert list(timings.walks) == [OWN, ONLINE, STACKED, BF16]
    assert list(timings.chain) == [OWN, BF16]
    assert timings.lost == ()
    walk = [Call(ROWS, "fp32", True, True)] * (k + 1)
    alone = [Call(ROWS, "fp32", False, True)] * (k + 1)
    step = Call(CHAINS, "fp32", False, False)
    twice = [Call(ROWS, "fp32", learns, True) for _ in range(k) for learns in (False, True)]
    assert list(timings.by_hand) == list(VARIANTS)
    assert pieces == [
        Piece(walk, 1),
        Piece(walk, k),
        Piece([*alone, Call(ROWS * k, "fp32", True, True)], 1),
        Piece([call._replace(precision="bf16") for call in walk], 1),
        Piece(alone, 0),
        Piece([step] * 5, 0),
        Piece([step._replace(precision="bf16")] * 5, 0),
        Piece(twice, 1),
        *[Piece(walk, 1)] * 4,
        Piece([step] * 5, 0),
        *[Piece([], 0)] * 2,
    ]


def test_all_ways_of_a_repeat_take_the_same_walk() -> None:
    """The number n of steps at T = 1 is drawn for each walk: every repeat has the K of one walk of the run."""
    work = prepared("schedule.n1=40")
    timings, pieces = witnessed(work, repeats=4, chain_steps=1)
    expected = [len(levels_of_walk(work.model, 0, number)) for number in range(WARMUP, WARMUP + 4)]
    assert list(timings.levels) == expected
    assert len(set(expected)) > 1
    for number, k in enumerate(expected):
        repeat = pieces[15 * number : 15 * (number + 1)]
        lengths = sorted(len(piece.calls) for piece in repeat)
        assert lengths == sorted([0, 0, 1, 1, 1, *[k + 1] * 8, k + 2, 2 * k])


def test_without_comparison_only_the_configured_way_runs() -> None:
    timings, pieces = witnessed(prepared("training.updates=online"), repeats=2, compare=False)
    assert list(timings.walks) == list(timings.chain) == [Way("", "online", "fp32")]
    assert len(pieces) == 2 * 3


def test_an_objective_of_whole_walks_is_compared_by_precision_only() -> None:
    timings, _ = witnessed(prepared("objective.name=elbo"), repeats=1)
    assert [way.change for way in timings.walks] == ["", "bf16"]
    assert timings.lost == ()


def test_bf16_is_compared_with_fp32() -> None:
    timings, pieces = witnessed(prepared("run.precision=bf16"), repeats=1)
    assert [way.change for way in timings.walks] == ["", "online", "stacked", "fp32"]
    precisions = [piece.calls[0].precision for piece in pieces if piece.calls]
    by_hand = ["fp32"] * 4 + ["bf16", "fp32"]
    assert precisions == [*["bf16"] * 3, "fp32", "bf16", "bf16", "fp32", *by_hand]


def test_walks_that_start_from_own_chains_are_those_that_are_measured() -> None:
    work = prepared("training.chains.share=0.25", "training.chains.after=3", "training.chains.steps=4")
    timings, pieces = witnessed(work, repeats=1, compare=False)
    assert timings.levels == (len(levels_of_walk(work.model, 0, 3 + WARMUP)),)
    own = [call for call in pieces[0].calls if not call.training]
    assert own == [Call(2, "fp32", False, False)] * 4


def test_what_an_operator_cannot_do_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    work = prepared()
    forward = type(work.model.operator).forward

    def narrow(self: Any, state: Any, level: Any, context: Any = None) -> Any:
        if batch_size(state) > CHAINS:
            raise ValueError("one temperature at a time")
        return forward(self, state, level, context)

    monkeypatch.setattr(type(work.model.operator), "forward", narrow)
    timings, _ = witnessed(work, repeats=2)
    assert list(timings.walks) == [OWN, ONLINE, BF16]
    report = benchmark_report(work, BenchmarkPlan(repeats=2), timings)
    assert report.warnings[0] == (
        "training with stacked updates in fp32 is left out: ValueError: one temperature at a time"
    )


# --- what is left


def test_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    work = prepared("operator.network.dropout=0.5", "run.threads=7")
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)  # seven that spin would slow others down
    modules = (work.model.operator, work.model.prior)
    before = [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]
    random = torch.get_rng_state()
    witnessed(work, repeats=1)
    for module, state in zip(modules, before, strict=True):
        assert all(value.equal(state[name]) for name, value in module.state_dict().items())
        assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.get_rng_state().equal(random)
    assert asked == [7, torch.get_num_threads()]
    assert work.model.operator.training
    assert list(tmp_path.iterdir()) == []


def test_a_copy_of_a_compiled_operator_is_not_compiled() -> None:
    """On which the chains of a compiled configuration rely."""
    layer = nn.Linear(2, 2)
    layer.compile(backend="eager")
    assert layer._compiled_call_impl is not None
    assert deepcopy(layer)._compiled_call_impl is None


# --- figures


WALKS = {OWN: (1.0, 4.0, 3.0), STACKED: (4.0, 8.0, 6.0), BF16: (0.5, 1.0, 1.0)}
CHAIN_TIMES = {OWN: (0.2, 0.4, 0.6), BF16: (0.1, 0.1, 0.3)}


def made_up(**more: Any) -> Timings:
    """Times of three walks of 2, 4 and 3 steps."""
    memory = {OWN: 3 * 2**20, STACKED: 5 * 2**20}
    return Timings(
        **{
            "walks": {way: Timing(seconds, memory.get(way)) for way, seconds in WALKS.items()},
            "heating": Timing((0.5, 1.0, 0.3)),
            "chain": {way: Timing(seconds) for way, seconds in CHAIN_TIMES.items()},
            "levels": (2, 4, 3),
            **more,
        }
    )


def test_figures_follow_from_the_times() -> None:
    work = prepared("training.steps=6000", "schedule.n1=0")  # all walks have the same K
    k = len(work.model.levels())
    report = benchmark_report(work, BenchmarkPlan(repeats=3, chain_steps=10), made_up())
    expected = {
        "speed_stacked": 0.5,  # of 1/4, 1/2, 1/2
        "speed_bf16": 3.0,  # of 2, 4, 3
        "chain_speed_bf16": 2.0,  # of 2, 4, 2
        "walk": k * 1.0,  # of 1/2, 1, 1 a step
        "walk_stacked": k * 2.0,
        "walk_bf16": k * 0.25,  # of 1/4, 1/4, 1/3
        "states": ROWS * 1.0,  # of 2, 1, 1 steps a second
        "heating": 25.0,  # of 50 %, 25 %, 10 %
        "chain_step": 0.04,
        "chain_step_bf16": 0.01,
        "chain_steps": 25.0,
        "samples": 25.0 * CHAINS / k,
        "training_time": 6000 * k * 1.0,
        "chain_time": CHAIN * 0.04,
        "memory": 3.0,
        "memory_stacked": 5.0,
    }
    assert {figure.name: figure.value for figure in report.figures} == pytest.approx(expected)
    assert list(expected) == [figure.name for figure in report.figures]
    assert "1 h 7 min for 100,000 steps" in report["chain_time"].meaning
    assert "6,000 walks" in report["training_time"].meaning
    assert "stacked instead of batch" in report["speed_stacked"].meaning
    assert "bf16 instead of fp32" in report["chain_speed_bf16"].meaning
    assert [figure.error for figure in report.figures] == [None] * len(expected)
    assert report.warnings == ("3 repeats have no standard error: measure at least 4",)
    assert {series.name: series.y for series in report.series} == {
        **{
            f"walk_seconds{end}": WALKS[way]
            for way, end in ((OWN, ""), (STACKED, "_stacked"), (BF16, "_bf16"))
        },
        **{f"chain_seconds{end}": CHAIN_TIMES[way] for way, end in ((OWN, ""), (BF16, "_bf16"))},
    }


def test_proportions_follow_from_the_times() -> None:
    """Of walks of 2, 4 and 3 steps; one of 2 steps was counted."""
    times = {"reference": (4.0, 8.0, 9.0), "shared": (2.0, 4.0, 3.0), "bare": (0.8, 4.0, 2.0)}
    ceiling = Timing((0.01, 0.01, 0.01))
    more = {
        "by_hand": {name: Timing(seconds) for name, seconds in times.items()},
        "chain_by_hand": Timing((0.4, 0.4, 0.6)),
        "ceilings": {"product": ceiling, "convolution": ceiling},
        "anatomy": Anatomy(20 * PRODUCT_FLOPS, 10 * CONVOLUTION_FLOPS, 2, {"products": 0.75, "copies": 0.25}),
    }
    report = benchmark_report(prepared("training.updates=batch"), BenchmarkPlan(repeats=3), made_up(**more))
    expected = {
        "over_reference": 3.0,  # of 4, 2, 3
        "over_reference_stacked": 1.0,  # of 1, 1, 3/2
        "over_reference_bf16": 8.0,  # of 8, 8, 9
        "chain_over_reference": 1.0,  # of 2, 1, 1
        "chain_over_reference_bf16": 4.0,  # of 4, 4, 2
        "by_hand_shared": 2.0,  # of 2, 2, 3
        "by_hand_bare": 4.5,  # of 5, 2, 9/2
        "overhead": 25.0,  # of 5/4, 1, 3/2
        "ceiling_product": PRODUCT_FLOPS / 0.01,
        "ceiling_convolution": CONVOLUTION_FLOPS / 0.01,
        "ceiling_share": 15.0,  # 0.15 s a step, of 0.3/1, 0.6/4, 0.45/3
        "time_products": 75.0,
        "time_copies": 25.0,
    }
    assert {name: report[name].value for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("updates", ["online", "batch"])
def test_the_loop_by_hand_learns_what_a_run_learns(updates: str) -> None:
    """Its bare variant is the trainer, to the last bit; the others draw other noise, from the same laws."""
    constant = ("training.lr_schedule=constant", "training.warmup=0", "operator.network.dropout=0")
    work = prepared(f"training.updates={updates}", *constant)
    model, trained = deepcopy(work.model), deepcopy(work.model)
    settings = work.config.training
    trainer = Trainer(trained, work.objective, work.dataset, settings, seed=0, device=work.device)
    by_hand = training_by_hand(work, model, "bare", 0)
    assert [by_hand() for _ in range(3)] == [trainer.walk() for _ in range(3)]
    for one, other in zip(model.operator.parameters(), trained.operator.parameters(), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize(
    ("kernel", "state"),
    [
        (NormalKernel(torch.randn(3, 2, 2), torch.rand(1, 1, 1) + 0.5), torch.randn(3, 2, 2)),
        (BernoulliKernel(torch.randn(3, 2, 2)), torch.ones(3, 2, 2)),
        (CategoricalKernel(torch.randn(3, 4, 2)), torch.eye(2)[torch.zeros(3, 4, dtype=torch.int64)]),
    ],
)
def test_kernels_by_hand_have_the_same_densities(kernel: Kernel, state: torch.Tensor) -> None:
    found = plain(kernel)
    assert type(found) is not type(kernel)
    torch.testing.assert_close(found.log_prob(state), kernel.log_prob(state))
    assert found.sample(torch.Generator()).shape == state.shape  # type: ignore[union-attr]


def test_a_walk_has_the_mean_length_of_the_runs_own() -> None:
    work = prepared("training.steps=7")
    lengths = [len(levels_of_walk(work.model, 0, number)) for number in range(7)]
    assert len(set(lengths)) > 1
    report = benchmark_report(work, BenchmarkPlan(repeats=3), made_up())
    assert report["walk"].value == pytest.approx(sum(lengths) / 7)
    assert report["training_time"].value == pytest.approx(sum(lengths))
    assert report.protocol["mean_levels"] == sum(lengths) / 7


def test_where_the_device_does_not_tell_the_process_does() -> None:
    work = prepared("training.steps=0", "run.nproc=2")
    walks = {OWN: Timing(WALKS[OWN])}
    report = benchmark_report(work, BenchmarkPlan(repeats=3), made_up(walks=walks, process_peak=2**21))
    assert report["memory"].value == 2.0
    assert "training_time" not in [figure.name for figure in report.figures]
    assert "run.nproc = 2" in report.warnings[-1]


# --- the command


def test_the_command_prints_one_document_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = walkback("bench", *TINY, "--repeats", "4", "--steps", "50", "--json")
    assert done.code == 0, done.err
    found = done.document()
    jsonschema.validate(found, SCHEMA)
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert (found["name"], found["headline"], found["warnings"]) == ("bench", "walk", [])
    assert {"speed_online", "speed_stacked", "speed_bf16", "chain_speed_bf16"} < figures.keys()
    assert {"walk", "states", "heating", "chain_step", "training_time", "chain_time"} < figures.keys()
    assert {"over_reference", "chain_over_reference", "by_hand_bare", "ceiling_share"} < figures.keys()
    parts = [figure["value"] for name, figure in figures.items() if name.startswith("time_")]
    assert sum(parts) == pytest.approx(100)
    of_any_sign = {"overhead", *(name for name in figures if name.startswith("time_"))}
    assert all(figure["value"] > 0 for name, figure in figures.items() if name not in of_any_sign)
    assert figures["walk"]["error"] >= 0
    protocol = found["protocol"]
    assert (protocol["recipe"], protocol["operator"], protocol["data"]) == (
        "digits",
        "gaussian-mlp",
        "digits",
    )
    assert (protocol["rows"], protocol["chains"], protocol["repeats"], protocol["steps"]) == (8, 9, 4, 50)
    assert list(tmp_path.iterdir()) == []


def test_the_command_shows_a_table() -> None:
    done = walkback("bench", *TINY, "--repeats", "1", "--no-compare")
    assert done.code == 0, done.err
    assert "a walk of 8 rows as configured: batch updates, fp32" in done.out
    assert "speed" not in done.out
    assert "repeats" in done.out
    assert "warning: 1 repeats have no standard error" in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--repeats", "0"), ["--repeats", "walkback bench --help"]),
        (("--batch-size", "0"), ["training.batch_size", "got 0"]),
        (("--recipe", "nope"), ["'nope'", "digits"]),
        (("--set", "operator.sgima=1"), ["'operator.sgima'", "did you mean 'operator.sigma'"]),
        (("--device", "tpu"), ["run.device", '"tpu"']),
        (("--data", "./nowhere"), ["No such path"]),
        (
            ("--objective", "elbo", "--set", "training.updates=online"),
            ["training.updates", "expected 'batch'"],
        ),
        (("--lr", "1"), ["--lr", "walkback bench --help"]),
    ],
)
def test_wrong_input_is_one_sentence(options: tuple[str, ...], words: list[str]) -> None:
    done = walkback("bench", *options)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert [word for word in words if word not in line] == []


def test_a_configuration_that_diverges_is_said_in_one_sentence() -> None:
    done = walkback(
        "bench", *TINY, "--set", "training.lr=1e12", "--set", "training.warmup=0", "--repeats", "4"
    )
    assert (done.code, done.out) == (1, "")
    assert "lower the learning rate (training.lr)" in done.err.splitlines()[-1]


SLEEPER = """
    import os, time
    from walkback.objectives import Objective

    class Sleeper(Objective):
        def __call__(self, transition):
            open(os.environ["MARK"], "w").close()
            time.sleep(600)

    @hookimpl
    def walkback_objectives():
        yield Component("sleeper", "sleeper_main:Sleeper", "Takes ten minutes a step")
"""


def test_ctrl_c_ends_it_at_once(install: Install, tmp_path: Path) -> None:
    site, mark = install("sleeper", SLEEPER), tmp_path / "mark"
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    with running("bench", *TINY, "--objective", "sleeper", PYTHONPATH=path, MARK=str(mark)) as process:
        wait_until(mark.exists, process)
        process.send_signal(signal.SIGINT)
        done = finish(process)
    *progress, message = done.err.splitlines()
    assert (done.code, done.out, message) == (130, "", "error: interrupted.")
    # Progress is told after two seconds, which a busy machine may need.
    assert all(line.startswith("Measuring ") for line in progress)
