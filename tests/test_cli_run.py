"""`walkback run` given something wrong: one helpful sentence, exit code 2, and nothing left behind."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.program import TINY, Done, elsewhere, run, tree, walkback

CLOSED = "http://127.0.0.1:9"
"""Where nothing listens."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a run, and data sets in every state of disrepair."""
    monkeypatch.setenv("WALKBACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    monkeypatch.delenv("WALKBACK_DATA", raising=False)
    place = tmp_path / "here"
    (place / "empty").mkdir(parents=True)
    (place / "notes.txt").write_text("notes")
    (place / "torn.parquet").write_bytes(b"PAR1 and then nothing")
    (place / "broken.toml").write_text("[training\n")
    (place / "old.toml").write_text("[trainning]\nsteps = 3\n")
    write_parquet(place / "none.parquet", [])
    write_parquet(place / "rows.parquet", [*[picture()] * 30, picture()[:40], *[picture()] * 3])
    pq.write_table(pa.table({"label": [1, 2, 3]}), place / "labels.parquet")
    (place / "images").mkdir()
    for number in range(30):
        (place / "images" / f"{number:02}.png").write_bytes(picture()[: 40 if number == 7 else None])
    (place / "taken").mkdir()
    (place / "taken" / "config.toml").write_text("")
    monkeypatch.chdir(place)
    return place


def picture() -> bytes:
    """A small image in PNG format."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def write_parquet(path: Path, images: Sequence[bytes]) -> None:
    """A parquet file as the hub has them."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{"bytes": image, "path": None} for image in images]
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), path)


def sentence(done: Done) -> str:
    """The one line on stderr, but for the line that tells of a wait of two seconds; stdout is empty."""
    assert (done.code, done.out) == (2, ""), done.err
    said = re.sub(r"^Preparing [^\n]+ …\n", "", done.err)
    assert re.fullmatch(r"error: [^\n]+\.\n", said), done.err
    return said


CASES = {
    "unknown operator": (
        ("--operator", "gausian-mlp"),
        ["'gausian-mlp'", "did you mean 'gaussian-mlp'", "bernoulli-conv"],
    ),
    "unknown data": (
        ("--data", "digit"),
        ["'digit'", "did you mean 'digits'", "swiss-roll", "existing path"],
    ),
    "unknown schedule": (("--schedule", "dubling"), ["'dubling'", "'doubling'"]),
    "unknown recipe": (("--recipe", "nope"), ["'nope'", "digits"]),
    "unknown logger": (("--logger", "tensorbord"), ["'tensorbord'", "'tensorboard'"]),
    "unknown key": (
        ("--set", "operator.sgima=1"),
        ["'operator.sgima'", "did you mean 'operator.sigma'", "network"],
    ),
    "unknown section": (("--set", "operater.sigma=1"), ["'operater'", "did you mean 'operator'"]),
    "unknown flag": (("--stepz", "1"), ["--stepz", "walkback run --help"]),
    "no value": (("--set", "operator.sigma"), ["'operator.sigma'", "SECTION.OPTION=VALUE"]),
    "ill-typed key": (("--set", "operator.sigma=wide"), ["operator.sigma", '"wide"', "expected a number"]),
    "ill-typed flag": (("--steps", "many"), ["--steps", "integer"]),
    "no choice": (("--set", "operator.variance=free"), ["operator.variance", '"free"', "'reverse'"]),
    "no precision": (("--precision", "fp8"), ["--precision", "fp8", "bf16"]),
    "sigma of zero": (("--set", "operator.sigma=0"), ["operator.sigma", "got 0", "greater than 0"]),
    "negative sigma": (("--set", "operator.sigma=-0.1"), ["operator.sigma", "-0.1", "greater than 0"]),
    "temperature of zero": (("--set", "schedule.max_temperature=0"), ["schedule.max_temperature", "got 0"]),
    "negative temperature": (("--set", "schedule.max_temperature=-2"), ["schedule.max_temperature", "-2"]),
    "endless temperature": (
        ("--set", "schedule.max_temperature=inf"),
        ["schedule.max_temperature", "finite"],
    ),
    "negative steps": (("--steps", "-1"), ["training.steps", "-1", "0"]),
    "empty batch": (("--batch-size", "0"), ["training.batch_size", "got 0"]),
    "no learning rate": (("--lr", "nan"), ["training.lr", "finite"]),
    "one example": (
        ("--set", "evaluation.limit=1"),
        ["evaluation.limit = 1", "at least 4", "raise evaluation.limit"],
    ),
    "one example to validate": (
        ("--set", "training.validation_examples=1"),
        ["training.validation_examples = 1", "at least 4", "raise training.validation_examples"],
    ),
    "no processes": (("--nproc", "0"), ["run.nproc", "got 0"]),
    "negative seed": (("--seed", "-1"), ["run.seed", "-1"]),
    "no such device": (("--device", "tpu"), ["run.device", '"tpu"', "cuda"]),
    "bernoulli on grey": (
        ("--operator", "bernoulli-mlp", "--set", "data.binarize=none"),
        ["Bernoulli operator", "binary", "data.binarize=stochastic", "Gaussian"],
    ),
    "bernoulli on points": (
        ("--operator", "bernoulli-mlp", "--data", "swiss-roll"),
        ["Bernoulli operator", "binary"],
    ),
    "gaussian on bits": (("--set", "data.binarize=threshold"), ["Gaussian operator", "real", "Bernoulli"]),
    "convolutions on points": (("--operator", "gaussian-conv", "--data", "mog"), ["(2,)", "images", "'mlp'"]),
    "wrong prior": (("--prior", "bernoulli"), ["'bernoulli'", "binary"]),
    "missing path": (("--data", "./nowhere"), ["No such path", "'./nowhere'"]),
    "missing file": (("--data", "nowhere.parquet"), ["No such path", "'nowhere.parquet'"]),
    "empty folder": (("--data", "empty"), ["no images", "empty", ".png"]),
    "torn file": (("--data", "torn.parquet"), ["torn.parquet", "replace it"]),
    "file without rows": (("--data", "none.parquet"), ["none.parquet", "at least one image"]),
    "file without images": (("--data", "labels.parquet"), ["labels.parquet", "label"]),
    "row cut short": (("--data", "rows.parquet"), ["rows.parquet", "row 30", "replace or remove"]),
    "image cut short": (("--data", "images"), ["07.png", "replace or remove"]),
    "hub out of reach": (("--data", "some/thing"), ["'some/thing'", CLOSED, "WALKBACK_DATA"]),
    "named data out of reach": (("--data", "svhn"), ["ufldl-stanford/svhn", CLOSED, "WALKBACK_DATA"]),
    "existing run": (("--out", "taken"), ["taken", "--resume taken", "another --out"]),
    "file as directory": (("--out", "notes.txt"), ["notes.txt", "is a file", "another --out"]),
    "nothing to resume": (("--resume", "empty"), ["empty", "config.toml"]),
    "resume and recipe": (("--resume", "taken", "--recipe", "digits"), ["--resume", "--recipe"]),
    "missing recipe": (("--recipe", "./nope.toml"), ["'./nope.toml'"]),
    "broken recipe": (("--recipe", "broken.toml"), ["'broken.toml'", "TOML", "line 1"]),
    "recipe of something else": (
        ("--recipe", "old.toml"),
        ["'trainning'", "did you mean 'training'", "'old.toml'"],
    ),
}


