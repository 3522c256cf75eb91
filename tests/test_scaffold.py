"""`walkback plugins new`: names, safe writing, and distributions that are sound as they are written."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.program import ENVIRONMENT, Done, walkback

from walkback.component import KINDS, Kind
from walkback.errors import ConfigurationError, WalkbackError
from walkback.extensions.loader import Plugin, PluginStatus, load_plugin
from walkback.extensions.registry import Registry
from walkback.scaffold import files as scaffold_files
from walkback.scaffold.files import rendered, write_distribution
from walkback.scaffold.names import names_for, require_unused

Install = Callable[..., Path]

ROOT = Path(__file__).parent.parent


def dashed(kind: str) -> str:
    return kind.replace("_", "-")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One new distribution of every kind, each as `pip install -e` would leave it."""
    place = tmp_path_factory.mktemp("site")
    for kind in KINDS:
        names = names_for(f"my-{dashed(kind)}", kind)
        write_distribution(place / names.distribution, names)
        (place / names.package).symlink_to(place / names.distribution / "src" / names.package)
        project = tomllib.loads((place / names.distribution / "pyproject.toml").read_text())["project"]
        info = place / f"{names.package}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        ((name, target),) = project["entry-points"]["walkback"].items()
        (info / "entry_points.txt").write_text(f"[walkback]\n{name} = {target}\n")
    return place


