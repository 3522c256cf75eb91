"""What README and docs show is true: links, commands, code, plugins, the example."""

from __future__ import annotations

import itertools
import math
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import typer
import typer.main

from walkback.building.assembly import load_model
from walkback.cli.app import build_app
from walkback.cli.main import call
from walkback.comparing.request import read_comparison
from walkback.configuration.config import RunConfig
from walkback.configuration.layering import resolve
from walkback.errors import DataError
from walkback.extensions.registry import Registry
from walkback.jobs.configuration import Choices
from walkback.storage.description import read_description
from walkback.testing import check_component, failed

Install = Callable[..., Path]

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
QUICK = [
    "samples.num=4",
    "samples.chains=2",
    "samples.chain_steps=2",
    "samples.chain_every=1",
    "evaluation.limit=8",
]

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FILE = "# file: "


class Block(NamedTuple):
    """A block of code of a page."""

    page: str
    language: str
    code: str

    @property
    def file(self) -> str | None:
        """The file of a package that this is, if it is one."""
        first = self.code.partition("\n")[0]
        return first.removeprefix(_FILE) if first.startswith(_FILE) else None


def _text(page: Path) -> str:
    return page.read_text("utf-8")


BLOCKS = [
    Block(page.relative_to(ROOT).as_posix(), language, code)
    for page in PAGES
    for language, code in _FENCE.findall(_text(page))
]


def _blocks(language: str, *, methods: bool = False) -> list[Any]:
    """The blocks that are complete by themselves; with `methods`, those of `walkback compare`."""
    found = [
        block
        for block in BLOCKS
        if block.language == language and block.file is None and methods == ("[[methods]]" in block.code)
    ]
    return [pytest.param(block, id=f"{block.page}-{number}") for number, block in enumerate(found)]


def _commands(lines: list[str]) -> list[list[str]]:
    """The arguments of `walkback` in lines of shell, without environment variables, comments, redirections."""
    found = []
    for line in lines:
        words = list(itertools.dropwhile(lambda word: "=" in word, shlex.split(line, comments=True)))
        if words[:1] == ["walkback"]:
            found.append(list(itertools.takewhile(lambda word: word not in (">", "|"), words[1:])))
    return found


SHELL = _commands([line for block in BLOCKS if block.language == "sh" for line in block.code.splitlines()])
PROSE = _commands(
    [
        code
        for page in PAGES
        for code in re.findall(r"`([^`\n]+)`", _FENCE.sub("", _text(page)))
        if code.startswith("walkback ")
    ]
)


def _slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", _text(page))):
        if link.startswith(("http://", "https://")):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        if anchor:
            assert anchor in [
                _slug(heading) for heading in re.findall(r"^#+ (.*)$", _text(target), re.MULTILINE)
            ]


def test_every_decision_is_listed() -> None:
    listed = _text(ROOT / "docs" / "decisions" / "README.md")
    pages = [page for page in PAGES if re.match(r"\d{4}-", page.name)]
    assert [page.name for page in pages if f"({page.name})" not in listed] == []
    for page in pages:
        assert all(f"**{part}.**" in _text(page) for part in ("Context", "Decision", "Consequence")), (
            page.name
        )


def _parse(arguments: list[str]) -> Any:
    """The context of a command that is parsed and not run; None where it only shows something."""
    assert "--install-completion" not in arguments, (
        "parsing it would change the shell of whoever runs the tests"
    )
    program: Any = typer.main.get_command(build_app())
    try:
        context = program.make_context("walkback", list(arguments))
        while hasattr(context.command, "get_command"):
            words: list[str] = [*context._protected_args, *context.args]
            command = context.command.get_command(context, words[0])
            if command is None:
                raise LookupError(f"no command {words[0]!r}")
            context = command.make_context(words[0], words[1:], parent=context)
    except typer.Exit:
        return None
    return context


