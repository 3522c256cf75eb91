"""No output replaces what it is made from, whatever the file is called; plugins cannot end the program."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.program import digest, walkback
from tests.reliability.edited import checkpoint

import walkback as wb
from walkback.errors import ConfigurationError
from walkback.extensions.loader import quiet_stdout
from walkback.extensions.registry import Registry

Install = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole") / "run"
    checkpoint(place)
    return place


def _same(file: Path) -> Path:
    return file


def _symbolic(file: Path) -> Path:
    link = file.with_name("link.safetensors")
    link.symlink_to(file)
    return link


def _hard(file: Path) -> Path:
    link = file.with_name("hard.safetensors")
    os.link(file, link)
    return link


def _roundabout(file: Path) -> Path:
    (file.parent / "folder").mkdir()
    return file.parent / "folder" / ".." / file.name


@pytest.mark.parametrize("other_name", [_same, _symbolic, _hard, _roundabout])
def test_a_checkpoint_is_not_replaced_by_its_samples(
    other_name: Callable[[Path], Path], trained: Path, tmp_path: Path
) -> None:
    file = Path(shutil.copy(trained / "final.safetensors", tmp_path / "m.safetensors"))
    out, before = other_name(file), digest(file)
    for command in (("sample", file), ("inpaint", file, "--keep", "top")):
        done = walkback(*command, "--out", out, "--force", "--num", "2", "--device", "cpu")
        assert done.code == 2, done
        assert "which belongs to the input" in done.err
    assert digest(file) == before


def test_a_file_called_picture_is_kept_from_plots(trained: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(trained / "final.safetensors", tmp_path / "m.png"))
    for command in (("evaluate", file), ("diagnose", "mixing", file)):
        done = walkback(*command, "--plot", file, "--force")
        assert (done.code, "belongs to the input" in done.err) == (2, True), done


def test_no_checkpoint_at_all_is_replaced_by_samples(trained: Path, tmp_path: Path) -> None:
    other = next((trained / "checkpoints").glob("step-*.state.safetensors"))
    before = digest(other)
    done = walkback("sample", trained, "--num", "2", "--out", other, "--force")
    assert (done.code, "is a training state" in done.err) == (2, True), done
    assert digest(other) == before
    model = wb.load(trained)
    with pytest.raises(ConfigurationError, match="is a checkpoint"):
        wb.sample(model, 2, progress=False).save(trained / "final.safetensors", overwrite=True)


def test_masks_starts_and_data_are_kept(trained: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(mask)
    data = tmp_path / "photos"
    data.mkdir()
    for number in range(60):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(data / f"{number}.png")
    before = digest(mask), digest(data / "7.png")
    commands: tuple[tuple[str | Path, ...], ...] = (
        ("inpaint", trained, "--keep", mask, "--out", mask),
        ("inpaint", trained, "--keep", "top", "--data", data, "--out", data / "7.png"),
        ("sample", trained, "--from", mask, "--out", mask),
        ("evaluate", trained, "--data", data, "--plot", data / "7.png"),
        ("diagnose", "stationarity", trained, "--data", data, "--plot", data / "7.png"),
    )
    for command in commands:
        done = walkback(*command, "--force", "--device", "cpu")
        assert (done.code, "belongs to the input" in done.err) == (2, True), done
    assert (digest(mask), digest(data / "7.png")) == before


def test_other_files_are_replaced_when_asked(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn.safetensors"
    for options in ((), ("--force",), ("--force", "--from", out, "--extra", "1")):
        expected = 2 if out in options else 0
        done = walkback("sample", trained, "--num", "2", "--out", out, "--device", "cpu", *options)
        assert done.code == expected, done
    grid = trained / "grid.png"
    for _ in range(2):
        assert walkback("sample", trained, "--num", "2", "--out", grid, "--force").code == 0


# --- plugins


@pytest.mark.parametrize(
    "error", ["SystemExit(9)", "KeyboardInterrupt", "GeneratorExit", "BaseException('x')"]
)
def test_a_plugin_that_raises_anything_at_import_is_isolated(
    error: str, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("bad", f"raise {error}")
    for command in (("plugins", "list"), ("run", "--dry-run"), ("data", "list")):
        done = walkback(*command)
        assert done.code == 0, done
        assert "Plugin bad:main (1.0) is broken" in done.err
        assert "Traceback" not in done.err
    assert [status.status for status in Registry.discover().plugins if status.distribution == "bad"] == [
        "broken"
    ]


def test_ctrl_c_while_a_plugin_is_imported_is_the_users() -> None:
    with pytest.raises(KeyboardInterrupt), quiet_stdout():
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="without a signal"), quiet_stdout():
        raise KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
