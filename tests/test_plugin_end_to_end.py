"""A plugin's whole life, with real pip and real processes: written, installed, tested, used, removed.

walkback plugins new → pip install → pytest → walkback run → walkback diagnose → pip uninstall → walkback sample
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.program import ENVIRONMENT
from tests.test_wheel import execute, installed, wheel

__all__ = ["installed", "wheel"]  # fixtures: an environment with the wheel of this repository

PATIENCE = 300.0

TINY = (
    *("--steps", "30", "--batch-size", "32"),
    *("--set", "operator.hidden=16", "--set", "operator.depth=1"),
    *("--set", "evaluation.limit=20", "--set", "training.validation_examples=20"),
    *("--set", "samples.num=9", "--set", "samples.chains=3", "--set", "samples.extra=0"),
    *("--set", "samples.chain_steps=4", "--set", "samples.chain_every=2"),
)


@dataclass(frozen=True)
class Author:
    """Somebody who writes a plugin: a Python environment and a folder to work in."""

    python: Path
    folder: Path

    def python_module(self, *line: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `python -m …` of the environment."""
        return subprocess.run(
            [str(self.python), "-m", *map(str, line)],
            cwd=self.folder,
            env=dict(ENVIRONMENT),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def walkback(self, *line: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """The installed program, which must end with `code`."""
        done = self.python_module("walkback", *line)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def pip(self, *line: str | Path) -> None:
        """Use pip on the environment, without network."""
        pip = (sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check")
        execute(*pip, *line, cwd=self.folder)


@pytest.fixture(scope="module")
def author(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Author:
    """With walkback's wheel, and nothing of this repository."""
    return Author(installed, tmp_path_factory.mktemp("author"))


@pytest.fixture(scope="module")
def plugin(author: Author) -> Path:
    """A new plugin, installed as its README says, but for the network."""
    author.walkback("plugins", "new", "my-operator")
    directory = author.folder / "walkback-my-operator"
    author.pip("install", "--no-deps", "--no-index", "--no-build-isolation", "--editable", directory)
    return directory


@pytest.fixture(scope="module")
def checkpoint(author: Author, plugin: Path) -> Path:
    """A model with the plugin's operator."""
    line = ("run", "--operator", "my-operator", "--data", "swiss-roll", *TINY, "--out", "run", "--json")
    document = json.loads(author.walkback(*line).stdout)
    assert document["walks"] == 30
    return author.folder / document["checkpoint"]


def test_it_is_listed_with_its_version(author: Author, plugin: Path) -> None:
    document = json.loads(author.walkback("plugins", "list", "--json").stdout)
    states = {status["name"]: (status["version"], status["status"]) for status in document["plugins"]}
    assert states["walkback-my-operator:my-operator"] == ("0.1.0", "ok")
    shown = json.loads(author.walkback("plugins", "show", "my-operator", "--json").stdout)
    assert (shown["distribution"], shown["status"]) == ("walkback-my-operator", "ok")


def test_its_own_tests_pass(author: Author, plugin: Path) -> None:
    done = author.python_module("pytest", "-q", "-p", "no:cacheprovider", plugin)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout


def test_it_is_checked_without_pytest(author: Author, plugin: Path) -> None:
    document = json.loads(author.walkback("plugins", "check", "my-operator", "--json").stdout)
    assert document["passed"]
    assert len(document["checks"]) > 10


def test_a_wheel_of_it_holds_code_types_and_entry_point(author: Author, plugin: Path) -> None:
    author.pip(
        "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", author.folder, plugin
    )
    (built,) = author.folder.glob("*.whl")
    names = execute(sys.executable, "-m", "zipfile", "-l", built, cwd=author.folder)
    for name in ("operator.py", "plugin.py", "py.typed"):
        assert f"walkback_my_operator/{name}" in names
    assert "entry_points.txt" in names


def test_its_model_is_sampled_and_described(author: Author, checkpoint: Path) -> None:
    author.walkback("sample", checkpoint, "--num", "4", "--out", "grid.png", "--json")
    assert (author.folder / "grid.png").is_file()
    assert "walkback-my-operator" in author.walkback("info", checkpoint).stdout


def test_its_model_is_measured(author: Author, checkpoint: Path) -> None:
    options = ("chains=20", "steps=30", "burn_in=5", "rank_chains=40", "rank_steps=5", "rank_tests=1")
    settings = (word for option in options for word in ("--set", option))
    done = author.walkback("diagnose", "reversibility", checkpoint, *settings, "--json")
    assert '"figures"' in done.stdout


def test_without_the_plugin_its_model_says_what_to_install(
    author: Author, plugin: Path, checkpoint: Path
) -> None:
    author.pip("uninstall", "--yes", "walkback-my-operator")
    try:
        listing = json.loads(author.walkback("plugins", "list", "--json").stdout)
        assert "walkback-my-operator" not in {status["distribution"] for status in listing["plugins"]}
        done = author.walkback("sample", checkpoint, "--num", "4", "--out", "again.png", code=2)
        assert "pip install walkback-my-operator==0.1.0" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (author.folder / "again.png").exists()
        # What needs no code of the plugin still works, and names it too.
        info = json.loads(author.walkback("info", checkpoint, "--json").stdout)
        assert "walkback-my-operator" in json.dumps(info)
        author.walkback("run", "--operator", "my-operator", "--data", "swiss-roll", "--dry-run", code=2)
    finally:
        author.pip("install", "--no-deps", "--no-index", "--no-build-isolation", "--editable", plugin)
