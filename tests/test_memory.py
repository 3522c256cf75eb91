"""Memory: copies that nobody waits for, and one sentence where it does not suffice, whatever was asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.program import run, walkback
from tests.toy.standin import CPU, DEVICE, standin

import walkback as wb
from walkback.errors import WalkbackError
from walkback.kernels import NormalKernel
from walkback.support.memory import send, within_memory
from walkback_paper.bases import RotatedNormalKernel

FULL = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB"


def test_a_copy_to_the_device_is_not_waited_for() -> None:
    rows = torch.arange(6.0).reshape(2, 3)
    assert send(rows, CPU) is rows
    with standin() as machine:
        there = send(rows, DEVICE)
        assert machine.waits == []
        assert there.device == DEVICE
        assert there.cpu().equal(rows)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (torch.OutOfMemoryError(FULL), " (20.00 GiB more)"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 77 bytes."),
            " (77 bytes more)",
        ),
        (MemoryError(), ""),
    ],
)
def test_what_to_do_is_said(error: Exception, wanted: str) -> None:
    with pytest.raises(WalkbackError) as caught, within_memory("work of 5", "make it 4"):
        raise error
    assert (
        str(caught.value)
        == f"Got too little memory{wanted} for work of 5, expected it to suffice: make it 4."
    )
    assert caught.value.__cause__ is error


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shape"), within_memory("work", "less"):
        raise RuntimeError("shape")


def test_the_allocator_of_the_machine_is_known() -> None:
    """PyTorch's own error, for more than any machine has."""
    with (
        pytest.raises(WalkbackError, match=r"Got too little memory \(\d+ bytes more\) for a lot"),
        within_memory("a lot", ""),
    ):
        torch.empty(2**60, dtype=torch.uint8)


# --- every command


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "a"
    assert run(directory, steps=2).code == 0
    return directory / "final.safetensors"


def exhausted(monkeypatch: pytest.MonkeyPatch, rows: int = 3) -> None:
    """From now on so many samples of a kernel do not fit any more."""
    for kind in (NormalKernel, RotatedNormalKernel):
        monkeypatch.setattr(kind, "sample", _failing(kind.sample, rows))


def _failing(sample: Callable[..., Any], rows: int) -> Callable[..., Any]:
    def fail(self: NormalKernel | RotatedNormalKernel, generator: torch.Generator) -> Any:
        if len(self.mean) >= rows:
            raise torch.OutOfMemoryError(FULL)
        return sample(self, generator)

    return fail


COMMANDS: list[tuple[tuple[str, ...], str]] = [
    (("sample", "--num", "7", "--batch-size", "3"), "for drawing 7 samples, 3 at a time"),
    (("inpaint", "--num", "5", "--keep", "top"), "for filling in 5 states at a time"),
    (("evaluate", "--limit", "20", "--batch-size", "11"), "for evaluating 11 examples at a time"),
    (
        ("diagnose", "reversibility", "--set", "chains=17"),
        "for the diagnostic 'reversibility' with .*chains = 17",
    ),
    (
        ("diagnose", "thermodynamics", "--set", "paths=6"),
        "for the diagnostic 'thermodynamics' with .*paths = 6",
    ),
]


@pytest.mark.parametrize(
    ("options", "words"), COMMANDS, ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else ""
)
def test_a_command_ends_with_one_sentence(
    options: tuple[str, ...], words: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    verb, *rest = options
    place = 1 if verb == "diagnose" else 0
    exhausted(monkeypatch)
    done = walkback(verb, *rest[:place], checkpoint, *rest[place:])
    assert done.code == 1
    assert "Traceback" not in done.err
    message = " ".join(done.err[done.err.index("error: ") :].split())
    assert message.count("error: ") == 1
    assert re.search(rf"Got too little memory \(20.00 GiB more\) {words}.*: (ask for|lower) ", message)


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (
            3,
            (),
            "for training on 8 states at a time (training.batch_size), expected it to suffice: lower "
            "training.batch_size.",
        ),
        (
            3,
            ("--set", "training.updates=stacked"),
            "lower training.batch_size or training.updates = 'batch'.",
        ),
        (
            10,
            ("--set", "schedule.n1=0", "--set", "evaluation.batch_size=10"),
            "for evaluating 10 examples at a time (evaluation.batch_size)",
        ),
    ],
    ids=["training", "stacked", "evaluation"],
)
def test_a_run_ends_with_one_sentence(
    rows: int, options: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    exhausted(monkeypatch, rows)
    done = run(tmp_path / "a", "--set", "training.validate_every=100", *options, steps=2)
    assert done.code == 1
    assert words in " ".join(done.err.split())


def test_drawing_says_it_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import walkback.training.run_pictures as pictures

    def fail(*_: Any) -> Callable[..., Any]:
        raise torch.OutOfMemoryError(FULL)

    monkeypatch.setattr(pictures, "draw_samples", fail)
    done = run(tmp_path / "a", steps=2)
    assert done.code == 1
    assert (
        "for drawing 9 samples at a time (samples.num), expected it to suffice: lower samples.num."
        in done.err
    )
    assert (tmp_path / "a" / "final.safetensors").exists()


def test_python_gets_the_sentence_as_an_error(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = wb.load(checkpoint)
    exhausted(monkeypatch)
    for call in (
        lambda: wb.sample(trained, 4, progress=False),
        lambda: wb.inpaint(trained, "top", known=torch.zeros(4, 1, 8, 8), progress=False),
        lambda: wb.evaluate(trained, limit=10, progress=False),
        lambda: wb.diagnose("mixing", trained, progress=False),
        lambda: wb.train(steps=1, progress=False),
    ):
        with pytest.raises(WalkbackError, match=r"Got too little memory \(20.00 GiB more\) for "):
            call()
