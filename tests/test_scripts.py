"""The two commands of the README, with a stand-in for Python that writes down what it is asked to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

PYTHON = """\
#!/bin/sh
case "$1" in -c | --version) exit 0 ;; esac
printf '%s|%s|%s\\n' "$PWD" "$OMP_NUM_THREADS" "$*" >>"{log}"
[ "$1 $2" = "-m venv" ] && mkdir -p "$4/bin" && cp "$0" "$4/bin/python"
case "$*" in *"{failing}"*) exit 3 ;; esac
exit 0
"""


_OF_CUDA = ("nvidia", "cuda", "triton")
"""What only CUDA builds of torch need."""


class Call(NamedTuple):
    """What the stand-in was called with."""

    directory: str
    threads: str
    arguments: str


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of what the scripts need, in a directory with a space in its name."""
    if not (ROOT / "scripts").is_dir():
        pytest.skip("there are no scripts in a source distribution")
    place = tmp_path / "a clone"
    shutil.copytree(ROOT / "scripts", place / "scripts")
    shutil.copytree(ROOT / ".ci", place / ".ci")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, place)
    return place


def _call(repository: Path, script: str, *arguments: str, failing: str = "nothing") -> tuple[int, list[Call]]:
    """Call a script from elsewhere: exit code, and what Python was asked to do."""
    log = repository.parent / "log"
    log.write_text("")
    stand_in = repository.parent / "python"
    stand_in.write_text(PYTHON.format(log=log, failing=failing))
    stand_in.chmod(0o755)
    if (installed := repository / ".venv" / "bin" / "python").exists():
        shutil.copy(stand_in, installed)
    shell = "bash" if script.startswith(".ci") else "sh"
    done = subprocess.run(
        [shell, str(repository / script), *arguments],
        cwd=repository.parent,
        env={"PATH": os.environ["PATH"], "PYTHON": str(stand_in), "OMP_NUM_THREADS": ""},
        capture_output=True,
        check=False,
    )
    assert done.stdout == b""  # left to walkback and pytest
    return done.returncode, [Call(*line.split("|", 2)) for line in log.read_text().splitlines()]


def test_run_makes_its_environment_and_passes_options_on(repository: Path) -> None:
    code, calls = _call(repository, "scripts/run.sh", "--steps", "5", "--out", "here")
    assert code == 0
    assert [call.arguments for call in calls] == [
        f"-m venv --clear {repository / '.venv'}",
        "-m pip install --disable-pip-version-check -c constraints.txt -e .",
        "-m walkback run --steps 5 --out here",
    ]
    assert calls[1].directory == str(repository)
    assert calls[2].directory == str(repository.parent)  # paths in options are the caller's


def test_second_call_installs_nothing(repository: Path) -> None:
    _call(repository, "scripts/test.sh")
    for script, last in (("scripts/test.sh", "-m pytest -n 2"), ("scripts/run.sh", "-m walkback run")):
        _, calls = _call(repository, script)
        assert not any("install" in call.arguments for call in calls)
        assert calls[-1].arguments.startswith(last)


def test_tests_need_more_than_a_run(repository: Path) -> None:
    _call(repository, "scripts/run.sh")
    _, calls = _call(repository, "scripts/test.sh")
    assert calls[0].arguments.endswith("-c constraints.txt -e .[dev]")


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed(repository: Path, name: str) -> None:
    _call(repository, "scripts/run.sh")
    with (repository / name).open("a") as file:
        file.write("# changed\n")
    _, calls = _call(repository, "scripts/run.sh")
    assert "pip install" in calls[0].arguments


def test_moved_repository_is_installed_again(repository: Path) -> None:
    """An editable installation points to where it was made."""
    _call(repository, "scripts/run.sh")
    moved = repository.rename(repository.parent / "moved")
    _, calls = _call(moved, "scripts/run.sh")
    assert "pip install" in calls[0].arguments


def test_failed_installation_is_tried_again(repository: Path) -> None:
    code, calls = _call(repository, "scripts/run.sh", failing="pip install")
    assert code == 1
    assert "pip install" in calls[-1].arguments
    _, calls = _call(repository, "scripts/run.sh")
    assert "pip install" in calls[0].arguments


@pytest.mark.parametrize("script", ["scripts/test.sh", ".ci/run"])
def test_tests_are_all_checks_with_one_thread(repository: Path, script: str) -> None:
    _call(repository, "scripts/test.sh")
    code, calls = _call(repository, script, "-k", "bound")
    assert code == 0
    assert [call.arguments for call in calls] == [
        "-m ruff check .",
        "-m ruff format --check .",
        "-m mypy",
        "-m pytest -n 2 -k bound",
    ]
    assert {(call.directory, call.threads) for call in calls} == {(str(repository), "1")}


@pytest.mark.parametrize("failing", ["ruff check", "ruff format", "mypy", "pytest"])
def test_failure_of_any_check_is_a_failure(repository: Path, failing: str) -> None:
    _call(repository, "scripts/test.sh")
    code, calls = _call(repository, ".ci/run", failing=failing)
    assert code == 3
    assert failing in calls[-1].arguments


def test_missing_python_is_named(repository: Path) -> None:
    done = subprocess.run(
        ["sh", str(repository / "scripts" / "run.sh")],
        env={"PATH": os.environ["PATH"], "PYTHON": "/nowhere/python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr


def _required() -> set[str]:
    """Names of everything that walkback[dev] needs, as far as it is installed here."""
    installed = {canonicalize_name(found.name) for found in distributions()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names: set[str] = set()
    pending = [Requirement(line) for line in direct]
    while pending:
        name = canonicalize_name(pending.pop().name)
        if name in names or name.startswith(_OF_CUDA):
            continue
        names.add(name)
        lines = distribution(name).requires if name in installed else None
        others = [Requirement(line) for line in lines or ()]
        pending += [other for other in others if other.marker is None or other.marker.evaluate({"extra": ""})]
    return names


def test_constraints_pin_everything_that_is_required() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all([specifier.operator for specifier in pin.specifier] == ["=="] for pin in pins)
    assert len(required := _required()) > 40
    assert sorted(required - {canonicalize_name(pin.name) for pin in pins}) == []
