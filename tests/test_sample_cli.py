"""`walkback sample` from one checkpoint to files, and what it makes of files that are none."""

from __future__ import annotations

import gc
import json
import pickle
import re
import tracemalloc
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from tests.program import TITLE, Done, cells, digest, elsewhere, run, tree, walkback
from torch import Tensor

from walkback.building.assembly import load_model
from walkback.extensions.registry import Registry
from walkback.sampling import SamplePlan, sample_frames
from walkback.storage.description import read_description
from walkback.storage.tensorfile import read_tensors, save_tensors

Install = Callable[..., Path]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of digits, 10 annealing steps, alone in its directory."""
    place = tmp_path_factory.mktemp("digits")
    assert run(place / "a").code == 0
    return (place / "a" / "final.safetensors").rename(place / "model.safetensors")


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of points in the plane."""
    directory = tmp_path_factory.mktemp("points") / "a"
    assert run(directory, "--data", "mog").code == 0
    return directory / "final.safetensors"


def sample(checkpoint: Path, out: Path, *options: str) -> Done:
    """Draw four samples or chains."""
    return walkback("sample", checkpoint, "--num", "4", "--out", out, *options)


def states(checkpoint: Path, out: Path, *options: str) -> tuple[list[int], Tensor]:
    """Recorded steps (F,) and states (F, N, *E)."""
    done = sample(checkpoint, out.with_suffix(".npz"), *options)
    assert done.code == 0, done.err
    with np.load(out.with_suffix(".npz")) as file:
        return file["steps"].tolist(), torch.from_numpy(file["states"])


# --- what is written


def test_images_become_a_grid(digits: Path, tmp_path: Path) -> None:
    done = sample(digits, tmp_path / "grid.png", "--json")
    protocol = {
        "checkpoint": digits.name,
        "operator": "gaussian-mlp",
        "trained_on": "digits",
        "progress": dict(read_description(digits).progress),
        "weights": "ema",
        "walkback": version("walkback"),
        "torch": torch.__version__,
        "device": "cpu",
        "precision": "fp32",
        "from": "noise",
        "annealing_steps": 14,
        "extra": 0,
        "chain": 0,
        "readout": "state",
        "batch_size": 1000,
        "seed": 0,
    }
    assert done.document() == {"file": str(tmp_path / "grid.png"), "num": 4, "frames": 1, **protocol}
    with Image.open(tmp_path / "grid.png") as picture:
        assert json.loads(picture.info["walkback"]) == protocol
    assert len({image.tobytes() for row in cells(tmp_path / "grid.png", 2, 2) for image in row}) == 4


def test_a_chain_becomes_a_filmstrip_and_a_film(digits: Path, tmp_path: Path) -> None:
    for name in ("chain.png", "chain.gif"):
        assert sample(digits, tmp_path / name, "--chain", "6", "--every", "2").code == 0
    strip = cells(tmp_path / "chain.png", 4, 4, TITLE)  # a row a chain, a column a frame
    assert len({image.tobytes() for row in strip for image in row}) == 16
    with Image.open(tmp_path / "chain.gif") as film:
        assert getattr(film, "n_frames", 0) == 4


