"""Pickle is refused unopened: no command runs what is in such a file, whatever it is called."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.program import run, walkback


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.mkdir, (self.place,)  # type: ignore[return-value]


def _torch_file(payload: Payload) -> bytes:
    file = io.BytesIO()
    torch.save({"state": payload}, file)
    return file.getvalue()


def _numpy_file(payload: Payload) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([payload], dtype=object), allow_pickle=True)
    return file.getvalue()


def _npz_file(payload: Payload) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("states.npy", _numpy_file(payload))
        archive.writestr("steps.npy", _numpy_file(payload))
    return file.getvalue()


MAKERS = {
    "pickle": lambda payload: pickle.dumps(payload),
    "torch": _torch_file,
    "npy": _numpy_file,
    "npz": _npz_file,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "a"
    assert run(directory, steps=1).code == 0
    return directory / "final.safetensors"


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".npz", ".npy"])
def test_no_command_opens_pickle(tmp_path: Path, checkpoint: Path, maker: str, suffix: str) -> None:
    mark, file = tmp_path / "unpickled", tmp_path / f"a{suffix}"
    file.write_bytes(MAKERS[maker](Payload(mark)))
    out = ("--out", tmp_path / "out.png")
    for arguments in (
        ("info", file),
        ("sample", file, *out),
        ("evaluate", file),
        ("diagnose", "mixing", file),
        ("sample", checkpoint, "--from", file, *out),
        ("inpaint", checkpoint, "--keep", file, *out),
        ("run", "--data", file, "--steps", "1", "--out", tmp_path / "run"),
        ("run", "--resume", file),
        ("run", "--recipe", file, "--dry-run"),
    ):
        done = walkback(*arguments)
        assert done.code == 2, (arguments, done.err)
        assert not mark.exists(), arguments
    pickle.loads(pickle.dumps(Payload(mark)))  # it would have been noticed
    assert mark.exists()
