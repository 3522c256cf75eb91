"""Chains that start from data or from a file: `walkback sample --from`, and files that are none."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.program import Done, run, walkback
from tests.test_tuple_state import mixed_model
from tests.toy.exact import gaussian, model
from tests.toy.learned import seeing_gaussian
from tests.toy.statistics import normal, rng
from torch import Tensor

from walkback.building.assembly import load_model
from walkback.building.data_of_model import data_for, first_examples
from walkback.data import DataInfo
from walkback.errors import ConfigurationError, WalkbackError
from walkback.extensions.registry import Registry
from walkback.operators import visible
from walkback.pictures.frames import open_sink
from walkback.pictures.starts import MAX_STARTS, read_starts
from walkback.sampling import SamplePlan, cool, last, sample_frames
from walkback.schedules import levels_from
from walkback.state import leaves
from walkback.storage.migrations import SAMPLES
from walkback.storage.tensorfile import save_tensors
from walkback.support.seeding import generator

GREY = DataInfo("grey", (1, 4, 6))
RGB = DataInfo("rgb", (3, 4, 6))
BITS = DataInfo("bits", (1, 4, 6), "binary")
POINTS = DataInfo("points", (2,))
CPU = torch.device("cpu")
LEVELS = levels_from([1.0, 2.0, 4.0])


# --- in the library


def frames(plan: SamplePlan, start: Tensor | None, num_levels: int = 0) -> list[Tensor]:
    prior = gaussian(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    system = model(seeing_gaussian(2).eval(), prior, LEVELS)
    told = list(sample_frames(system, LEVELS[:num_levels], plan, CPU, start))
    assert [done for done, _, _ in told] == list(range(plan.total_steps(LEVELS[:num_levels]) + 1))
    return [leaves(state)[0] for _, _, state in told if state is not None]


def test_a_chain_starts_where_it_is_told_to() -> None:
    """Its first frame is the start, its others those of a chain at T = 1, batch by batch."""
    start = normal(5, 2)
    found = frames(SamplePlan(num=5, chain=3, seed=1, batch_size=2), start)
    assert found[0].equal(start)
    operator = seeing_gaussian(2).eval()
    for first in (0, 2, 4):
        noise = generator("cpu", 1, "sample", first)
        steps = cool(operator, start[first : first + 2], levels_from([1.0] * 3), noise)
        for frame, state in zip(found[1:], steps, strict=True):
            assert frame[first : first + 2].equal(leaves(state)[0])


def test_a_start_can_be_cooled_too() -> None:
    start = normal(3, 2)
    (found,) = frames(SamplePlan(num=3, seed=2), start, num_levels=3)
    expected = last(cool(seeing_gaussian(2).eval(), start, LEVELS, generator("cpu", 2, "sample", 0)))
    assert found.equal(leaves(expected)[0])


def test_latent_units_are_drawn_for_a_start() -> None:
    system = mixed_model()
    start = (normal(3, 2, 3) > 0).float()
    told = list(sample_frames(system, (), SamplePlan(num=3, chain=2), CPU, start))
    states = [state for _, _, state in told if state is not None]
    assert visible(system.operator, states[0]).equal(start)
    assert [len(leaves(state)) for state in states] == [2, 2, 2]


@pytest.mark.parametrize("num", [2, 4])
def test_starts_that_are_not_one_for_each_chain_are_refused(num: int) -> None:
    with pytest.raises(
        WalkbackError, match=f"Got 3 states to start from, expected one for each of {num} chains"
    ):
        frames(SamplePlan(num=num), normal(3, 2))


# --- files


def written(path: Path, info: DataInfo, states: Tensor) -> Path:
    """A file as `walkback sample` writes it, of frames `(F, N, *E)`."""
    with open_sink(path, info, num_frames=len(states), num_chains=states.shape[1]) as sink:
        for step, frame in enumerate(states):
            sink.add(step, frame)
    return path


def image(path: Path, *shape: int, seed: int = 0) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)
    return path


@pytest.mark.parametrize("end", [".npz", ".safetensors"])
@pytest.mark.parametrize("info", [GREY, RGB, POINTS], ids=lambda info: info.name)
def test_the_last_frame_of_samples_comes_back(tmp_path: Path, info: DataInfo, end: str) -> None:
    states = torch.randn(3, 5, *info.shape, generator=rng())
    path = written(tmp_path / f"a{end}", info, states)
    assert read_starts(path, info).equal(states[-1])
    assert read_starts(path, info, 2).equal(states[-1, :2])
    with pytest.raises(ConfigurationError, match="has 5 states, fewer than 6"):
        read_starts(path, info, 6)


@pytest.mark.parametrize("end", [".npz", ".safetensors"])
def test_no_more_is_taken_than_the_limit_unless_asked_for(tmp_path: Path, end: str) -> None:
    states = torch.randn(2, MAX_STARTS + 5, 2, generator=rng())
    path = written(tmp_path / f"a{end}", POINTS, states)
    assert read_starts(path, POINTS).equal(states[-1, :MAX_STARTS])
    assert read_starts(path, POINTS, MAX_STARTS + 1).equal(states[-1, : MAX_STARTS + 1])


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_that_numpy_wrote_are_read(tmp_path: Path, save: object, dtype: str) -> None:
    states = np.arange(24).reshape(2, 6, 2).astype(dtype)
    save(tmp_path / "a.npz", steps=np.arange(2), states=states)  # type: ignore[operator]
    assert read_starts(tmp_path / "a.npz", POINTS, 4).tolist() == states[-1, :4].tolist()


@pytest.mark.parametrize("end", [".png", ".jpg"])
def test_an_image_becomes_as_many_states_as_are_asked_for(tmp_path: Path, end: str) -> None:
    path = image(tmp_path / f"a{end}", 4, 6, 3)
    with Image.open(path) as file:
        pixels, grey = torch.from_numpy(np.array(file)), torch.from_numpy(np.array(file.convert("L")))
    states = read_starts(path, RGB, 3)
    assert states.shape == (3, 3, 4, 6)
    # Drawn again, every byte is what it was: the middle of its grey level.
    assert ((256 * states).floor() == pixels.permute(2, 0, 1)).all()
    assert (256 * read_starts(path, GREY)).floor().equal(grey[None, None].float())
    assert read_starts(path, BITS).equal((grey >= 128)[None, None].float())


def npy(shape: str, descr: str = "'<f4'", order: str = "False", data: bytes = b"") -> bytes:
    """An array in numpy's format with any header."""
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


