"""What docs/changing.md promises: a package from outside adds a process, a temperature law, a column and a logger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.program import ENVIRONMENT

from walkback.storage.checkpoint import load_checkpoint

PARTS = '''
from walkback.kernels import NormalKernel
from walkback.loggers import Logger
from walkback.metrics import Metric
from walkback.processes import StepwiseProcess
from walkback.temperature import TemperatureLaw
import torch


class Drift(StepwiseProcess):
    """q(s_t | s_{t-1}) = N(g s_{t-1}, T w²) with a gain g that is a parameter, and a T_max of its own."""

    def __init__(self, *, gain: float = 0.9, width: float = 0.5) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))
        self.width = width

    @property
    def max_temperature(self):
        return 7.0

    def heating(self, conditional, source, level, origin):
        variance = level.temperature_like(source) * self.width**2
        return NormalKernel(self.gain * source, variance.expand_as(source))


class Cube(TemperatureLaw):
    """v_T = T³ v."""

    def variance(self, variance_at_1, level):
        return variance_at_1 * level.temperature_like(variance_at_1) ** 3

    def max_temperature(self, largest, at_1):
        return (largest / at_1) ** (1 / 3)


class Halves(Metric):
    """The loss times a factor, in a column of its own."""

    def __init__(self, *, factor: float = 0.5) -> None:
        self.factor = factor

    def measure(self, moment):
        return {"scaled_loss": self.factor * moment.loss}


class Lines(Logger):
    """A line a figure, behind a prefix."""

    def __init__(self, *, prefix: str = "") -> None:
        self.prefix = prefix

    def open(self, directory, config):
        self.file = (directory / "lines.txt").open("a", encoding="utf-8")
        self.log(0, {f"seed {config['run']['seed']}": 0})

    def log(self, step, figures):
        self.file.writelines(f"{self.prefix}{step} {name}\\n" for name in figures)

    def log_picture(self, step, name, png):
        self.log(step, {f"picture {name}": len(png)})

    def close(self):
        self.file.close()
'''

HOOKS = """
from walkback.component import Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_processes():
    yield Component("drift", "outside.parts:Drift")


@hookimpl
def walkback_temperature_laws():
    yield Component("cube", "outside.parts:Cube")


@hookimpl
def walkback_metrics():
    yield Component("halves", "outside.parts:Halves")


@hookimpl
def walkback_loggers():
    yield Component("lines", "outside.parts:Lines")
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to put on the path: an installed distribution that nobody here has heard of."""
    top = tmp_path_factory.mktemp("outside")
    files = {
        "outside/__init__.py": "",
        "outside/parts.py": PARTS,
        "outside/plugin.py": HOOKS,
        "outside-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n",
        "outside-1.0.dist-info/entry_points.txt": "[walkback]\noutside = outside.plugin\n",
    }
    for name, text in files.items():
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_text(text, "utf-8")
    return top


@pytest.fixture(scope="module")
def run(outside: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small run with all four."""
    directory = tmp_path_factory.mktemp("changing") / "run"
    options = (
        *("operator.temperature_law=cube", "operator.network.hidden=16", "operator.network.depth=1"),
        *("process.gain=0.8", "metrics.halves.factor=0.25", "loggers.lines.prefix=>"),
        *("training.log_every=1", "training.validation_examples=20", "evaluation.limit=20"),
        *("samples.num=4", "samples.chains=2", "samples.chain_steps=2", "samples.chain_every=1"),
    )
    line = ("run", "--operator", "gaussian-mlp", "--data", "swiss-roll", "--process", "drift", "--steps", "3")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "walkback",
            *line,
            *(f"--set={option}" for option in options),
            "--out",
            directory,
        ],
        env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(outside), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_a_process_brings_its_parameters_and_its_own_largest_temperature(run: Path) -> None:
    checkpoint = load_checkpoint(run / "final.safetensors")
    assert checkpoint.part("process.")["gain"] == torch.tensor(0.8)
    assert checkpoint.description.components["process"].distribution == "outside"


def test_a_temperature_law_is_an_option_of_the_operator(run: Path) -> None:
    config = load_checkpoint(run / "final.safetensors").description.config
    operator = config["operator"]
    assert isinstance(operator, dict)
    assert operator["temperature_law"] == {"name": "cube"}


def test_a_metric_is_a_column(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    logged = [row for row in rows if "loss" in row]
    assert len(logged) == 3
    assert all(row["scaled_loss"] == pytest.approx(0.25 * row["loss"], rel=1e-9) for row in logged)


def test_a_logger_has_its_options(run: Path) -> None:
    lines = (run / "lines.txt").read_text("utf-8").splitlines()
    assert {">0 seed 0", ">1 loss", ">3 loss", ">3 scaled_loss", ">3 picture annealed"} <= set(lines)
