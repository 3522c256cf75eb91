"""The cache of decoded pixels: found again, rebuilt when damaged, safe to share, and done without."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from walkback.data import SPLITS
from walkback.errors import DataError
from walkback.support import watch as watching
from walkback_hf import images
from walkback_hf.cache import cache_directory
from walkback_hf.sources import Folder

COUNT = 40


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WALKBACK_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "pictures"
    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(file, "PNG")
        (root / f"{number:02}.png").write_bytes(file.getvalue())
    return root


@pytest.fixture
def decodings(monkeypatch):
    """The places of all images decoded, besides the first one, which is always looked at."""
    places: list[str] = []
    whole = images.decode_batches

    def counted(images, layout, shape):
        known = list(images)
        places.extend(image.place for image in known)
        return whole(known, layout, shape)

    monkeypatch.setattr(images, "decode_batches", counted)
    return places


def prepared(folder, **options) -> Folder:
    data = Folder(path=str(folder), **options)
    data.prepare()
    return data


def entries():
    return sorted((cache_directory() / "pixels").iterdir())


def test_a_second_preparation_decodes_nothing(folder, decodings):
    first = prepared(folder)
    assert len(decodings) == COUNT
    second = prepared(folder)
    assert len(decodings) == COUNT
    assert first.info == second.info
    assert all(torch.equal(first.examples(split), second.examples(split)) for split in SPLITS)


def test_other_transforms_and_other_contents_have_their_own_entries(folder, decodings):
    prepared(folder)
    prepared(folder, size=4)
    assert len(decodings) == 2 * COUNT
    (folder / "00.png").write_bytes((folder / "01.png").read_bytes())
    prepared(folder)
    assert len(decodings) == 2 * COUNT + 36, "only the train split has changed"


def test_how_states_are_made_does_not_matter_to_the_cache(folder, decodings):
    prepared(folder)
    prepared(folder, binarize="threshold", dequantize=False)
    assert len(decodings) == COUNT


def flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:20],
        lambda whole: whole[:-1],
        lambda whole: whole + b"x",
        lambda whole: flip(whole, 3),
        lambda whole: flip(whole, 60),
        lambda whole: flip(whole, len(whole) // 2),
        lambda whole: flip(whole, len(whole) - 1),
    ],
)
def test_damaged_entries_are_rebuilt(folder, decodings, damage):
    before = prepared(folder)
    pixels = {split: before.examples(split).clone() for split in SPLITS}
    del before
    for entry in entries():
        whole = entry.read_bytes()
        entry.unlink()  # a new file, as a damaged disk would not change what is mapped
        entry.write_bytes(damage(whole))
    after = prepared(folder)
    assert len(decodings) == 2 * COUNT
    assert all(torch.equal(after.examples(split), pixels[split]) for split in SPLITS)
    prepared(folder)
    assert len(decodings) == 2 * COUNT


def test_entries_are_readable_npy_files_with_nothing_beside_them(folder):
    data = prepared(folder)
    arrays = [np.load(entry, allow_pickle=False) for entry in entries()]
    assert sorted(len(array) for array in arrays) == [2, 2, 36]
    assert any(np.array_equal(array, data.examples("train")) for array in arrays)
    assert {entry.suffix for entry in entries()} == {".npy"}


def test_writing_to_examples_does_not_reach_the_cache(folder):
    prepared(folder).examples("train").zero_()
    assert prepared(folder).examples("train").any()


def test_a_failed_preparation_leaves_nothing_behind(folder):
    (folder / "30.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"30\.png"):
        prepared(folder)
    assert entries() == []


def test_a_cache_that_cannot_be_written_is_done_without(folder, monkeypatch, decodings):
    expected = prepared(folder)
    (folder.parent / "file").write_text("no folder can be made below a file")
    monkeypatch.setenv("WALKBACK_CACHE", str(folder.parent / "file"))
    with pytest.warns(UserWarning, match=r"Cannot keep decoded images in .*; set WALKBACK_CACHE"):
        data = prepared(folder)
    assert data.info == expected.info
    assert all(torch.equal(data.examples(split), expected.examples(split)) for split in SPLITS)


def test_a_full_disk_is_survived_without_debris(folder):
    code = (
        "import resource, signal, sys, warnings; warnings.simplefilter('always')\n"
        "import torch; from walkback_hf.sources import Folder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"data = Folder(path={str(folder)!r}); data.prepare(); print(data.info.fingerprint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "File too large" in done.stderr
    assert all(entry.suffix == ".npy" and not entry.name.startswith(".") for entry in entries())
    assert done.stdout.strip() == prepared(folder).info.fingerprint


def test_what_a_killed_writer_leaves_is_swept_by_the_next_one(folder):
    code = (
        "import os, signal; from walkback_hf import images; from walkback_hf.sources import Folder\n"
        "def killed(part, layout, shape):\n"
        "    yield from whole(part, layout, shape)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "whole, images.decode_batches = images.decode_batches, killed\n"
        f"Folder(path={str(folder)!r}).prepare()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert [entry.name for entry in entries() if entry.name.startswith(".")]
    prepared(folder)
    assert len(entries()) == 3
    assert {entry.suffix for entry in entries()} == {".npy"}


def start(folder, hash_seed: int) -> subprocess.Popen[str]:
    code = (
        "import json; from walkback_hf.sources import Folder\n"
        f"data = Folder(path={str(folder)!r}); data.prepare(); print(json.dumps(data.info.to_dict()))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_processes_at_the_same_time_get_the_same_data(folder):
    processes = [start(folder, seed) for seed in (1, 2)]
    results = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert json.loads(results[0]) == json.loads(results[1])
    assert json.loads(results[0])["fingerprint"] == prepared(folder).info.fingerprint
    assert len(entries()) == 3


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"WALKBACK_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/walkback"),
        ({"HOME": "/c"}, "/c/.cache/walkback"),
    ],
)
def test_where_the_cache_is(monkeypatch, variables, expected):
    for name in ("WALKBACK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache_directory()) == expected


class Heard:
    """A watch that remembers its stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.done: list[int] = []

    def stage(self, text: str, total: int, done: int = 0) -> None:
        self.stages.append(f"{text} of {total}")

    def advance(self, done, figures) -> None:
        self.done.append(done)


@pytest.mark.parametrize(("patience", "heard"), [(-1.0, True), (60.0, False)])
def test_a_preparation_that_takes_long_tells_how_far_it_is(folder, monkeypatch, patience, heard):
    monkeypatch.setattr(watching, "_PATIENCE", patience)
    watch = Heard()
    Folder(path=str(folder)).prepare_watched(watch)
    assert any(text.startswith("Reading ") for text in watch.stages) == heard
    assert any(text.startswith("Decoding ") and "(train) of" in text for text in watch.stages) == heard
    assert bool(watch.done) == heard
