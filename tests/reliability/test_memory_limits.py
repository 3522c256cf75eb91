"""A limit of memory, real and of a real process: one sentence that says what to lower, and exit code 1."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.program import TINY, run
from tests.reliability.forks import Call, Forks

LIMIT_MIB = 250
"""What a process may map beyond what it starts with."""

LINES: dict[str, tuple[tuple[str, ...], str]] = {
    "run": (
        ("run", *TINY, "--batch-size", "900000", "--steps", "1", "--out", "OUT"),
        "lower training.batch_size",
    ),
    "operator": (
        ("run", "--set", "operator.network.hidden=12000", "--steps", "1", "--out", "OUT"),
        "choose smaller sizes among its options",
    ),
    "sample": (
        ("sample", "CKPT", "--num", "900000", "--batch-size", "900000", "--out", "OUT.npz"),
        "fewer samples",
    ),
    "diagnose": (
        ("diagnose", "mixing", "CKPT", "--set", "chains=900000"),
        "ask for fewer chains or examples",
    ),
    "bench": (("bench", *TINY, "--batch-size", "900000", "--repeats", "1"), "lower training.batch_size"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "a"
    assert run(directory, "--no-pictures", steps=1).code == 0
    return directory / "final.safetensors"


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="only Linux tells how much memory is mapped"
)
@pytest.mark.parametrize("verb", LINES)
def test_too_little_memory(server: Forks, verb: str, checkpoint: Path, tmp_path: Path) -> None:
    line, words = LINES[verb]
    places = {"CKPT": str(checkpoint)}
    arguments = [places.get(word, word.replace("OUT", str(tmp_path / "out"))) for word in line]
    log = checkpoint.parent / f"{verb}.log"
    (code,) = server.ended(server.start(Call(arguments, str(log), memory_mib=LIMIT_MIB)))
    messages = log.read_text()
    assert code == 1, messages
    (error,) = [text for text in messages.splitlines() if text.startswith("error: ")]
    assert error.startswith("error: Got too little memory (")
    assert words in error
    assert "Traceback" not in messages
    if verb in ("sample", "operator"):
        assert list(tmp_path.iterdir()) == []
