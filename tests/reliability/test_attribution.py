"""Third-party parts that fail while running are named, whatever they raise or give; built-in parts are not blamed."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.program import TINY, run, walkback

Install = Callable[..., Path]

PARTS = """
    import torch
    from torch import nn
    from walkback.data import DataInfo, Dataset
    from walkback.diagnostics import Diagnostic
    from walkback.kernels import NormalKernel
    from walkback.loggers import Logger
    from walkback.metrics import Metric
    from walkback.networks import Network
    from walkback.objectives import Objective
    from walkback.operators import Conditional, TransitionOperator
    from walkback.priors import Prior
    from walkback.processes import StepwiseProcess

    HOW = {how!r}

    def fail(value=None):
        match HOW:
            case "error": raise ValueError("of its own")
            case "exit": raise SystemExit(5)
            case "interrupt": raise KeyboardInterrupt
            case "recursion": return fail(value)
        return value

    class Layers(nn.Module):
        def __init__(self, ports):
            super().__init__()
            self.layer, self.heads = nn.Linear(1, 1), ports.heads
        def forward(self, state, told):
            fail()
            output = self.layer(state.flatten(1)[:, :1])[..., None, None].expand_as(state)
            return tuple(output for _ in range(self.heads))

    class MyNetwork(Network):
        def build(self, ports): return Layers(ports)

    class MyObjective(Objective):
        def __call__(self, transition): return fail(-transition.log_p)

    class MyPrior(Prior):
        def __init__(self, space):
            super().__init__(space)
            self.register_buffer("mean", torch.zeros(space.shape))
        def log_prob(self, state): return fail(-0.5 * state.flatten(1).square().sum(1))
        def sample(self, num, generator): return fail(torch.randn((num, *self.mean.shape), generator=generator))
        def fit(self, state): pass
        def observe(self, state): fail()

    class MyProcess(StepwiseProcess):
        @property
        def max_temperature(self): return 4.0
        def heating(self, conditional, source, level, origin):
            return fail(NormalKernel(source, torch.ones_like(source)))

    class MyMetric(Metric):
        def measure(self, moment): return fail({{"one": 1.0}})

    class MyLogger(Logger):
        def open(self, directory, config): pass
        def log(self, step, figures): fail()
        def log_picture(self, step, name, png): pass
        def close(self): pass

    class MyDiagnostic(Diagnostic):
        def measure(self, subject): return fail()

    class MyData(Dataset):
        def prepare(self): fail()
        @property
        def info(self): return DataInfo("mine", (2,), splits={{"train": 9, "validation": 9, "test": 9}})
        def examples(self, split): return torch.zeros(9, 2)
        def states(self, rows, generator): return rows

    @hookimpl
    def walkback_networks(): yield Component("mine", "mine_main:MyNetwork")
    @hookimpl
    def walkback_objectives(): yield Component("mine", "mine_main:MyObjective")
    @hookimpl
    def walkback_priors(): yield Component("mine", "mine_main:MyPrior")
    @hookimpl
    def walkback_processes(): yield Component("mine", "mine_main:MyProcess")
    @hookimpl
    def walkback_metrics(): yield Component("mine", "mine_main:MyMetric")
    @hookimpl
    def walkback_loggers(): yield Component("mine", "mine_main:MyLogger")
    @hookimpl
    def walkback_diagnostics(): yield Component("mine", "mine_main:MyDiagnostic")
    @hookimpl
    def walkback_datasets(): yield Component("mine", "mine_main:MyData")
"""

KINDS = {
    "network": ("--set", "operator.network=mine"),
    "objective": ("--objective", "mine"),
    "prior": ("--prior", "mine"),
    "process": ("--process", "mine"),
    "metric": ("--set", "metrics.mine=true"),
    "logger": ("--logger", "mine"),
    "dataset": ("--data", "mine"),
}
RAISED = {
    "error": "ValueError: of its own",
    "exit": "SystemExit: 5",
    "interrupt": "KeyboardInterrupt",
    "recursion": "RecursionError",
}

_PAIRS = zip(TINY[::2], TINY[1::2], strict=True)
FEW = tuple(word for pair in _PAIRS if "network" not in pair[1] for word in pair)
"""The tiny run with any network."""


def assert_named(code: int, err: str, kind: str, words: str) -> None:
    assert code == 4, err
    (error,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (
        f"The {kind} 'mine' of mine 1.0 failed: {words}" in error or f"The {kind} 'mine' of mine 1.0" in error
    )
    assert words in error
    assert "mine_main.py, line " in error
    assert "Traceback" not in err


@pytest.mark.parametrize(("how", "words"), RAISED.items())
@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_run(kind: str, how: str, words: str, install: Install, tmp_path: Path) -> None:
    install("mine", textwrap.dedent(PARTS.format(how=how)))
    done = walkback("run", *FEW, *KINDS[kind], "--steps", "1", "--out", tmp_path / "a")
    assert_named(done.code, done.err, kind, words)
    if kind == "dataset":
        assert not (tmp_path / "a").exists()
        done = walkback("data", "prepare", "mine")
        assert_named(done.code, done.err, kind, words)


@pytest.mark.parametrize(("how", "words"), [("error", "ValueError: of its own"), ("exit", "SystemExit: 5")])
def test_other_commands(
    how: str, words: str, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    install("mine", textwrap.dedent(PARTS.format(how="")))
    done = walkback("run", *FEW, *KINDS["network"], "--no-pictures", "--steps", "1", "--out", "a")
    assert done.code == 0, done.err
    import mine_main

    monkeypatch.setattr(mine_main, "HOW", how)
    for line in (
        ("sample", "a"),
        ("inpaint", "a", "--keep", "top"),
        ("evaluate", "a", "--limit", "20", "--paths", "1"),
        ("diagnose", "reversibility", "a"),
        ("bench", *FEW, *KINDS["network"], "--repeats", "1"),
    ):
        done = walkback(*line)
        assert done.code == 4, (line, done.err)
        assert f"The network 'mine' of mine 1.0 failed: {RAISED[how]}" in done.err
    done = walkback("diagnose", "mine", "a")
    assert_named(done.code, done.err, "diagnostic", RAISED[how])
    assert {path.name for path in tmp_path.iterdir()} == {"a", "site"}


def test_the_users_numbers_are_nobodys_fault(tmp_path: Path) -> None:
    done = run(tmp_path / "a", "--set", "training.lr=1e10", steps=50)
    assert done.code == 1
    assert "learning rate" in done.err
