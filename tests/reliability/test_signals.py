"""A signal ends every command with 128 + its number, one line, whole files or none, and no debris."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.program import PATIENCE, TINY, digest, run, walkback
from tests.reliability.forks import Call, Forks

from walkback.errors import PluginError
from walkback.storage.files import TEMPORARY, atomic_file, write_bytes
from walkback.support.progress import ProgressBar

Install = Callable[..., Path]

SIGNALS = [
    (signal.SIGTERM, 143, "terminated"),
    (signal.SIGINT, 130, "interrupted"),
    (signal.SIGHUP, 129, "stopped"),
]

EVALUATE = (
    "evaluate",
    "CKPT",
    "--limit",
    "20",
    "--batch-size",
    "5",
    "--paths",
    "2",
    "--simulated",
    "0",
    "--no-baselines",
)

VERBS: dict[str, tuple[str, ...]] = {
    "sample": ("sample", "CKPT", "--chain", "20", "--out", "OUT.gif"),
    "inpaint": ("inpaint", "CKPT", "--keep", "top", "--out", "OUT.png"),
    "evaluate": (*EVALUATE, "--plot", "OUT.png"),
    "diagnose": ("diagnose", "reversibility", "CKPT", "--set", "chains=20", "--plot", "OUT.png"),
    "bench": ("bench", *TINY, "--repeats", "1"),
    "run": ("run", *TINY, "--steps", "1", "--out", "RUN"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "a"
    assert run(directory, steps=2).code == 0
    return directory / "final.safetensors"


def sent(monkeypatch: pytest.MonkeyPatch, number: int, owner: Any, name: str, call: int = 1) -> None:
    """Send a signal to this process at the given call of a function."""
    real, calls = getattr(owner, name), iter(range(1, 10**6))

    def replacement(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            signal.raise_signal(number)
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, replacement)


def line(verb: str, checkpoint: Path, directory: Path) -> list[str]:
    places = {"CKPT": str(checkpoint), "RUN": str(directory / "run")}
    return [places.get(word, word.replace("OUT", str(directory / "out"))) for word in VERBS[verb]]


@pytest.mark.parametrize(("number", "code", "words"), SIGNALS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_signal_ends_every_command(
    verb: str,
    number: int,
    code: int,
    words: str,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if verb == "run":  # in its first walk, when there is nothing to save
        import walkback.training.trainer as trainer

        sent(monkeypatch, number, trainer, "levels_of_walk")
    else:
        sent(monkeypatch, number, ProgressBar, "advance")
    done = walkback(*line(verb, checkpoint, tmp_path))
    assert done.code == code
    assert "Traceback" not in done.err
    said = done.err.splitlines()[-1]
    if verb == "run":
        assert said == f"Stopped after 0 walks; go on with walkback run --resume {tmp_path / 'run'}"
    else:
        assert said.startswith(f"error: {words}")
        assert done.out == ""
        assert list(tmp_path.iterdir()) == []


def test_a_signal_while_data_are_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    import walkback_toys.digits as digits

    sent(monkeypatch, signal.SIGTERM, digits.Digits, "prepare")
    assert walkback("data", "prepare", "digits").code == 143


def test_one_signal_ends_the_final_evaluation_and_the_run_goes_on_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import walkback.training.run as module

    with monkeypatch.context() as patch:
        sent(patch, signal.SIGTERM, module, "remarks_on_bound")
        done = run(tmp_path / "a", steps=2)
    assert done.code == 143
    assert done.err.splitlines()[-1] == (
        f"Stopped in the final evaluation, after 2 walks; go on with walkback run --resume {tmp_path / 'a'}"
    )
    assert run(tmp_path / "b", steps=2).code == 0
    assert walkback("run", "--resume", tmp_path / "a").code == 0
    for name in ("final.safetensors", "samples/annealed.png", "samples/chain.png"):
        assert digest(tmp_path / "a" / name) == digest(tmp_path / "b" / name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_had_not_begun_leaves_its_directory_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: signal.Signals
) -> None:
    import walkback.training.run as module

    with monkeypatch.context() as patch:
        sent(patch, number, module, "write_text")  # of the configuration, the first file of a run
        assert run(tmp_path / "a", "--resume", "auto", steps=1).code == 128 + number
    assert [path.name for path in (tmp_path / "a").rglob("*") if path.is_file()] == [".lock"]
    assert run(tmp_path / "a", "--resume", "auto", steps=1).code == 0


def test_finished_pieces_survive_and_are_used_again(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import walkback.measuring.path_works as works

    command = [str(checkpoint) if word == "CKPT" else word for word in EVALUATE]
    kept = (*command, "--cache", str(tmp_path / "work"), "--json")
    with monkeypatch.context() as patch:
        sent(patch, signal.SIGTERM, works, "batch_of", call=3)
        done = walkback(*kept)
    assert done.code == 143
    assert done.err.splitlines()[-1] == (
        f"error: terminated; finished pieces are kept in {tmp_path / 'work'}, and the same command goes on from them."
    )
    pieces = sorted((tmp_path / "work").glob("*.safetensors"))
    assert len(pieces) == 2
    # A write that was killed leaves a temporary file, which is no piece, and is swept.
    (tmp_path / "work" / TEMPORARY.replace("*", "0")).write_bytes(b"half")
    computed: list[int] = []
    real = works.batch_of
    monkeypatch.setattr(works, "batch_of", lambda *a: computed.append(1) or real(*a))
    again = walkback(*kept)
    assert again.code == 0
    assert len(computed) == 2  # of four batches
    assert again.document()["figures"] == walkback(*command, "--json").document()["figures"]
    assert list((tmp_path / "work").glob(TEMPORARY)) == []


def test_a_torn_piece_is_computed_again(checkpoint: Path, tmp_path: Path) -> None:
    command = [str(checkpoint) if word == "CKPT" else word for word in EVALUATE]
    kept = (*command, "--cache", str(tmp_path / "work"), "--json")
    first = walkback(*kept)
    piece = min((tmp_path / "work").glob("*.safetensors"))
    piece.write_bytes(piece.read_bytes()[:100])
    assert walkback(*kept).document() == first.document()


KILLED = """
import os, signal, sys
from pathlib import Path
from walkback.storage.files import atomic_file

