"""The script that counts the code, on a package whose counts are known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "house.py"

MODULE = '''"""Two lines
of docstring."""

import os  # a comment

# another
LIMIT: int = 3
_hidden = 4


class Public:
    """One."""

    def method(self, a: int, /, *, b: int) -> int:
        """One."""
        return (
            a
            + b
        )


def _private(*args: int) -> None: ...
'''


def _run(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(path)], capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not SCRIPT.is_file(), reason="a copy of the tests without scripts/")
def test_counts_of_a_known_package(tmp_path: Path) -> None:
    (tmp_path / "src/walkback/cli").mkdir(parents=True)
    (tmp_path / "plugins/one").mkdir(parents=True)
    (tmp_path / "src/walkback/__init__.py").write_text('"""The top."""\n')
    (tmp_path / "src/walkback/cli/main.py").write_text(MODULE)
    (tmp_path / "plugins/one/plugin.py").write_text('"""What one offers."""\n\nHOOKS = 1\n')
    done = _run(tmp_path)
    assert done.returncode == 0, done.stderr
    row, tree = done.stdout.splitlines()[2], done.stdout.split("\n\n", 1)[1]
    # 10 lines of code in MODULE and 1 in the plugin; 4 + 1 + 1 lines of docstrings; 2 comments; LIMIT, Public, HOOKS.
    assert row == "| 3 | 11 | 55 / 18.2 | 4 / 6 / 6 | 3 / 3 | 3 | 1 / 1 | 22 |"
    lines = [line.split(None, 3) for line in tree.splitlines()]
    assert lines == [
        ["walkback/", "1", "1", "The top."],
        ["cli/", "1", "22"],
        ["one/", "1", "3", "What one offers."],
    ]


@pytest.mark.skipif(not SCRIPT.is_file(), reason="a copy of the tests without scripts/")
def test_another_folder_is_refused(tmp_path: Path) -> None:
    done = _run(tmp_path)
    assert done.returncode == 2
    assert "root of a checkout" in done.stderr
