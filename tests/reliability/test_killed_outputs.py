"""Sampling, inpainting, evaluation and diagnosis that are killed leave whole files or none, and caches that go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.program import digest, run, walkback
from tests.reliability.forks import Call, Forks, Trap

EVALUATION = ("--limit", "20", "--batch-size", "5", "--paths", "2", "--simulated", "0", "--no-baselines")
COMMANDS: dict[str, tuple[str, ...]] = {
    "sample.png": ("sample", "CKPT", "--num", "4", "--out", "OUT"),
    "sample.gif": ("sample", "CKPT", "--num", "4", "--chain", "8", "--every", "2", "--out", "OUT"),
    "sample.npz": ("sample", "CKPT", "--num", "4", "--chain", "8", "--every", "2", "--out", "OUT"),
    "sample.safetensors": ("sample", "CKPT", "--num", "4", "--out", "OUT"),
    "inpaint.png": ("inpaint", "CKPT", "--keep", "top", "--num", "2", "--extra", "2", "--out", "OUT"),
    "evaluate.png": ("evaluate", "CKPT", *EVALUATION, "--plot", "OUT"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "a"
    assert run(directory, steps=2).code == 0
    return directory / "final.safetensors"


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_is_whole_or_absent(server: Forks, checkpoint: Path, tmp_path: Path, name: str) -> None:
    """Killed before each of its operations on files, from the first to the last."""

    def words(place: Path) -> list[str]:
        place.mkdir()
        return [
            {"CKPT": str(checkpoint), "OUT": str(place / name)}.get(word, word) for word in COMMANDS[name]
        ]

    log = str(tmp_path / "log")
    assert server.ended(server.start(Call(words(tmp_path / "whole"), log))) == [0], Path(log).read_text()
    wanted, killed = digest(tmp_path / "whole" / name), 0
    for at in range(1, 40):
        place = tmp_path / str(at)
        trap = Trap(at, signal.SIGKILL, str(place) + os.sep)
        codes = server.ended(server.start(Call(words(place), log, trap=trap)))
        assert codes in ([0], [-signal.SIGKILL]), Path(log).read_text()
        assert not (place / name).exists() or digest(place / name) == wanted
        if codes == [0]:
            break
        killed += 1
    assert killed >= 3  # opened, synced, renamed
    assert (place / name).exists()


def test_a_cache_goes_on_after_kills(server: Forks, checkpoint: Path, tmp_path: Path) -> None:
    cache, log = tmp_path / "cache", str(tmp_path / "log")
    command = ["evaluate", str(checkpoint), *EVALUATION]
    codes: list[int] = []
    for at in (2, 4, 7, 9, 12):
        trap = Trap(at, signal.SIGKILL, str(cache))
        codes += server.ended(server.start(Call([*command, "--cache", str(cache)], log, trap=trap)))
    assert codes[0] == codes[1] == -signal.SIGKILL
    assert set(codes) <= {0, -signal.SIGKILL}
    cached = walkback(*command, "--cache", cache, "--json").document()
    plain = walkback(*command, "--json").document()
    assert cached["figures"] == plain["figures"]
    assert list(cache.glob(".walkback-*")) == []