@pytest.mark.parametrize(("options", "words"), CASES.values(), ids=CASES.keys())
def test_wrong_input_is_one_sentence_and_leaves_nothing(
    folder: Path, options: tuple[str, ...], words: list[str]
) -> None:
    before = tree(folder)
    out = () if {"--out", "--resume"} & set(options) else ("--out", "new")
    message = sentence(walkback("run", *options, *out))
    assert [word for word in words if word not in message] == []
    assert tree(folder) == before


@pytest.mark.parametrize("options", [("--data", "some/thing"), ("--data", "torn.parquet", "--nproc", "2")])
def test_processes_say_it_once_and_without_a_traceback(folder: Path, options: tuple[str, ...]) -> None:
    before = tree(folder)
    variables = {"HF_ENDPOINT": CLOSED, "WALKBACK_CACHE": str(folder.parent / "cache")}
    sentence(elsewhere("run", *options, "--out", "new", **variables))
    assert tree(folder) == before


def test_cuda_without_a_gpu_is_refused(folder: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "use --device cpu" in sentence(walkback("run", "--device", "cuda:1", "--out", "new"))
    assert not (folder / "new").exists()


def test_a_dry_run_refuses_what_a_run_refuses(folder: Path) -> None:
    assert "binary" in sentence(walkback("run", "--operator", "bernoulli-mlp", "--data", "mog", "--dry-run"))
    assert "not empty" in sentence(walkback("run", "--out", "taken", "--dry-run"))


def test_debug_shows_the_traceback_beside_the_sentence(folder: Path) -> None:
    done = walkback("run", "--data", "empty", "--debug")
    assert done.code == 2
    assert done.err.startswith("Traceback (most recent call last)")
    assert re.match(r"error: Got no images in \S*/empty; ", done.err.splitlines()[-1])


# --- what goes wrong later


def test_diverging_training_keeps_the_last_good_checkpoint_and_says_what_to_do(tmp_path: Path) -> None:
    directory = tmp_path / "a"
    assert run(directory, steps=4).code == 0
    before = tree(directory / "checkpoints")
    done = walkback("run", "--resume", directory, "--steps", "40", "--lr", "1e12")
    assert (done.code, done.out) == (1, "")
    last = done.err.splitlines()[-1]
    assert re.match(
        r"error: Got a (loss|state|gradient) .* at walk \d+, .*expected finite numbers: lower the learning rate",
        last,
    )
    assert before.items() <= tree(directory / "checkpoints").items()
    again = walkback("run", "--resume", directory, "--steps", "6", "--lr", "1e-4", "--json")
    assert again.code == 0, again.err


def test_a_directory_that_cannot_be_made_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = walkback("run", *TINY, "--steps", "1", "--out", tmp_path / "file" / "a")
    assert done.code == 2
    assert re.fullmatch(r"error: Got [^\n]+ is a file; choose another --out\.\n", done.err)
