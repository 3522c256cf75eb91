"""The pages for authors of plugins: a page a hook, the laws they list, the tutorial followed, the site built."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from tests.program import ENVIRONMENT

from walkback import hookspecs
from walkback.component import KINDS, Kind
from walkback.extensions.loader import PluginStatus, hook_name
from walkback.storage.description import read_description
from walkback.testing import checks
from walkback.testing.cases import Status

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "plugins"
GUIDES = {"tutorial", "testing", "versions"}
HOOKS = {name for name in vars(hookspecs) if name.startswith("walkback_")}
PATIENCE = 300.0

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `([^`]+)` \| (.*) \|$", re.MULTILINE)
_FILE = "# file: "


def _page(stem: str) -> str:
    return (PAGES / f"{stem}.md").read_text("utf-8")


def _section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def _page_of(kind: Kind) -> str:
    return _page(hook_name(kind).removeprefix("walkback_").replace("_", "-"))


# --- hooks and laws


def test_every_hook_has_a_page_and_every_page_a_hook() -> None:
    assert len(HOOKS) > 5
    documented = {page.stem for page in PAGES.glob("*.md")} - GUIDES
    assert documented == {hook.removeprefix("walkback_").replace("_", "-") for hook in HOOKS}
    for stem in documented:
        hook = f"walkback_{stem.replace('-', '_')}"
        assert re.match(rf"# .+\n\nHook `{hook}[`(]", _page(stem)), stem


def test_the_table_of_hooks_is_that_of_the_program() -> None:
    rows = re.findall(
        r"^\| \[`(\w+)`\]\(plugins/([\w-]+)\.md\)", (ROOT / "docs" / "plugins.md").read_text("utf-8"), re.M
    )
    assert sorted(hook for hook, _ in rows) == sorted(HOOKS)
    assert all(page == hook.removeprefix("walkback_").replace("_", "-") for hook, page in rows)


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_no_page_names_a_hook_that_does_not_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    defined = re.findall(r"@hookimpl\ndef (\w+)", text)
    mentioned = [word for word in re.findall(r"`(walkback_\w+)[`(]", text) if word.endswith("s")]
    assert {*defined, *mentioned} <= HOOKS


@pytest.mark.parametrize("kind", KINDS)
def test_pages_list_the_laws_of_their_kind(kind: Kind) -> None:
    listed = _ROW.findall(_section(_page_of(kind), "Laws"))
    assert listed == [(check.name, check.proves) for check in checks(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_examples_are_checked_against_the_laws(kind: Kind) -> None:
    """The blocks run in `test_docs`; here that they end with the check."""
    ((_, code),) = _FENCE.findall(_section(_page_of(kind), "Example"))
    assert code.splitlines()[-1].startswith(f'assert not failed(outcomes("{kind}", Case.of(')


@pytest.mark.parametrize("stem", ["recipes", "commands", "dataset-source"])
def test_pages_without_a_kit_say_what_is_checked(stem: str) -> None:
    assert _section(_page(stem), "What is checked").strip()
    assert f"{_FILE}pyproject.toml" in _section(_page(stem), "Example")


def test_words_of_state_are_those_of_the_program() -> None:
    loaded = get_args(get_type_hints(PluginStatus)["status"])
    words = [word for word, _ in _ROW.findall(_section(_page("versions"), "Status"))]
    assert sorted(words) == sorted([*loaded, "shadowed"])
    outcomes = [word for word, _ in _ROW.findall(_section(_page("testing"), "Outcomes"))]
    assert sorted(outcomes) == sorted(get_args(Status))


# --- the tutorial


def _follow(line: str, place: Path, site: Path) -> str:
    """Run one line of shell where the reader would be; what pip installs goes to `site`. Returns stdout."""
    words = shlex.split(line, comments=True)
    if words[:3] == ["pip", "install", "-e"]:
        options = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
        words = ["python", "-m", "pip", "install", *options, "--target", str(site), f"./{words[3]}"]
    elif words[0] == "walkback":
        words = ["python", "-m", *words]
    assert words[0] == "python", line
    done = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=place,
        env={**ENVIRONMENT, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, line + "\n" + done.stdout + done.stderr
    return done.stdout


def test_tutorial_can_be_followed(tmp_path: Path) -> None:
    """Word for word, from an empty folder: what is trained beats a Gaussian, and names the package."""
    place, site = tmp_path / "mine", tmp_path / "site"
    place.mkdir()
    files: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for language, code in _FENCE.findall(_page("tutorial")):
        first, _, rest = code.partition("\n")
        if first.startswith(_FILE):
            name = first.removeprefix(_FILE)
            files[name] = rest
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(code, "utf-8")
            continue
        assert language == "sh"
        for line in code.splitlines():
            outputs[line] = _follow(line, place, site)
    lines = sum(len(text.splitlines()) for text in files.values())
    assert lines < 70
    assert f"{lines} lines" in _page("tutorial")
    (report,) = [text for line, text in outputs.items() if line.startswith("walkback evaluate")]
    figures = {
        name: float(value)
        for name, value in re.findall(r"^(\w[\w ]*?) {2,}(?:[≤≥] )?(-?\d+\.\d+)", report, re.M)
    }
    assert figures["bound"] < 2.65 < figures["baseline gaussian"], report
    description = read_description(place / "runs" / "drift" / "final.safetensors")
    operator = description.components["operator"]
    assert (operator.distribution, operator.version) == ("walkback-drift", "0.1.0")
    assert (place / "points.npz").is_file()


# --- the site


def _build(tmp_path: Path, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.mark.skipif(
    find_spec("mkdocs") is None, reason="mkdocs is not installed: pip install 'walkback[docs]'"
)
def test_site_builds_without_a_warning_and_asks_for_nothing_elsewhere(tmp_path: Path) -> None:
    done = _build(tmp_path, ROOT)
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=\"(https?://[^\"]+)\"", text)
        assert loaded == [], page
        outside: list[Any] = re.findall(r"href=\"[^\"#]*\.(?:py|toml|sh)\"", text)
        assert outside == [], page
