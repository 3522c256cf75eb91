"""A process that may not have the memory it asks for: one sentence about what to lower, and files as they were."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.program import TINY, digest, run, tree
from tests.reliability.forks import Call, Forks

LIMIT_MIB = 192
"""What a process may map beyond what it starts with: enough for what the tiny model needs."""


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    directory = tmp_path / "a"
    assert run(directory, "--set", "training.checkpoint_every=1", steps=2).code == 0
    return directory


def limited(server: Forks, log: Path, *arguments: str | Path) -> tuple[int, str]:
    """Exit code and messages of a call within the limit."""
    call = Call([str(argument) for argument in arguments], str(log), memory_mib=LIMIT_MIB)
    (code,) = server.ended(server.start(call))
    return code, log.read_text()


WORK: dict[str, tuple[str, ...]] = {
    "sample": ("sample", "CKPT", "--num", "400000", "--batch-size", "400000", "--out", "OUT.png"),
    "diagnose": ("diagnose", "reversibility", "CKPT", "--set", "chains=2000000"),
    "train": ("run", *TINY, "--set", "operator.network.hidden=4000", "--steps", "1", "--out", "RUN"),
    "stacked": (
        *("run", *TINY, "--set", "training.updates=stacked", "--set", "schedule.n1=20000", "--steps", "1"),
        *("--set", "training.batch_size=1000", "--out", "RUN"),
    ),
}


@pytest.mark.parametrize("name", WORK)
def test_work_beyond_the_limit_is_refused_or_ended_in_a_sentence(
    server: Forks, trained: Path, tmp_path: Path, name: str
) -> None:
    places = {"CKPT": str(trained / "final.safetensors"), "RUN": str(tmp_path / "run")}
    words = [places.get(word, word.replace("OUT", str(tmp_path / "out"))) for word in WORK[name]]
    before = tree(trained)
    code, messages = limited(server, tmp_path / "log", *words)
    assert code in (1, 2), messages
    assert "Traceback" not in messages
    found = [line for line in messages.splitlines() if line.startswith("error: ")]
    assert len(found) == 1, messages
    assert re.search("memory", found[0]), found
    assert "C++" not in found[0]
    assert "plugin" not in found[0]
    assert tree(trained) == before
    assert not (tmp_path / "out.png").exists()
    assert not list(tmp_path.rglob(".walkback-*"))


def test_a_run_that_ran_out_goes_on_with_less(server: Forks, tmp_path: Path) -> None:
    """The checkpoint of before is whole, and training resumes from it as if nothing had been."""
    saved = ("--set", "training.checkpoint_every=1", "--set", "training.lr_schedule=constant")
    whole, directory = tmp_path / "whole", tmp_path / "a"
    assert run(whole, *saved, steps=4).code == 0
    assert run(directory, *saved, steps=2).code == 0
    going_on = ("run", "--resume", directory, "--steps", "4")
    code, messages = limited(server, tmp_path / "log", *going_on, "--set", "samples.num=20000000")
    assert code in (1, 2), messages
    code, messages = limited(server, tmp_path / "log", *going_on, "--set", "samples.num=9")
    assert code == 0, messages
    assert digest(directory / "final.safetensors") == digest(whole / "final.safetensors")


def test_threads_beyond_the_limit_are_refused(server: Forks, tmp_path: Path) -> None:
    """OpenMP would end the process in words of its own."""
    words = ("run", *TINY, "--set", "run.threads=1000", "--steps", "1", "--out", tmp_path / "a")
    code, messages = limited(server, tmp_path / "log", *words)
    assert code == 2, messages
    assert "run.threads = 1000 exceeds the" in messages
    assert "libgomp" not in messages
    assert not (tmp_path / "a").exists()
