"""Every example in a folder is a distribution of its own: found as installed plugins are, and its tests pass."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(file.parent for file in ROOT.glob("examples/*/pyproject.toml"))
MAX_CODE_LINES = 110
"""Longest module of an example, without its docstrings and empty lines."""


def project_of(package: Path) -> dict[str, Any]:
    """The `[project]` table."""
    project: dict[str, Any] = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]
    return project


def code_lines(text: str) -> int:
    """Lines that are neither empty nor part of a docstring."""
    described: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            described |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(bool(line.strip()) and number not in described for number, line in lines)


def write_metadata(package: Path, site: Path) -> None:
    """What pip would write for an editable install, without pip."""
    project = project_of(package)
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", "utf-8"
    )
    points = project["entry-points"]["walkback"].items()
    lines = ["[walkback]", *(f"{name} = {module}" for name, module in points)]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")


def run(package: Path, site: Path, *arguments: str) -> str:
    """Run Python with one example installed; returns what it printed."""
    write_metadata(package, site)
    path = os.pathsep.join([str(site), str(package)])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=package,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_its_own_tests_pass(package: Path, tmp_path: Path) -> None:
    for requirement in project_of(package)["dependencies"]:
        name = re.split(r"\W", requirement.replace("-", "_"))[0]
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{requirement}, which this example needs, is not installed")
    run(package, tmp_path / "site", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests")


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_it_is_listed_without_loading_anything_heavy(package: Path, tmp_path: Path) -> None:
    """`walkback plugins list` imports every plugin module: none may cost a second."""
    name = project_of(package)["name"]
    code = (
        "import sys; from walkback.extensions.registry import Registry; r = Registry.discover(); "
        f"assert [p.status for p in r.plugins if p.distribution == {name!r}] == ['ok'], r.warnings(); "
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    run(package, tmp_path / "site", "-c", code)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_it_is_complete_typed_and_short(package: Path) -> None:
    (module,) = project_of(package)["entry-points"]["walkback"].values()
    code = package / module.partition(".")[0]
    assert (code / "py.typed").is_file()
    assert f"({package.name}/" in (ROOT / "examples" / "README.md").read_text("utf-8")
    assert (package / "README.md").is_file()
    for file in code.rglob("*.py"):
        text = file.read_text("utf-8")
        assert code_lines(text) <= MAX_CODE_LINES, file
        assert ast.get_docstring(ast.parse(text)), file