def archive(content: bytes, name: str = "states.npy") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, content)
    return buffer.getvalue()


def objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([[[print, print]]], object), allow_pickle=True)
    return archive(buffer.getvalue())


NO_ARCHIVES = {
    "empty": b"",
    "garbage": b"garbage" * 100,
    "pickle": pickle.dumps({"states": 1}),
    "without states": archive(npy("(1, 1, 2)", data=bytes(8)), "others.npy"),
    "no array": archive(b"states"),
    "objects": objects(),
    "integers": archive(npy("(1, 1, 2)", "'<i4'", data=bytes(8))),
    "structures": archive(npy("(1, 1, 2)", "[('a', '<f4')]", data=bytes(8))),
    "long doubles": archive(npy("(1, 1, 2)", "'<f16'", data=bytes(32))),
    "Fortran's order": archive(npy("(1, 1, 2)", order="True", data=bytes(8))),
    "cut short": archive(npy("(3, 4, 2)", data=bytes(8))),
    "endless": archive(npy(f"({2**62}, 1, 2)", data=bytes(8))),
    "code in the header": archive(npy("(1, 1, __import__('os').getpid())", data=bytes(8))),
    "a cut archive": archive(npy("(1, 1, 2)", data=bytes(8)))[:-30],
}


@pytest.mark.parametrize("content", NO_ARCHIVES.values(), ids=NO_ARCHIVES.keys())
def test_archives_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"a\.npz cannot be read: give a \.npz file"):
        read_starts(tmp_path / "a.npz", POINTS)