with atomic_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_leaves_is_swept_by_the_next_one(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(TEMPORARY))) == 1
    write_bytes(tmp_path / "b", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_another_writer_is_at_is_left_alone(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a") as file:
        file.write(b"of a")
        write_bytes(tmp_path / "b", b"of b")
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"of a", b"of b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_process_that_samples_ends_at_once(server: Forks, checkpoint: Path, tmp_path: Path) -> None:
    """A real SIGTERM while a real process writes a long chain."""
    place, log = tmp_path / "out", tmp_path / "log"
    place.mkdir()
    words = ["sample", str(checkpoint), "--num", "4", "--chain", "10000000", "--every", "100"]
    (process,) = server.start(Call([*words, "--out", str(place / "chain.npz")], str(log)))
    deadline = time.monotonic() + PATIENCE
    while not list(place.glob(TEMPORARY)):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    os.kill(process, signal.SIGTERM)
    assert server.ended([process]) == [143]
    assert log.read_text().splitlines()[-1] == "error: terminated."
    assert list(place.iterdir()) == []


def test_an_exception_that_a_library_makes_of_a_signal_is_the_signal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As pydantic does with what is raised while it builds a schema."""
    import walkback.jobs.train as module

    def check(*_: Any) -> Any:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise PluginError(f"Error building a schema: {error}.") from None

    monkeypatch.setattr(module.TrainJob, "check", check)
    done = run(tmp_path / "a")
    assert (done.code, done.err) == (143, "error: terminated.\n")