@pytest.mark.usefixtures("shown_plugins")
@pytest.mark.parametrize("arguments", SHELL, ids=" ".join)
def test_command_lines_parse(arguments: list[str]) -> None:
    _parse(arguments)


@pytest.mark.parametrize("arguments", PROSE, ids=" ".join)
def test_commands_in_sentences_exist(arguments: list[str]) -> None:
    """Sentences leave arguments out, so nothing is parsed: the command and each of its options must be there."""
    context = _open(typer.main.get_command(build_app()), "walkback", None)
    options = _options(context)
    for word in arguments:
        if hasattr(context.command, "get_command") and not word.startswith("-"):
            command = context.command.get_command(context, word)
            assert command is not None, word
            context = _open(command, word, context)
            options |= _options(context)
        elif word.startswith("--"):
            assert word in options


def _open(command: Any, name: str, parent: Any) -> Any:
    """The context of a command without arguments; nothing is called, not even for an eager option."""
    return command.make_context(name, [], parent=parent, resilient_parsing=True)


def _options(context: Any) -> set[str]:
    parameters = context.command.get_params(context)
    return {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}


def _package(page: str) -> dict[str, str]:
    """The files of the package that a page shows."""
    found = {block.file: block.code for block in BLOCKS if block.page == page and block.file is not None}
    return {file: code for file, code in found.items() if not file.startswith("tests/")}


@pytest.fixture
def shown_plugins(install: Install) -> Iterator[Path]:
    """The packages of README and docs, a page each, installed; returns the directory for PYTHONPATH."""
    site, packages = Path(), []
    for page in sorted({block.page for block in BLOCKS if block.file == "pyproject.toml"}):
        files = _package(page)
        project = tomllib.loads(files.pop("pyproject.toml"))["project"]
        ((entry, module),) = project["entry-points"]["walkback"].items()
        packages.append(module.partition(".")[0])
        code = f"from {module} import *"
        site = install(project["name"], code, entry=entry, version=project["version"])
        for name, content in files.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(content, "utf-8")
    assert len(packages) > 5
    yield site
    for module in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[module]


def _resolved(arguments: list[str]) -> RunConfig:
    """The configuration that a command line of `walkback run` or `walkback bench` means."""
    asked = _parse(arguments).params
    sections = ("operator", "data", "schedule", "prior", "objective", "process")
    return resolve(
        Registry.discover(),
        recipe=asked["recipe"],
        components={section: asked[section] for section in sections},
        overrides=asked["assignments"] or (),
    )


@pytest.mark.usefixtures("shown_plugins")
@pytest.mark.parametrize(
    "arguments",
    [line for line in SHELL if line[0] in ("run", "bench") and "--resume" not in line],
    ids=" ".join,
)
def test_runs_resolve(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "measurements.csv").write_text("a,b\n1.5,2.5\n")
    (tmp_path / "survey.csv").write_text("color,warm\nred,True\n")
    for name, shape in (("points", (2,)), ("series", (2, 16)), ("gaussian", (6,))):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=(100, *shape)))
    (tmp_path / "mine.toml").write_text(
        Registry.discover().recipe_text(Registry.discover().find_recipe("digits"))
    )
    assert _resolved(arguments).training.steps > 0


