"""What docs/reliability.md promises has a test behind it, and the sixteen tests are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGES = {"promises": ROOT / "docs" / "reliability.md", "the sixteen": HERE / "README.md"}

_NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
_ROW = re.compile(r"^\| (?!Promise|-)(.*) \|$", re.MULTILINE)


def rows(page: Path) -> list[str]:
    """The rows of the tables whose last column names tests."""
    sections = page.read_text("utf-8").split("\n## Not promised")[0]
    return [row for row in _ROW.findall(sections) if not row.startswith(("|", "---", " What happens"))]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_test_that_is_named_exists(page: Path) -> None:
    named = _NAMED.findall(page.read_text("utf-8"))
    assert len(named) > 20
    for file, test in named:
        tree = ast.parse((HERE / file).read_text("utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (file, test)


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_row_names_a_test(page: Path) -> None:
    found = rows(page)
    assert len(found) >= 16
    assert [row for row in found if not _NAMED.search(row.rpartition(" | ")[2])] == []


def test_the_sixteen_are_numbered() -> None:
    numbers = re.findall(r"^\| (\d+) \|", PAGES["the sixteen"].read_text("utf-8"), re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 17)]


def test_every_fault_has_its_test() -> None:
    named = re.findall(r"`((?:\w+/)?test_\w+\.py)(?:::(test_\w+))?`", (HERE / "FAULTS.md").read_text("utf-8"))
    assert len(named) > 60
    missing = [
        (file, test) for file, test in named if f"def {test}" not in (HERE.parent / file).read_text("utf-8")
    ]
    assert missing == []