@pytest.mark.parametrize("options", [(), ("--chain", "4", "--every", "2")])
def test_points_become_scatter_plots(points: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert sample(points, tmp_path / "a.png", *options).code == 0
    assert sample(points, tmp_path / "a.gif", *options).code == 0
    with Image.open(tmp_path / "a.png") as picture, Image.open(tmp_path / "a.gif") as film:
        assert min(picture.size) >= 240
        assert getattr(film, "n_frames", 0) == (3 if options else 1)


def test_arrays_have_steps_and_states(digits: Path, tmp_path: Path) -> None:
    steps, frames = states(digits, tmp_path / "a", "--chain", "6", "--every", "2")
    assert (steps, frames.shape, frames.dtype) == ([0, 2, 4, 6], (4, 4, 1, 8, 8), torch.float32)
    assert frames.isfinite().all()


def test_all_formats_hold_the_same_states(digits: Path, tmp_path: Path) -> None:
    options = ("--chain", "6", "--every", "3")
    steps, frames = states(digits, tmp_path / "a", *options)
    assert sample(digits, tmp_path / "a.safetensors", *options).code == 0
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.get_tensor("steps").tolist() == steps
        assert file.get_tensor("states").equal(frames)


def test_a_chain_that_is_not_divided_evenly_ends_with_its_last_frame(digits: Path, tmp_path: Path) -> None:
    assert states(digits, tmp_path / "a", "--chain", "7", "--every", "3")[0] == [0, 3, 6]


# --- randomness


def test_equal_seeds_give_equal_bytes_and_others_do_not(digits: Path, tmp_path: Path) -> None:
    for end in (".png", ".gif", ".npz", ".safetensors"):
        contents = []
        for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
            out = (tmp_path / name).with_suffix(end)
            assert sample(digits, out, "--chain", "2", "--every", "1", "--seed", seed).code == 0
            contents.append(digest(out))
        assert contents[0] == contents[1] != contents[2]


def test_what_is_recorded_does_not_change_the_chain(digits: Path, tmp_path: Path) -> None:
    steps, often = states(digits, tmp_path / "often", "--chain", "6", "--every", "1")
    _, seldom = states(digits, tmp_path / "seldom", "--chain", "6", "--every", "3")
    _, extra = states(digits, tmp_path / "extra", "--extra", "6")
    assert steps == list(range(7))
    assert seldom.equal(often[::3])
    assert extra[0].equal(often[6])


def test_samples_of_a_batch_do_not_depend_on_how_many_follow(digits: Path, tmp_path: Path) -> None:
    _, few = states(digits, tmp_path / "few", "--batch-size", "2")
    done = walkback("sample", digits, "--num", "6", "--batch-size", "2", "--out", tmp_path / "many.npz")
    assert done.code == 0
    with np.load(tmp_path / "many.npz") as file:
        assert torch.from_numpy(file["states"])[:, :4].equal(few)


def test_a_process_of_its_own_draws_the_same(digits: Path, tmp_path: Path) -> None:
    assert sample(digits, tmp_path / "here.npz").code == 0
    done = elsewhere("sample", digits, "--num", "4", "--out", tmp_path / "there.npz")
    assert (done.code, done.out) == (0, "")
    assert digest(tmp_path / "here.npz") == digest(tmp_path / "there.npz")


def test_more_annealing_steps_than_the_schedule_has(digits: Path, tmp_path: Path) -> None:
    done = sample(digits, tmp_path / "a.png", "--levels", "40", "--json")
    assert (done.code, done.document()["annealing_steps"]) == (0, 40)


# --- memory


@pytest.fixture
def chain(digits: Path) -> Iterator[int]:
    """The steps of a chain of 4,000, one after the other."""
    loaded = load_model(digits, Registry.discover(), torch.device("cpu"))
    plan = SamplePlan(num=4, chain=4000, every=4000)
    frames = sample_frames(loaded.model, loaded.model.levels(), plan, torch.device("cpu"))
    return (done for done, _, _ in frames)


def test_a_long_chain_keeps_no_more_tensors_than_a_short_one(chain: Iterator[int]) -> None:
    for _ in range(3):
        gc.collect()  # what other tests left: objects with finalizers go in a second pass
    counts = []
    for done in chain:
        if done in (20, 1000, 4000):
            gc.collect()
            counts.append(sum(issubclass(type(found), Tensor) for found in gc.get_objects()))
    assert len(counts) == 3
    assert len(set(counts)) == 1


def test_recording_a_long_chain_takes_the_memory_of_a_short_one(digits: Path, tmp_path: Path) -> None:
    peaks = []
    for length in (200, 2000):
        tracemalloc.start()
        done = sample(digits, tmp_path / f"{length}.npz", "--chain", str(length), "--every", "1")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert done.code == 0
    written = (tmp_path / "2000.npz").stat().st_size
    # 1,800 more frames of 1 kB each; the list of steps takes some 0.1 MB.
    assert written > 2_000_000
    assert peaks[1] - peaks[0] < written / 5


# --- refusals


def refused(done: Done, *words: str) -> None:
    """Exit code 2, nothing on stdout, and one sentence with these words."""
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\.\n", done.err), done.err
    assert [word for word in words if word not in done.err] == []


def test_an_existing_file_is_kept_unless_forced(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    out.write_text("a picture of value")
    refused(sample(digits, out), "a.png", "exists", "--force")
    assert out.read_text() == "a picture of value"
    assert sample(digits, out, "--force").code == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--levels", "6"), ["6 annealing steps", "at least 11"]),
        (("--chain", "5", "--every", "6"), ["--every 6", "--chain 5"]),
        (("--every", "2"), ["--every 2", "--chain 0"]),
        (("--num", "0"), ["--num"]),
        (("--device", "tpu"), ["'tpu'", "auto, cpu, cuda or cuda:i"]),
        (("--out", "a.jpg"), ["a.jpg", ".png, .gif, .npz, .safetensors"]),
        (("--out", "no/such/place.png"), ["no/such/place.png", "directory"]),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(walkback("sample", digits, *options), *words)
    assert list(tmp_path.iterdir()) == []


def test_a_filmstrip_without_end_is_refused_before_any_work(digits: Path, tmp_path: Path) -> None:
    done = sample(digits, tmp_path / "a.png", "--chain", "100000000", "--every", "1")
    refused(done, "too many for one picture", ".gif, .npz or .safetensors")


# --- checkpoints that are none


def forged(checkpoint: Path, path: Path, change: Callable[[dict[str, object]], object]) -> Path:
    """A copy of a checkpoint whose description was changed by somebody."""
    tensors, document = read_tensors(checkpoint)
    change(document)
    save_tensors(path, tensors, document)
    return path


@pytest.mark.parametrize("command", ["sample", "info"])
@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", pickle.dumps({"operator": 1}), b"\xff" * 64, (2**62).to_bytes(8, "little") + b"{}"],
    ids=["empty", "short", "pickle", "ones", "endless header"],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, command: str, content: bytes) -> None:
    (tmp_path / "file.safetensors").write_bytes(content)
    refused(walkback(command, tmp_path / "file.safetensors"), "file.safetensors")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_checkpoints_are_refused(digits: Path, tmp_path: Path, share: float) -> None:
    content = digits.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: int(share * len(content))])
    refused(sample(tmp_path / "cut.safetensors", tmp_path / "a.png"), "cut.safetensors")
    assert sorted(tree(tmp_path)) == ["cut.safetensors"]