@pytest.mark.parametrize("block", _blocks("toml", methods=True))
def test_comparisons_are_valid(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "methods.toml"
    file.write_text(block.code, "utf-8")
    registry = Registry.discover()
    for method in read_comparison(file).methods:
        if not method.checkpoints:
            assert Choices(method.recipe, settings=method.settings).resolve(registry).training.steps == 500


@pytest.mark.parametrize("block", _blocks("toml"))
def test_recipes_resolve(block: Block, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(block.code, "utf-8")
    config = resolve(Registry.discover(), recipe=str(recipe)).to_dict()
    for section, options in tomllib.loads(block.code).items():
        assert options.items() <= config[section].items()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the default run has been made, shortened."""
    place = tmp_path_factory.mktemp("docs")
    settings = [word for option in QUICK for word in ("--set", option)]
    out = place / "runs" / "gaussian-mlp-digits"
    assert call(["run", "--steps", "2", "--batch-size", "8", "--out", str(out), *settings]) == 0
    return place


@pytest.mark.parametrize("block", _blocks("python"))
def test_python_runs(block: Block, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    module = ModuleType("block")  # in its place: a dataclass looks itself up there
    monkeypatch.setitem(sys.modules, "block", module)
    exec(compile(block.code, block.page, "exec"), vars(module))


def test_plugin_of_the_readme_trains(shown_plugins: Path, tmp_path: Path) -> None:
    """Two walks, in a process of its own, as a user would."""
    command = "run --operator plain --data swiss-roll --set operator.sigma=0.05"
    assert f"walkback {command} " in _text(ROOT / "README.md")
    settings = [word for option in QUICK for word in ("--set", option)]
    subprocess.run(
        [sys.executable, "-m", "walkback", *command.split(), "--steps", "2", "--out", "out", *settings],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(shown_plugins)},
        check=True,
        capture_output=True,
    )
    description = read_description(tmp_path / "out" / "final.safetensors")
    assert description.components["operator"].distribution == "walkback-plain"
    assert description.progress["walks"] == 2


@pytest.mark.usefixtures("shown_plugins")
def test_package_of_the_plugin_page_works() -> None:
    registry = Registry.discover()
    schedule: Any = registry.load(registry.find("schedule", "power"))(power=2.0, n=3)
    temperatures = [level.temperature for level in schedule.levels(100.0)]
    assert temperatures == [1.0, 1.0, 1.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 49.0, 64.0, 81.0, 100.0]
    assert len(schedule.levels_of_length(100.0, 40)) == 40
    config = resolve(registry, recipe="gentle")
    assert (config.schedule.name, config.schedule.options["power"]) == ("power", 3.0)


@pytest.mark.usefixtures("shown_plugins")
def test_recipe_of_the_recipes_page_resolves() -> None:
    config = resolve(Registry.discover(), recipe="slow-circle")
    assert (config.data.name, config.schedule.options["factor"]) == ("circle", 1.2)


@pytest.mark.usefixtures("shown_plugins")
def test_command_of_the_commands_page_works(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = trained / "runs" / "gaussian-mlp-digits" / "final.safetensors"
    assert call(["temperatures", "show", str(file)]) == 0
    temperatures = [float(line) for line in capsys.readouterr().out.splitlines()]
    model = load_model(file, Registry.discover(), torch.device("cpu")).model
    assert temperatures == pytest.approx([level.temperature for level in model.levels()], rel=1e-5)


@pytest.mark.usefixtures("shown_plugins")
def test_source_of_the_data_source_page_is_a_data_set(tmp_path: Path) -> None:
    file = tmp_path / "points.npy"
    np.save(file, np.arange(200.0).reshape(100, 2))
    registry = Registry.discover()
    found = registry.dataset_source(str(file))
    assert found is not None
    assert (found[0].qualified_name, found[1]) == ("walkback-npy:npy", {"path": str(file)})
    assert not failed(check_component(registry, "dataset", "npy", found[1]))
    file.write_bytes(b"no array")
    dataset: Any = registry.load(found[0])(path=file)
    with pytest.raises(DataError, match=r"give a \.npy file"):
        dataset.prepare()


def test_example_shows_detailed_balance(capsys: pytest.CaptureFixture[str]) -> None:
    """Reversible: every path's bound is log π(s_0). Rotating: short of it by the entropy produced (z < 4.5)."""
    example = runpy.run_path(str(ROOT / "examples" / "ar1_detailed_balance.py"))
    assert example["shortfall"](0.0).abs().max() < 1e-9
    missing = example["shortfall"](0.1)
    error = missing.std().item() / math.sqrt(len(missing))
    assert abs(missing.mean().item() - example["entropy_production"](0.1)) < 4.5 * error
    example["main"]()
    assert "angle 0.1" in capsys.readouterr().out
