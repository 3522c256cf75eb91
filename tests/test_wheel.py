"""A built wheel, alone in an environment with its dependencies, does what the repository does."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.program import ENVIRONMENT, PATIENCE, TINY

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

LOAD_ALL = """
import json, walkback
from walkback.component import KINDS
from walkback.extensions.registry import Registry

registry = Registry.discover()
loaded = {kind: [registry.load(found).__module__ for found in registry.components(kind)] for kind in KINDS}
recipes = [len(registry.recipe_text(recipe)) for recipe in registry.recipes()]
print(json.dumps({"file": walkback.__file__, "loaded": loaded, "recipes": recipes}))
"""


def execute(*line: str | Path, cwd: Path) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        [str(word) for word in line],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this repository."""
    place = tmp_path_factory.mktemp("wheel")
    execute(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, ROOT, cwd=place)
    (found,) = place.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """Python of an environment with the wheel and, beside it, everything that is installed here but walkback."""
    place = wheel.parent
    venv.create(place / "env", with_pip=False, symlinks=True)
    python = place / "env" / "bin" / "python"
    others = place / "others"
    others.mkdir()
    for name in ("purelib", "platlib"):
        link_all(Path(sysconfig.get_path(name)), others)
    site = Path(
        execute(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip()
    )
    (site / "others.pth").write_text(f"{others}\n")
    pip = (sys.executable, "-m", "pip", "--python", python)
    execute(*pip, "install", "--no-deps", "--no-index", "--disable-pip-version-check", wheel, cwd=place)
    return python


def link_all(site: Path, others: Path) -> None:
    """Link every installed package but walkback, whose editable installation must not be seen."""
    for path in site.iterdir():
        ours = "walkback" in path.name or path.suffix == ".pth"
        if not ours and not (others / path.name).exists():
            (others / path.name).symlink_to(path)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """An empty folder to work in."""
    return tmp_path


def program(installed: Path, empty: Path, *arguments: str) -> Any:
    """The document that the installed program prints."""
    return json.loads(execute(installed.parent / "walkback", *arguments, cwd=empty))


def test_a_wheel_holds_all_plugins_their_types_and_recipes_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        path.relative_to(top).as_posix()
        for top in (ROOT / "src", ROOT / "plugins")
        for path in top.rglob("*")
        if path.suffix in (".py", ".toml", ".typed")
    }
    assert sources <= names
    tops = {name.partition("/")[0] for name in names}
    packages = {path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").is_file()}
    assert tops == {"walkback", f"walkback-{PROJECT['version']}.dist-info", *packages}


def test_the_environment_holds_the_wheel_and_not_the_repository(installed: Path, empty: Path) -> None:
    code = "import sys, walkback; print(walkback.__file__, *sys.path, sep='\\n')"
    file, *path = execute(installed, "-c", code, cwd=empty).splitlines()
    assert Path(file).is_relative_to(installed.parent.parent)
    assert not [entry for entry in path if Path(entry).is_relative_to(ROOT / "src")]
    assert not [entry for entry in path if Path(entry).is_relative_to(ROOT / "plugins")]


def test_every_plugin_is_found_and_every_component_has_code(installed: Path, empty: Path) -> None:
    listing = program(installed, empty, "plugins", "list", "--json")
    states = {plugin["name"]: plugin["status"] for plugin in listing["plugins"]}
    entry_points: Sequence[str] = sorted(PROJECT["entry-points"]["walkback"])
    assert states == {f"walkback:{name}": "ok" for name in entry_points}
    answer = json.loads(execute(installed, "-c", LOAD_ALL, cwd=empty))
    offered = {kind: len(offers) for kind, offers in listing["offers"].items() if kind in answer["loaded"]}
    assert {kind: len(modules) for kind, modules in answer["loaded"].items()} == offered
    assert sum(offered.values()) > 15
    assert len(answer["recipes"]) >= 1
    assert min(answer["recipes"]) > 0


def test_the_default_run_trains_and_its_checkpoint_is_sampled(installed: Path, empty: Path) -> None:
    document = program(installed, empty, "run", *TINY, "--steps", "3", "--json")
    assert (document["directory"], document["walks"]) == ("runs/gaussian-mlp-digits", 3)
    assert all((empty / picture).is_file() for picture in document["pictures"])
    program(installed, empty, "sample", document["checkpoint"], "--num", "4", "--out", "grid.png", "--json")
    assert (empty / "grid.png").is_file()
