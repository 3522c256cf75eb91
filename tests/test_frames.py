"""Recorded chains: read back by other programs' readers, streamed, and whole or absent."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
import weakref
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from walkback.data import DataInfo
from walkback.errors import ConfigurationError, WalkbackError
from walkback.pictures.frames import open_sink
from walkback.pictures.images import filmstrip, grid
from walkback.pictures.inpainted import check_target
from walkback.pictures.sinks import FrameSink
from walkback.pictures.starts import read_starts
from walkback.pictures.states import draw_states
from walkback.storage.tensorheader import read_metadata
from walkback.support import formats

GREY = DataInfo("grey", (1, 8, 8))
RGB = DataInfo("rgb", (3, 8, 8))
POINTS = DataInfo("points", (2,))
VECTORS = DataInfo("vectors", (3, 5))
STEPS = [0, 10, 20, 30]
EXTENSIONS = [".png", ".gif", ".npz", ".safetensors"]
STREAMED = EXTENSIONS[1:]


def chain(info: DataInfo, num_frames: int = 4, num_chains: int = 3) -> torch.Tensor:
    """Frames `(F, N, *E)` between 0 and 1."""
    return torch.rand(num_frames, num_chains, *info.shape, generator=torch.Generator().manual_seed(0))


def add_all(sink: AbstractContextManager[FrameSink], frames: Iterable[torch.Tensor]) -> None:
    with sink as opened:
        for step, frame in zip(STEPS, frames, strict=False):
            opened.add(step, frame)


def record(path: Path, info: DataInfo, frames: torch.Tensor, **options: Any) -> Path:
    sink = open_sink(path, info, num_frames=len(frames), num_chains=frames.shape[1], **options)
    add_all(sink, frames)
    return path


def protocol_in(path: Path) -> Any:
    """The protocol that a file of chains holds, read by the libraries of its format."""
    if path.suffix == ".safetensors":
        with safetensors.safe_open(path, "pt") as file:
            return json.loads(file.metadata()["walkback"])["protocol"]
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return json.loads(arrays["protocol"].item())
    with Image.open(path) as picture:
        text = picture.info["walkback"] if path.suffix == ".png" else picture.info["comment"].decode()
    return json.loads(text)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_format_holds_the_protocol(tmp_path: Path, extension: str) -> None:
    """Of more bytes than a block of a GIF has (255), and with letters beyond ASCII."""
    protocol = {"readout": "mean@3", "trained_on": "Zahlen, große " * 40, "progress": {"walks": 7}}
    path = record(tmp_path / f"chain{extension}", GREY, chain(GREY), protocol=protocol)
    assert protocol_in(path) == protocol


def test_a_gif_with_a_protocol_has_the_same_frames(tmp_path: Path) -> None:
    plain = record(tmp_path / "plain.gif", GREY, chain(GREY))
    stamped = record(tmp_path / "stamped.gif", GREY, chain(GREY), protocol={"seed": 0})
    with Image.open(plain) as one, Image.open(stamped) as other:
        assert (one.n_frames, one.info["loop"]) == (other.n_frames, other.info["loop"]) == (len(STEPS), 0)
        for index in range(len(STEPS)):
            one.seek(index)
            other.seek(index)
            assert (np.asarray(one.convert("RGB")) == np.asarray(other.convert("RGB"))).all()


@pytest.mark.parametrize("info", [GREY, POINTS, VECTORS], ids=lambda info: info.name)
def test_npz_is_read_by_numpy_without_pickle(tmp_path: Path, info: DataInfo) -> None:
    path = record(tmp_path / "chain.npz", info, chain(info))
    with np.load(path, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["states", "steps"]
        assert arrays["steps"].tolist() == STEPS
        assert arrays["states"].dtype == np.float32
        assert (arrays["states"] == chain(info).numpy()).all()


@pytest.mark.parametrize("info", [GREY, POINTS, VECTORS], ids=lambda info: info.name)
def test_safetensors_is_read_by_its_own_package(tmp_path: Path, info: DataInfo) -> None:
    path = record(tmp_path / "chain.safetensors", info, chain(info))
    tensors = safetensors.torch.load_file(path)
    assert tensors.keys() == {"steps", "states"}
    assert tensors["steps"].tolist() == STEPS
    assert torch.equal(tensors["states"], chain(info))
    assert DataInfo.from_dict(read_metadata(path)["data"]) == info


def test_a_png_of_images_is_their_filmstrip_under_the_steps(tmp_path: Path) -> None:
    strip = filmstrip(chain(RGB))
    with Image.open(record(tmp_path / "chain.png", RGB, chain(RGB))) as image:
        drawn = np.asarray(image)
    assert len(drawn) > len(strip)
    assert (drawn[-len(strip) :] == strip).all()


def test_a_png_of_one_frame_is_its_states(tmp_path: Path) -> None:
    frames = chain(POINTS, num_frames=1)
    with Image.open(record(tmp_path / "chain.png", POINTS, frames)) as image:
        assert (np.asarray(image) == draw_states(frames[0], POINTS)).all()


def test_a_png_of_points_has_a_panel_for_each_frame(tmp_path: Path) -> None:
    with Image.open(record(tmp_path / "chain.png", POINTS, chain(POINTS))) as image:
        assert image.size == (4 + len(STEPS) * 244, 4 + 244)


def test_a_gif_of_grey_images_is_exact(tmp_path: Path) -> None:
    with Image.open(record(tmp_path / "chain.gif", GREY, chain(GREY))) as film:
        assert film.n_frames == len(STEPS)
        assert film.info["duration"] == 100
        assert film.info["loop"] == 0
        for index, frame in enumerate(chain(GREY)):
            film.seek(index)
            assert (np.asarray(film.convert("L")) == grid(frame)[..., 0]).all()


@pytest.mark.parametrize("info", [RGB, POINTS], ids=lambda info: info.name)
def test_a_gif_of_colours_is_close(tmp_path: Path, info: DataInfo) -> None:
    frames = chain(info)
    with Image.open(record(tmp_path / "chain.gif", info, frames)) as film:
        assert film.n_frames == len(STEPS)
        error = np.abs(np.asarray(film.convert("RGB"), float) - draw_states(frames[0], info))
    assert error.mean() < 5


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_equal_chains_are_equal_files(tmp_path: Path, extension: str) -> None:
    first = record(tmp_path / f"a{extension}", GREY, chain(GREY)).read_bytes()
    assert record(tmp_path / f"b{extension}", GREY, chain(GREY)).read_bytes() == first


def test_npz_holds_no_time_of_day(tmp_path: Path) -> None:
    with zipfile.ZipFile(record(tmp_path / "a.npz", GREY, chain(GREY))) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_other_types_are_stored_as_float32(tmp_path: Path, extension: str) -> None:
    frames = chain(GREY).bfloat16()
    wide = record(tmp_path / f"a{extension}", GREY, frames.float()).read_bytes()
    assert record(tmp_path / f"b{extension}", GREY, frames).read_bytes() == wide


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("when", [0, 2])
def test_an_interrupted_chain_leaves_nothing(tmp_path: Path, extension: str, when: int) -> None:
    def interrupted() -> Iterator[torch.Tensor]:
        yield from chain(GREY)[:when]
        raise KeyboardInterrupt

    sink = open_sink(tmp_path / f"a{extension}", GREY, num_frames=4, num_chains=3)
    with pytest.raises(KeyboardInterrupt):
        add_all(sink, interrupted())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_too_few_frames_leave_nothing(tmp_path: Path, extension: str) -> None:
    sink = open_sink(tmp_path / f"a{extension}", GREY, num_frames=4, num_chains=3)
    with pytest.raises(WalkbackError, match="Got 1 frames, expected 4"):
        add_all(sink, chain(GREY)[:1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frames", [chain(GREY, 2, 3), chain(GREY, 1, 4), chain(POINTS, 1, 3)], ids=str)
def test_a_frame_too_many_or_of_another_shape_is_refused(tmp_path: Path, frames: torch.Tensor) -> None:
    sink = open_sink(tmp_path / "a.npz", GREY, num_frames=1, num_chains=3)
    with pytest.raises(WalkbackError, match="expected 1 frames of shape"):
        add_all(sink, frames)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_text("old")
    with pytest.raises(ConfigurationError, match="which exists; choose another name, or overwrite it"):
        open_sink(path, GREY, num_frames=1, num_chains=1)
    assert path.read_text() == "old"
    record(path, GREY, chain(GREY), overwrite=True)
    assert np.load(path)["steps"].tolist() == STEPS


@pytest.mark.parametrize("name", ["a.pt", "a", ".png"])
def test_an_unknown_extension_is_refused_listing_the_four(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\.png, \.gif, \.npz, \.safetensors"):
        open_sink(tmp_path / name, GREY, num_frames=1, num_chains=1)


def test_extensions_may_be_in_capitals(tmp_path: Path) -> None:
    assert record(tmp_path / "A.GIF", GREY, chain(GREY)).read_bytes().startswith(b"GIF89a")


def test_a_missing_directory_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="directory does not exist"):
        open_sink(tmp_path / "missing" / "a.npz", GREY, num_frames=1, num_chains=1)


@pytest.mark.parametrize("extension", [".png", ".gif"])
def test_vectors_are_drawn_in_the_plane_of_their_components(tmp_path: Path, extension: str) -> None:
    with Image.open(record(tmp_path / f"a{extension}", VECTORS, chain(VECTORS))) as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 2


@pytest.mark.parametrize(("info", "num_frames"), [(GREY, 20_000), (POINTS, 500)], ids=["grey", "points"])
def test_a_filmstrip_too_large_is_refused_before_any_work(
    tmp_path: Path, info: DataInfo, num_frames: int
) -> None:
    with pytest.raises(ConfigurationError, match=r"too many for one picture: record fewer, or write a \.gif"):
        open_sink(tmp_path / "a.png", info, num_frames=num_frames, num_chains=64)


@pytest.mark.parametrize("extension", STREAMED)
def test_streamed_formats_hold_no_frame_after_it_was_added(tmp_path: Path, extension: str) -> None:
    with open_sink(tmp_path / f"a{extension}", GREY, num_frames=3, num_chains=3) as sink:
        for step in range(3):
            frame = chain(GREY)[step].clone()
            alive = weakref.ref(frame)
            sink.add(step, frame)
            del frame
            assert alive() is None


@pytest.mark.parametrize("extension", STREAMED)
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path, extension: str) -> None:
    frame = chain(GREY, 1, 256)[0]

    def peak(num_frames: int) -> int:
        tracemalloc.start()
        path = tmp_path / f"{num_frames}{extension}"
        with open_sink(path, GREY, num_frames=num_frames, num_chains=256) as sink:
            for step in range(num_frames):
                sink.add(step, frame)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(2)  # whatever is loaded at the first use
    assert peak(40) < peak(4) + 16 * 40 + 10_000 < 36 * frame.nbytes


FULL = """
import resource, sys
from pathlib import Path
import torch
from walkback.data import DataInfo
from walkback.errors import WalkbackError
from walkback.pictures.frames import open_sink

resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
for extension in sys.argv[2:]:
    path = Path(sys.argv[1]) / f"a{extension}"
    try:
        with open_sink(path, DataInfo("a", (1, 8, 8)), num_frames=40, num_chains=20) as sink:
            for step in range(40):
                sink.add(step, torch.rand(20, 1, 8, 8))
    except WalkbackError as error:
        print(error)
"""


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL, tmp_path, *EXTENSIONS],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"Could not write {tmp_path / 'a'}{e}" for e in EXTENSIONS
    ]
    assert all("limit set for this process" in line for line in lines)
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_formats_says_what_is_written_and_read(tmp_path: Path) -> None:
    """Each ending of the table has a writer and a reader, and no other ending of it has one."""
    known = {*formats.CHAINS, *formats.INPAINTED, *formats.PICTURES, *formats.STATES, *formats.DATASET_IMAGES}

    def taken(ending: str, check: Callable[[Path], object]) -> bool:
        try:
            check(tmp_path / f"some{ending}")
        except ConfigurationError as error:
            return "ends in" not in str(error)  # a file that does not exist, with a known ending
        return True

    written = {end for end in known if taken(end, lambda p: open_sink(p, GREY, num_frames=1, num_chains=1))}
    assert written == set(formats.CHAINS)
    assert {end for end in known if taken(end, lambda p: check_target(p, False))} == set(formats.INPAINTED)
    read = {end for end in known if taken(end, lambda p: read_starts(p, GREY))}
    assert read == {*formats.STATES, *formats.PICTURES}
