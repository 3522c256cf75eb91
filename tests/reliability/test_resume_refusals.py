"""Resuming goes on with what was trained, or says what differs; nothing starts anew and nothing is deleted unasked."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.program import Done, digest, figures, records, run, tree, walkback

from walkback.storage.checkpoint import load_checkpoint
from walkback.training.resume_point import other_environment

SAVED = (
    *("--set", "training.checkpoint_every=3", "--set", "training.keep_checkpoints=10"),
    *("--set", "training.log_every=1", "--set", "operator.network.dropout=0.2"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 walks with checkpoints of 3, 6, 9 and 12."""
    directory = tmp_path_factory.mktemp("trained") / "a"
    assert run(directory, *SAVED, steps=12).code == 0
    return directory


@pytest.fixture
def a(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(trained, tmp_path / "a")
    return tmp_path / "a"


def resume(directory: Path | str, *options: str) -> Done:
    return walkback("run", "--resume", directory, *options)


def assert_refused(directory: Path, done: Done, *words: str) -> None:
    """Exit 2, one sentence with these words, and nothing changed but the lock."""
    assert done.code == 2, done.err
    assert [word for word in words if word not in done.err] == [], done.err
    assert done.err.count("error:") == 1


# --- the configuration


@pytest.mark.parametrize(
    ("pattern", "text", "words"),
    [
        (r"^dropout = .*$", "dropout = 0.5", ["operator.network.dropout = 0.5", "trained with 0.2"]),
        (r"^sigma = .*$", "sigma = 0.5", ["operator.sigma = 0.5"]),
        (r'^name = "walkback"$', 'name = "conditional"', ["objective.name = 'conditional'", "'walkback'"]),
        (r"^seed = 0$", "seed = 1", ["run.seed = 1", "trained with 0"]),
        (r"^n1 = 3$", "n1 = 2", ["schedule.n1 = 2", "trained with 3"]),
        (r"^lr = .*$", "lr = 0.5", ["training.lr = 0.5", "--set training.lr=VALUE"]),
        (r'^updates = "batch"$', 'updates = "online"', ["training.updates = 'online'", "'batch'"]),
        (r"^share = 0.0$", "share = 0.5", ["training.chains.share = 0.5", "trained with 0.0"]),
    ],
)
def test_an_edited_configuration_is_refused_by_the_option(
    a: Path, pattern: str, text: str, words: list[str]
) -> None:
    config = a / "config.toml"
    edited, count = re.subn(pattern, text, config.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1
    config.write_text(edited)
    before = tree(a)
    assert_refused(a, resume(a, "--steps", "14"), "config.toml", *words)
    assert tree(a) == before


def test_an_edit_that_the_command_line_names_is_taken(a: Path) -> None:
    config = a / "config.toml"
    config.write_text(re.sub(r"(?m)^log_every = 1$", "log_every = 2", config.read_text()))
    assert resume(a, "--steps", "14", "--set", "training.log_every=2").code == 0
    assert resume(a, "--steps", "16").code == 0  # it was named once


def test_comments_and_layout_are_no_edit(a: Path) -> None:
    config = a / "config.toml"
    config.write_text("# mine\n\n" + config.read_text().replace(" = ", "   =  "))
    assert resume(a, "--steps", "13").code == 0


def test_a_change_of_what_weights_depend_on_is_accepted_by_name(a: Path) -> None:
    change = ("--steps", "14", "--set", "operator.network.dropout=0.4")
    assert_refused(a, resume(a, *change), "--accept operator.network.dropout")
    assert_refused(a, resume(a, *change, "--accept", "operator.sigma"), "operator.network.dropout = 0.4")
    assert resume(a, *change, "--accept", "operator.network.dropout").code == 0
    config = load_checkpoint(a / "final.safetensors").description.config
    assert config["operator"]["network"]["dropout"] == 0.4  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("name", "words"),
    [("training.lr", "expected data"), ("date", "expected data"), ("", "expected a value")],
)
def test_only_what_weights_depend_on_needs_to_be_accepted(a: Path, name: str, words: str) -> None:
    assert_refused(a, resume(a, "--accept", name), "--accept", words)
    done = walkback("run", "--accept", "data", "--dry-run")
    assert done.code == 2
    assert "without --resume" in done.err


# --- the data


def pictures(directory: Path, num: int) -> Path:
    directory.mkdir()
    rng = np.random.default_rng(1)
    for number in range(num):
        pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{number:03}.png")
    return directory


@pytest.fixture(scope="module")
def with_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 200 pictures, beside them."""
    place = tmp_path_factory.mktemp("pictures")
    photos = pictures(place / "photos", 200)
    done = run(place / "a", "--data", str(photos), *SAVED[:4], steps=3)
    assert done.code == 0, done.err
    return place


def test_a_run_whose_pictures_were_removed_is_refused_by_split(with_pictures: Path) -> None:
    photos, directory = with_pictures / "photos", with_pictures / "a"
    removed = with_pictures / "removed"
    removed.mkdir()
    for number in range(0, 60, 2):
        (photos / f"{number:03}.png").rename(removed / f"{number:03}.png")
    before = tree(directory)
    try:
        done = resume(directory, "--steps", "5")
    finally:
        for path in removed.iterdir():
            path.rename(photos / path.name)
    assert_refused(directory, done, "have changed", "train had 180 examples and has", "--accept data")
    assert tree(directory) == before
    assert resume(directory, "--steps", "4").code == 0


def test_a_run_with_one_other_pixel_is_refused_unless_accepted(with_pictures: Path, tmp_path: Path) -> None:
    photo = with_pictures / "photos" / "007.png"
    kept = photo.read_bytes()
    with Image.open(photo) as image:
        pixels = np.asarray(image).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(photo)
    shutil.copytree(with_pictures / "a", tmp_path / "a")
    try:
        done = resume(tmp_path / "a", "--steps", "6")
        assert_refused(tmp_path / "a", done, "as many examples as before", "other content", "--accept data")
        done = resume(tmp_path / "a", "--steps", "6", "--accept", "data")
        assert done.code == 0, done.err
        assert "have changed" in done.err
        assert resume(tmp_path / "a", "--steps", "7").code == 0  # its checkpoint is of these data now
    finally:
        photo.write_bytes(kept)


# --- the checkpoints


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with patience, whose best model is not the last, and which is not over."""
    directory = tmp_path_factory.mktemp("patient") / "a"
    options = {
        "patience": 50,
        "validate_every": 2,
        "checkpoint_every": 4,
        "log_every": 100,
        "lr": 10,
        "warmup": 1000,
        "lr_schedule": "constant",
        "ema": 0.9,
    }
    pairs = [part for name, value in options.items() for part in ("--set", f"training.{name}={value}")]
    assert run(directory, *pairs, "--set", "schedule.n1=0", steps=16).code == 0
    return directory


@pytest.mark.parametrize("final", [True, False])
def test_a_lost_best_model_does_not_condemn_the_last_checkpoint(
    patient: Path, tmp_path: Path, final: bool
) -> None:
    directory = tmp_path / "a"
    shutil.copytree(patient, directory)
    (best,) = {line["best_step"] for line in records(directory) if line["step"] == 16 and "best_step" in line}
    assert best < 16
    for path in (directory / "checkpoints").glob("best-*.safetensors"):
        path.unlink()
    for path in (directory / "checkpoints").glob(f"step-{best}.*"):
        path.unlink()
    if not final:  # nothing else has the same content
        (directory / "final.safetensors").unlink()
    done = resume(directory, "--steps", "18")
    assert done.code == 0, done.err
    assert ("The best model is lost: best-" in done.err) is not final
    assert [line["step"] for line in records(directory) if "validation_nats" in line] == [*range(2, 19, 2)]


def test_a_run_that_has_lost_its_checkpoints_is_refused_and_left_alone(a: Path) -> None:
    """All gone, or all damaged, with and without the trained model: 12 walks are logged."""
    for path in (a / "checkpoints").glob("*.json"):
        path.unlink()
    before = tree(a)
    assert_refused(a, resume(a), "without a whole checkpoint", "step-12.json is missing")
    assert tree(a) == before
    for path in (a / "checkpoints").iterdir():
        path.unlink()
    assert_refused(a, resume(a), "without a whole checkpoint")
    (a / "final.safetensors").unlink()
    before = tree(a)
    assert_refused(a, resume(a), "without checkpoints, although metrics.jsonl has 12 walks")
    assert_refused(a, walkback("run", "--resume", "auto", "--out", a), "without checkpoints")
    assert tree(a) == before


def test_a_run_without_a_first_checkpoint_says_that_it_starts_from_the_beginning(a: Path) -> None:
    whole = digest(a / "final.safetensors")
    lines = (a / "metrics.jsonl").read_text().splitlines(keepends=True)
    (a / "metrics.jsonl").write_text("".join(lines[:2]))
    for path in [*(a / "checkpoints").iterdir(), a / "final.safetensors"]:
        path.unlink()
    done = resume(a)
    assert done.code == 0, done.err
    assert "has no checkpoint yet: training starts from the beginning" in done.err
    assert digest(a / "final.safetensors") == whole


def test_damaged_newer_checkpoints_stay_until_a_new_one_is_whole(a: Path) -> None:
    for step in (9, 12):
        (a / "checkpoints" / f"step-{step}.state.safetensors").write_bytes(b"damaged")
    before = tree(a / "checkpoints")
    assert_refused(a, resume(a, "--steps", "5"), "5 asked for", "taken 6 walks")
    assert tree(a / "checkpoints") == before
    assert resume(a).code == 0
    names = {path.name for path in (a / "checkpoints").glob("*.json")}
    assert names == {f"step-{step}.json" for step in (3, 6, 9, 12)}
    assert figures(a)[-1]["step"] == 12


def test_an_older_checkpoint_is_chosen_and_nothing_later_is_lost(a: Path) -> None:
    before, whole = tree(a), figures(a)
    done = resume(f"{a}@6")
    assert done.code == 0, done.err
    moved = a / "checkpoints" / "superseded"
    assert f"What came after 6 walks is in {moved}" in done.err
    aside = tree(moved)
    for step in (9, 12):
        for end in (".safetensors", ".state.safetensors", ".json"):
            assert aside[f"step-{step}{end}"] == before[f"checkpoints/step-{step}{end}"]
    assert aside["final.safetensors"] == before["final.safetensors"]
    assert aside["metrics.jsonl"] == before["metrics.jsonl"]
    assert tree(a)["final.safetensors"] == before["final.safetensors"]  # the same training again
    assert figures(a) == whole
    assert resume(f"{a}@9", "--steps", "10").code == 0
    assert (a / "checkpoints" / "superseded-2" / "step-12.json").exists()
    assert records(a)[-1]["step"] == 10


@pytest.mark.parametrize(("step", "harm"), [(7, False), (6, True)])
def test_a_step_that_is_not_there_is_refused_with_those_that_are(a: Path, step: int, harm: bool) -> None:
    if harm:
        (a / "checkpoints" / f"step-{step}.safetensors").write_bytes(b"damaged")
    whole = ", ".join(str(other) for other in (12, 9, 6, 3) if other != step)
    before = tree(a)
    assert_refused(a, resume(f"{a}@{step}"), f"step {step}", f"choose one of {whole}")
    assert tree(a) == before


def test_a_directory_with_an_at_sign_is_a_directory(a: Path) -> None:
    other = a.with_name("b@6")
    a.rename(other)
    assert resume(other, "--steps", "13").code == 0
    assert resume(f"{other}@9", "--steps", "10").code == 0


@pytest.mark.parametrize("text", ["", "nowhere@5", "nowhere"])
def test_what_is_no_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert resume(text).code == 2
    assert list(tmp_path.iterdir()) == []


# --- the machine


def test_another_machine_is_warned_about(a: Path) -> None:
    assert "last bits" not in resume(a, "--steps", "13").err
    done = resume(a, "--steps", "14", "--set", "run.threads=2")
    assert done.code == 0
    assert "in the last bits: threads was 1 and is 2 now" in done.err


def test_what_an_older_file_does_not_say_is_no_difference() -> None:
    assert other_environment(None, {"torch": "2"}) is None
    assert other_environment({"threads": 1}, {"torch": "2", "threads": 1}) is None
    assert "precision was fp32 and is bf16 now" in (
        other_environment({"precision": "fp32"}, {"precision": "bf16"}) or ""
    )
    assert "torch was 1 and is 2 now" in (other_environment({"torch": "1"}, {"torch": "2"}) or "")