@pytest.mark.parametrize(
    "shape", ["(1, 1, 3)", "(1, 2)", "(2,)", "()", "(0, 1, 2)", "(1, 0, 2)", "(1, 1, 2, 1)"]
)
def test_states_of_another_shape_are_refused(tmp_path: Path, shape: str) -> None:
    (tmp_path / "a.npz").write_bytes(archive(npy(shape, data=bytes(100))))
    with pytest.raises(
        ConfigurationError, match=r"a\.npz has states of shape .*, expected \(frames, chains, 2\)"
    ):
        read_starts(tmp_path / "a.npz", POINTS)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300])
def test_states_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    states = np.zeros((1, 3, 2))
    states[0, 1, 1] = bad
    np.savez(tmp_path / "a.npz", states=states)
    with pytest.raises(ConfigurationError, match="NaN or infinity"):
        read_starts(tmp_path / "a.npz", POINTS)
    save_tensors(tmp_path / "a.safetensors", {"states": torch.from_numpy(states).float()}, SAMPLES.stamp())
    with pytest.raises(ConfigurationError, match="NaN or infinity"):
        read_starts(tmp_path / "a.safetensors", POINTS)


def test_other_values_than_bits_are_refused_for_bits(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz", BITS, torch.full((1, 2, 1, 4, 6), 0.5))
    with pytest.raises(ConfigurationError, match="values other than 0 and 1"):
        read_starts(path, BITS)
    written(tmp_path / "b.npz", BITS, torch.ones(1, 2, 1, 4, 6))
    assert (read_starts(tmp_path / "b.npz", BITS) == 1).all()


def test_tensors_of_another_kind_are_refused(tmp_path: Path) -> None:
    states, path = torch.zeros(1, 3, 2), tmp_path / "a.safetensors"
    for tensors, kind in (
        ({"states": states}, "checkpoint"),
        ({"others": states}, "samples"),
        ({"states": states.half()}, "samples"),
    ):
        save_tensors(path, tensors, {"kind": kind})
        with pytest.raises(ConfigurationError, match="holds no samples"):
            read_starts(path, POINTS)
    save_tensors(path, {"states": states}, SAMPLES.stamp())
    assert read_starts(path, POINTS).shape == (3, 2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigurationError, match=r"a\.safetensors"):
        read_starts(path, POINTS)


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="4 × 6 pixels, not 6 × 4: resize it"):
        read_starts(image(tmp_path / "a.png", 6, 4), GREY)
    with pytest.raises(ConfigurationError, match=r"states have shape \(2,\)"):
        read_starts(tmp_path / "a.png", POINTS)
    (tmp_path / "b.png").write_bytes(image(tmp_path / "d.png", 4, 6).read_bytes()[:50])
    (tmp_path / "c.jpg").write_text("no image")
    for name in ("b.png", "c.jpg"):
        with pytest.raises(ConfigurationError, match="cannot be read as a"):
            read_starts(tmp_path / name, GREY)


@pytest.mark.parametrize("name", ["a", "a.txt", "nois"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"expected noise, data, or a file that ends in \.npz, \.saf"
    ):
        read_starts(tmp_path / name, POINTS)


@pytest.mark.parametrize("end", [".npz", ".safetensors", ".png"])
def test_what_is_not_there_is_refused(tmp_path: Path, end: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"a{end}")):
        read_starts(tmp_path / f"a{end}", GREY)
    (tmp_path / f"b{end}").mkdir()
    with pytest.raises(ConfigurationError, match=re.escape(f"b{end}")):
        read_starts(tmp_path / f"b{end}", GREY)