def elsewhere(site: Path, *line: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A Python process that sees the new distributions."""
    environment = {**ENVIRONMENT, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, *line],
        env=environment,
        cwd=cwd or site,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


# --- names


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("my-operator", "operator", ("walkback-my-operator", "walkback_my_operator", "MyOperator")),
        ("walkback-flow", "operator", ("walkback-flow", "walkback_flow", "FlowOperator")),
        ("sqrt3", "schedule", ("walkback-sqrt3", "walkback_sqrt3", "Sqrt3Schedule")),
        ("class", "prior", ("walkback-class", "walkback_class", "ClassPrior")),
    ],
)
def test_names(name: str, kind: Kind, expected: tuple[str, ...]) -> None:
    names = names_for(name, kind)
    assert (names.distribution, names.package, names.cls) == expected
    assert names.component == name.removeprefix("walkback-")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("My_Operator", "my-operator"),
        ("my operator!", "my-operator"),
        ("3d", "d"),
        ("", "my-operator"),
        ("walkback-", "my-operator"),
        ("a--b", "a-b"),
        ("../escape", "escape"),
        ("größe", "gr-e"),
        ("a\nb", "a-b"),
        ("x" * 41, "x" * 40),
    ],
)
def test_bad_names_are_refused_with_one_that_works(name: str, suggestion: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"e\.g\. '{suggestion}'\.$"):
        names_for(name, "operator")
    assert names_for(suggestion, "operator").component == suggestion


@pytest.mark.parametrize(
    ("name", "kind"),
    [("transition", "operator"), ("prior", "prior"), ("dataset", "dataset"), ("objective", "objective")],
)
def test_names_of_walkbacks_own_classes_are_refused(name: str, kind: Kind, tmp_path: Path) -> None:
    done = walkback("plugins", "new", name, "--kind", kind, "--out", tmp_path / "new")
    assert done.code == 2
    assert "which walkback has already" in done.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gaussian-mlp", "walkback already has an operator"),
        ("walkback-paper", "walkback_paper is already installed"),
    ],
)
def test_names_that_are_taken_are_refused(name: str, words: str, tmp_path: Path) -> None:
    done = walkback("plugins", "new", name, "--out", tmp_path / "new")
    assert done.code == 2
    assert words in done.err
    assert list(tmp_path.iterdir()) == []


def test_names_of_an_earlier_version_of_the_same_plugin_are_free(install: Install) -> None:
    install("walkback-mine", "@hookimpl\ndef walkback_operators(): yield Component('mine', 'a:b')")
    require_unused(names_for("mine", "operator"), Registry.discover())
    install("else", "@hookimpl\ndef walkback_operators(): yield Component('mine', 'a:b')")
    with pytest.raises(ConfigurationError, match="else already has"):
        require_unused(names_for("mine", "operator"), Registry.discover())


def test_unknown_kind(tmp_path: Path) -> None:
    done = walkback("plugins", "new", "mine", "--kind", "operater", "--out", tmp_path / "new")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "did you mean 'operator'" in done.err


# --- writing


def new(directory: Path, *options: str) -> Done:
    return walkback("plugins", "new", "my-operator", "--out", directory, *options)


def test_everything_that_was_written_is_listed(tmp_path: Path) -> None:
    done = new(tmp_path / "deep" / "new", "--json")
    document = done.document()
    found = {p.relative_to(tmp_path / "deep" / "new") for p in (tmp_path / "deep" / "new").rglob("*")}
    assert {Path(name) for name in document["files"]} == {
        p for p in found if (tmp_path / "deep" / "new" / p).is_file()
    }
    assert document["distribution"] == "walkback-my-operator"
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "new"]


def test_default_directory_is_named_after_the_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = walkback("plugins", "new", "my-operator")
    assert "pip install -e 'walkback-my-operator[dev]'" in done.out
    assert (tmp_path / "walkback-my-operator" / "pyproject.toml").is_file()


def test_an_empty_directory_is_filled(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    assert new(tmp_path / "new").code == 0


def make_full(path: Path) -> None:
    path.mkdir()
    (path / "precious").write_text("x")


def make_file(path: Path) -> None:
    path.write_text("x")


def make_link(path: Path) -> None:
    path.with_name("target").mkdir()
    path.symlink_to(path.with_name("target"))


@pytest.mark.parametrize("make", [make_full, make_file, make_link])
def test_what_is_there_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "new")
    before = sorted(tmp_path.rglob("*"))
    done = new(tmp_path / "new")
    assert done.code == 2
    assert "--out" in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_halfway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = dict.fromkeys(("a", "b", "a/c"), "text")  # a file where a folder must be
    monkeypatch.setattr(scaffold_files, "rendered", lambda names: written)
    with pytest.raises(WalkbackError, match="Could not write"):
        write_distribution(tmp_path / "new", names_for("mine", "operator"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    done = new(tmp_path / "closed" / "new")
    assert done.code == 1
    assert "no permission" in done.err


# --- what is written


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_to_fill_in(kind: Kind) -> None:
    for path, text in rendered(names_for("some-thing", kind)).items():
        left = re.sub(r"\$\{\{ matrix\.python \}\}", "", text)
        assert "$" not in left, path
        if path.endswith(".py"):
            ast.parse(text)
            assert ast.get_docstring(ast.parse(text)), path


@pytest.mark.parametrize("kind", KINDS)
def test_the_hook_offers_the_component(kind: Kind) -> None:
    names = names_for("some-thing", kind)
    namespace: dict[str, object] = {}
    exec(rendered(names)[f"src/{names.package}/plugin.py"], namespace)
    module = type("Module", (), {k: staticmethod(v) if callable(v) else v for k, v in namespace.items()})
    plugin: Plugin = load_plugin(module, PluginStatus("d:e", names.distribution, "0.1.0"))
    (offer,) = plugin.offers[kind]
    assert offer.name == "some-thing"
    assert getattr(offer, "target", "") == f"{names.package}.{kind}:{names.cls}"


def test_ruff_finds_nothing(site: Path) -> None:
    for kind in KINDS:
        directory = site / f"walkback-my-{dashed(kind)}"
        for command in (["check", "."], ["format", "--check", "."]):
            done = elsewhere(site, "-m", "ruff", *command, "--no-cache", cwd=directory)
            assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_finds_nothing(site: Path, tmp_path: Path) -> None:
    config = tmp_path / "mypy.ini"
    config.write_text(
        f"[mypy]\nstrict = True\nmypy_path = {ROOT / 'src'}\n[mypy-walkback.*]\nfollow_imports = silent\n"
    )
    packages = [word for kind in KINDS for word in ("-p", f"walkback_my_{kind}")]
    line = ["-m", "mypy", "--config-file", str(config), "--cache-dir", str(tmp_path / "cache"), *packages]
    done = elsewhere(site, *line)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_tests_pass(site: Path, tmp_path: Path) -> None:
    tests = [str(site / f"walkback-my-{dashed(kind)}" / "tests") for kind in KINDS]
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", os.devnull]
    report = tmp_path / "report.xml"
    done = elsewhere(site, "-m", "pytest", *options, "--rootdir", str(site), f"--junitxml={report}", *tests)
    assert done.returncode == 0, done.stdout
    for kind in KINDS:
        assert f"walkback-my-{dashed(kind)}.tests.test_conformance" in report.read_text()


def test_the_program_shows_and_checks_it(site: Path) -> None:
    line = ["-m", "walkback", "plugins", "check", "my-schedule", "--json"]
    done = elsewhere(site, *line)
    document = json.loads(done.stdout)
    assert (done.returncode, document["passed"], document["version"]) == (0, True, "0.1.0")
    shown = json.loads(elsewhere(site, "-m", "walkback", "plugins", "show", "my-operator", "--json").stdout)
    assert [option["name"] for option in shown["options"]] == ["sigma", "hidden", "depth"]
    assert all(option["help"] for option in shown["options"])
    assert shown["defaults"]["prior"] == {"name": "gaussian"}


@pytest.mark.slow
def test_the_operator_learns_the_swiss_roll(site: Path, tmp_path: Path) -> None:
    options = (
        "--operator my-operator --data swiss-roll --steps 600 --lr 2e-3 --batch-size 128 "
        "--set training.updates=stacked --set evaluation.limit=500 --set samples.num=9 --set samples.chains=3 "
        "--set samples.chain_steps=2 --set samples.chain_every=1 --json"
    )
    done = elsewhere(site, "-m", "walkback", "run", *options.split(), "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    bound = json.loads(done.stdout)["bound"]
    # A Gaussian with the roll's unit variances codes a point in log 2πe = 2.84 nats; a line of noise in fewer.
    assert bound["nats"] + 4.5 * bound["nats_error"] < 2.3
