"""Plugins that are wrong in every way at once: the core works, and says whose fault it is."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.program import TINY, elsewhere, walkback

Install = Callable[..., Path]

FAULTS = {
    "missing": "import no_such_module",
    "leaving": "raise SystemExit(9)",
    "raising": "class Mine(BaseException): pass\nraise Mine('x')",
    "signature": "@hookimpl\ndef walkback_operators(registry): return []",
    "misspelt": "@hookimpl\ndef walkback_operatorz(): return []",
    "clash": "@hookimpl\ndef walkback_operators(): yield Component('gaussian-mlp', 'a:b')",
    "nowhere": "@hookimpl\ndef walkback_operators(): yield Component('fine', 'no_such_module:Thing')",
    "endless": "def f(): f()\nf()",
    "printing": "print('printed')\n@hookimpl\ndef walkback_priors(): return []",
}
BROKEN = ("missing", "leaving", "raising", "signature", "misspelt", "endless")
"""Those of which nothing can be used."""

PARTS = {"prior": "gaussian", "schedule": "geometric", "process": "tied", "objective": "walkback"}
RUNNING = """
    import torch
    from walkback.kernels import NormalKernel
    from walkback.operators import Conditional, TransitionOperator

    class Step(Conditional):
        def __init__(self, kernel):
            self.kernel = kernel
        def cooling(self, level):
            return self.kernel
        heating = cooling

    class Failing(TransitionOperator):
        max_temperature = 4.0

        def __init__(self, space, *, how: str = "none"):
            super().__init__()
            self.shift, self.how, self.calls = torch.nn.Parameter(torch.zeros(space.shape)), how, 0

        def forward(self, state, level, context=None):
            self.calls += 1
            mean, spread = state + self.shift, torch.ones_like(state)
            if self.calls > 3:
                match self.how:
                    case "NaN":
                        mean = mean * float("nan")
                    case "shape":
                        mean, spread = mean[:, :1], spread[:, :1]
                    case "dtype":
                        mean, spread = mean.long(), spread.long()
                    case "error":
                        raise ValueError("of its own")
                    case "exit":
                        raise SystemExit(5)
            return Step(NormalKernel(mean, spread))

    @hookimpl
    def walkback_operators():
        defaults = {section: {"name": name} for section, name in PARTS.items()}
        yield Component("failing", "failing_main:Failing", "Fails after a while", defaults)
"""


def test_core_commands_run_beside_all_of_them(install: Install, tmp_path: Path) -> None:
    for name, code in FAULTS.items():
        site = install(f"{name}-plugin", code)
    listed = walkback("plugins", "list", "--json")
    assert listed.code == 0, listed.err
    found = {plugin["name"]: plugin for plugin in json.loads(listed.out)["plugins"]}
    for name in BROKEN:
        plugin = found[f"{name}-plugin:main"]
        assert plugin["status"] == "broken", plugin
        assert plugin["error"]
    done = elsewhere(
        *("run", *TINY, "--operator", "walkback:gaussian-mlp", "--steps", "1", "--out", tmp_path / "a"),
        PYTHONPATH=str(site),
    )
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    ambiguous = walkback("run", "--operator", "gaussian-mlp", "--dry-run")
    assert ambiguous.code == 2
    assert "clash-plugin" in ambiguous.err


@pytest.mark.parametrize("how", ["NaN", "shape", "dtype", "error", "exit"])
def test_an_operator_that_fails_at_work_is_named(install: Install, tmp_path: Path, how: str) -> None:
    """Not the learning rate, and not nobody: whoever reads the message knows which distribution to write to."""
    install("failing", f"PARTS = {PARTS}\n" + textwrap.dedent(RUNNING))
    options = ("--operator", "failing", "--data", "swiss-roll", "--steps", "3", "--batch-size", "4")
    done = walkback("run", *options, "--set", f"operator.how={how}", "--out", tmp_path / "a")
    assert done.code == 4, done.err
    (error,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert "failing" in error
    assert "learning rate" not in error
    assert "Traceback" not in done.err
