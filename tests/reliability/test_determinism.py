"""Equal runs leave equal files, whatever surrounds the process; what results depend on is in the files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.program import TINY, elsewhere
from tests.reliability.forks import Call, Forks
from tests.reliability.kills import bits, difference

from walkback.storage.description import read_description

STEPS = 6
SURROUNDINGS: dict[str, dict[str, str]] = {
    "plain": {},
    "locale": {"LANG": "tr_TR.UTF-8", "LC_ALL": "C", "TZ": "Pacific/Chatham"},
    "terminal": {"COLUMNS": "40", "TERM": "dumb", "NO_COLOR": "1"},
    "home": {"HOME": "/nonexistent", "USER": "nobody"},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bits of the first run, which all others have."""
    return {}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_surroundings_change_nothing(server: Forks, found: dict[str, str], tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    words = ["run", *TINY, "--steps", str(STEPS), "--out", str(directory)]
    call = Call(words, str(tmp_path / "log"), SURROUNDINGS[name])
    assert server.ended(server.start(call)) == [0], (tmp_path / "log").read_text()
    mine = bits(directory)
    assert mine == (found or mine), difference(mine, found)
    found |= mine


def test_the_order_of_sets_changes_nothing(found: dict[str, str], tmp_path: Path) -> None:
    """Another interpreter, in which text hashes to other numbers; what results depend on is in the file."""
    directory = tmp_path / "a"
    done = elsewhere("run", *TINY, "--steps", str(STEPS), "--out", directory, PYTHONHASHSEED="12345")
    assert done.code == 0, done.err
    mine = bits(directory)
    assert mine == (found or mine), difference(mine, found)
    document = read_description(directory / "final.safetensors").model_dump()
    assert document["torch"] == torch.__version__
    assert document["config"]["run"]["seed"] == 0
    assert document["config"]["run"]["precision"] == "fp32"
    assert document["data"]["fingerprint"]
