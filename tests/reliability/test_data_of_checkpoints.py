"""A checkpoint does not decide what is read or fetched: its data are used if the user asks, or trained on them."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.program import Done, run, walkback
from tests.reliability.edited import TINIEST, checkpoint, edited

import walkback as wb
from walkback.errors import ConfigurationError

ASKED = "--trust-data"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures."""
    place = tmp_path_factory.mktemp("data") / "photos"
    place.mkdir()
    rng = np.random.default_rng(0)
    for number in range(120):
        Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(place / f"{number}.png")
    return place


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of this user, trained on the folder."""
    place = tmp_path_factory.mktemp("runs") / "own"
    done = run(place, *TINIEST, "--operator", "gaussian-mlp", "--data", photos, steps=2)
    assert done.code == 0, done.err
    return place


def commands(file: Path, out: Path, *more: str) -> list[Done]:
    """Every command that can take the data of a checkpoint."""
    lines: tuple[tuple[str | Path, ...], ...] = (
        ("evaluate", file, "--limit", "4", "--paths", "1", "--simulated", "0", "--no-baselines"),
        ("sample", file, "--from", "data", "--num", "2", "--out", out / "a.npz", "--force"),
        ("inpaint", file, "--keep", "top", "--num", "2", "--extra", "1", "--out", out / "b.npz", "--force"),
        ("diagnose", "stationarity", file, "--set", "chains=16", "--set", "steps=100"),
    )
    return [walkback(*line, *more, "--device", "cpu") for line in lines]


def test_data_of_a_file_from_elsewhere_are_asked_for(trained: Path, tmp_path: Path) -> None:
    file = shutil.copy(trained / "final.safetensors", tmp_path / "model.safetensors")
    for done in commands(file, tmp_path):
        assert done.code == 2, done
        line = done.err.splitlines()[-1]
        assert "whose data would be read or fetched because the file names them" in line
        assert ASKED in line
        assert "photos" in line
    for done in commands(file, tmp_path, ASKED)[:3]:
        assert done.code == 0, done.err


def test_data_that_the_user_names_are_read(trained: Path, photos: Path, tmp_path: Path) -> None:
    file = shutil.copy(trained / "final.safetensors", tmp_path / "model.safetensors")
    request = ("inpaint", file, "--keep", "top", "--num", "2", "--extra", "1", "--out", tmp_path / "a.npz")
    done = walkback(*request, "--data", photos)
    assert done.code == 0, done.err


def test_data_of_an_own_run_are_read(trained: Path, tmp_path: Path) -> None:
    for place in (
        trained,
        trained / "final.safetensors",
        next((trained / "checkpoints").glob("step-2.safetensors")),
    ):
        assert commands(place, tmp_path)[1].code == 0, place
    link = tmp_path / "link.safetensors"
    link.symlink_to(trained / "final.safetensors")
    assert commands(link, tmp_path)[1].code == 0


@pytest.mark.parametrize("what", ["other data", "other user", "link", "nothing", "nonsense"])
def test_a_configuration_beside_it_must_say_the_same_and_be_the_users(
    what: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(shutil.copytree(trained, tmp_path / "run"))
    config = place / "config.toml"
    if what == "other data":
        config.write_text(config.read_text().replace("photos", "elsewhere"))
    elif what == "other user":
        owner = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    elif what == "link":
        config.rename(tmp_path / "config.toml")
        config.symlink_to(tmp_path / "config.toml")
    elif what == "nothing":
        config.unlink()
    else:
        config.write_text("[" * 5000)
    assert commands(place / "final.safetensors", tmp_path)[1].code == 2


def test_python_asks_as_well(trained: Path, tmp_path: Path) -> None:
    model = wb.load(shutil.copy(trained / "final.safetensors", tmp_path / "model.safetensors"))
    with pytest.raises(ConfigurationError, match="trust_data=True"):
        wb.sample(model, 2, start="data", progress=False)
    assert len(wb.sample(model, 2, start="data", trust_data=True, progress=False)) == 2
    assert len(wb.sample(wb.load(trained), 2, start="data", progress=False)) == 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("folder", {"path": "/usr"}),
        ("folder", {"path": "~"}),
        ("hub", {"id": "owner/name"}),
        ("mnist", {}),
    ],
)
def test_nothing_is_walked_or_fetched(
    name: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = checkpoint(tmp_path / "run")
    table = {"name": name, **options}
    file = edited(whole, tmp_path / "a.safetensors", {"config.data": table, "components.data.name": name})

    def touched(*arguments: object, **more: object) -> None:
        raise AssertionError(f"{arguments} was touched")

    monkeypatch.setattr(socket.socket, "connect", touched)
    monkeypatch.setattr(os, "scandir", touched)
    for done in commands(file, tmp_path):
        assert done.code in (2, 4), done
        assert "was touched" not in done.err


def test_generated_data_are_used_unasked(tmp_path: Path) -> None:
    file = shutil.copy(checkpoint(tmp_path / "run"), tmp_path / "model.safetensors")
    assert [done.code for done in commands(file, tmp_path)[:3]] == [0, 0, 0]