@pytest.mark.parametrize("name", ["missing.safetensors", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    refused(sample(tmp_path / name, tmp_path / "a.png"), str(tmp_path / name))


def test_a_plugin_that_is_not_installed_is_named_with_its_version(digits: Path, tmp_path: Path) -> None:
    def change(document: dict[str, object]) -> None:
        document["components"]["operator"] = {  # type: ignore[index]
            "name": "normalizing-glow",
            "distribution": "walkback-glow",
            "version": "3.1",
        }

    path = forged(digits, tmp_path / "a.safetensors", change)
    words = ("'normalizing-glow'", "walkback-glow 3.1", "pip install walkback-glow==3.1")
    refused(sample(path, tmp_path / "a.png"), *words)


def test_a_third_partys_operator_is_sampled_where_it_is_installed(install: Install, tmp_path: Path) -> None:
    code = """
        @hookimpl
        def walkback_operators():
            defaults = {"schedule": {"name": "doubling"}, "prior": {"name": "gaussian"}}
            defaults |= {"process": {"name": "tied"}, "objective": {"name": "walkback"}}
            target, preset = "walkback_paper.gaussian:Gaussian", {"network": "walkback:mlp"}
            yield Component("mine", target, "Mine", defaults=defaults, preset=preset)
    """
    install("theirs", code, version="2.5")
    assert run(tmp_path / "a", "--operator", "mine").code == 0
    final = tmp_path / "a" / "final.safetensors"
    origin = read_description(final).components["operator"]
    assert (origin.name, origin.distribution, origin.version) == ("mine", "theirs", "2.5")
    assert sample(final, tmp_path / "a.png").code == 0


@pytest.mark.parametrize(
    ("section", "options", "words"),
    [
        ("operator", {"network": {"name": "mlp", "hidden": 32}}, ["do not fit", "'gaussian-mlp'"]),
        ("operator", {"network": {"name": "mlp", "hidden": "many"}}, ["operator.network.hidden"]),
        ("operator", {"surprise": 1}, ["operator.surprise"]),
        ("operator", {"sigma": -1.0}, ["operator.sigma"]),
        ("schedule", {"max_temperature": 0.0}, ["schedule.max_temperature"]),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(
    digits: Path, tmp_path: Path, section: str, options: dict[str, object], words: list[str]
) -> None:
    def change(document: dict[str, object]) -> None:
        document["config"][section].update(options)  # type: ignore[index]

    path = forged(digits, tmp_path / "a.safetensors", change)
    refused(sample(path, tmp_path / "a.png"), *words)


def test_no_code_named_in_a_file_is_run(digits: Path, tmp_path: Path) -> None:
    def change(document: dict[str, object]) -> None:
        document["components"]["operator"]["name"] = "os:system"  # type: ignore[index]
        document["config"]["operator"]["name"] = "os:system"  # type: ignore[index]

    refused(sample(forged(digits, tmp_path / "a.safetensors", change), tmp_path / "a.png"), "'os:system'")


def test_the_figures_of_a_checkpoint_are_json(digits: Path) -> None:
    document = walkback("info", digits, "--json").document()
    assert json.loads(json.dumps(document)) == document
    assert document["progress"] == {"updates": 6, "walks": 6, "calls": 672, "gradient_calls": 672}