# --- the command


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of digits."""
    directory = tmp_path_factory.mktemp("digits") / "a"
    assert run(directory).code == 0
    return directory / "final.safetensors"


def states(checkpoint: Path, out: Path, *options: str | Path) -> Tensor:
    """Recorded states (F, N, *E)."""
    done = walkback("sample", checkpoint, "--out", out, *options)
    assert done.code == 0, done.err
    with np.load(out) as file:
        return torch.from_numpy(file["states"])


@pytest.mark.parametrize("split", ["test", "validation"])
def test_chains_from_data_start_at_held_out_examples(digits: Path, tmp_path: Path, split: str) -> None:
    chosen = () if split == "test" else ("--split", split)
    found = states(
        digits, tmp_path / "a.npz", "--from", "data", "--num", "5", "--chain", "2", "--every", "1", *chosen
    )
    assert found.shape == (3, 5, 1, 8, 8)
    dataset = data_for(load_model(digits, Registry.discover(), CPU), Registry.discover())
    assert found[0].equal(first_examples(dataset, split, 5, 0).states)  # type: ignore[arg-type]
    # A step at T = 1 stays near: the noise has standard deviation 0.03.
    assert 0 < (found[1] - found[0]).square().mean().sqrt() < 0.3


def test_the_default_number_of_chains_from_data(digits: Path, tmp_path: Path) -> None:
    document = walkback("sample", digits, "--from", "data", "--out", tmp_path / "a.png", "--json").document()
    assert (document["num"], document["from"], document["annealing_steps"]) == (64, "data", 0)


@pytest.mark.parametrize("end", [".npz", ".safetensors"])
def test_chains_go_on_from_a_file(digits: Path, tmp_path: Path, end: str) -> None:
    """They start with its last frame, and take as many chains as it has."""
    file = tmp_path / f"first{end}"
    done = walkback("sample", digits, "--num", "3", "--chain", "4", "--every", "2", "--out", file)
    assert done.code == 0
    ends = read_starts(file, DataInfo("digits", (1, 8, 8)))
    found = states(digits, tmp_path / "then.npz", "--from", file, "--chain", "2", "--every", "2")
    assert found.shape == (2, 3, 1, 8, 8)
    assert found[0].equal(ends)
    assert states(digits, tmp_path / "two.npz", "--from", file, "--num", "2")[0].equal(ends[:2])


def test_chains_start_from_an_image(digits: Path, tmp_path: Path) -> None:
    path = image(tmp_path / "a.png", 8, 8)
    found = states(digits, tmp_path / "a.npz", "--from", path, "--num", "3", "--chain", "1", "--every", "1")
    assert found[0].equal(read_starts(path, DataInfo("digits", (1, 8, 8)), 3))
    assert len({row.numpy().tobytes() for row in found[1]}) == 3


def test_filmstrips_and_films_of_chains_from_data(digits: Path, tmp_path: Path) -> None:
    options = ("--from", "data", "--num", "4", "--chain", "6", "--every", "2")
    for name in ("a.png", "a.gif"):
        assert walkback("sample", digits, *options, "--out", tmp_path / name).code == 0
    with Image.open(tmp_path / "a.gif") as film:
        assert getattr(film, "n_frames", 0) == 4


def refused(done: Done, *words: str) -> None:
    """Exit code 2, nothing on stdout, and one sentence with these words."""
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\.\n", done.err), done.err
    assert [word for word in words if word not in done.err] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--from", "data", "--levels", "20"), ["--levels 20", "--from data", "--from noise"]),
        (("--from", "a.npz", "--levels", "20"), ["--levels 20", "--from a.npz"]),
        (("--split", "train"), ["--split train", "--from noise", "--from data"]),
        (("--from", "a.npz", "--split", "test"), ["--split test", "--from a.npz"]),
        (("--from", "data", "--num", "100000"), ["100000", "test split of digits"]),
        (("--from", "dta"), ["dta", "noise, data"]),
        (("--from", "a.npz"), ["a.npz", "no file"]),
    ],
)
def test_what_cannot_be_started_is_refused(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(walkback("sample", digits, *options), *words)
    assert list(tmp_path.iterdir()) == []


def test_samples_of_other_data_are_refused(digits: Path, tmp_path: Path) -> None:
    written(tmp_path / "points.npz", POINTS, torch.zeros(1, 2, 2))
    refused(walkback("sample", digits, "--from", tmp_path / "points.npz"), "(1, 2, 2)", "chains, 1, 8, 8)")


def test_data_that_have_changed_since_are_told(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from walkback.building import restoring

    original = restoring.load_checkpoint

    def forged(path: Path, accept: Any) -> object:
        checkpoint = original(path, accept=accept)
        checkpoint.description.data["fingerprint"] = "another"
        return checkpoint

    monkeypatch.setattr(restoring, "load_checkpoint", forged)
    done = walkback("sample", digits, "--from", "data", "--num", "2", "--out", tmp_path / "a.png")
    assert done.code == 0
    assert "has changed since training" in done.err
