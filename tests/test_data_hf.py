"""Image data sets: components, splits, folders of images, and paths and options that are refused."""

from __future__ import annotations

import io
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image

from walkback.component import DatasetSource
from walkback.data import SPLITS, Dataset
from walkback.errors import ConfigurationError, DataError
from walkback_hf import plugin
from walkback_hf.sources import Folder, Hub, Named
from walkback_hf.splits import plan_splits


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WALKBACK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    return path


def picture(seed: int, height: int = 6, width: int = 6, channels: int = 1) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return values[..., 0] if channels == 1 else values


def encode(values: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def write_images(folder, count: int, start: int = 0, **shape: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        (folder / f"{number:03}.png").write_bytes(encode(picture(number, **shape)))


def prepared(dataset: Dataset) -> Dataset:
    dataset.prepare()
    return dataset


def as_bytes(pixels: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in pixels}


# Plugin


def test_components_are_light_and_lead_to_data_sets():
    code = (
        "import sys; from walkback_hf.plugin import walkback_datasets as hook;"
        "print(*(c.name for c in hook()));"
        "assert not {'torch', 'datasets', 'pyarrow', 'numpy', 'PIL', 'pydantic'} & set(sys.modules)"
    )
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert names.split() == [
        "mnist", "fashion-mnist", "cifar10", "svhn", "celeba", "celeba-faces", "hub", "folder",
    ]  # fmt: skip
    for component in plugin.walkback_datasets():
        module, attribute = component.target.split(":")
        assert issubclass(getattr(import_module(module), attribute), Dataset)
        assert component.summary.endswith(".")


def test_source_is_an_existing_path_then_a_hub_id(root, monkeypatch):
    source = plugin.walkback_dataset_source
    assert source(str(root)) == DatasetSource("folder", {"path": str(root)})
    assert source("some/thing") == DatasetSource("hub", {"id": "some/thing"})
    monkeypatch.chdir(root)
    (root / "some" / "thing").mkdir(parents=True)
    assert source("some/thing") == DatasetSource("folder", {"path": "some/thing"})


@pytest.mark.parametrize("text", ["", "mnist", "a/b/c", "/no/such", "../up", "./here", "a/\0", "~nobody/x/y"])
def test_source_leaves_what_is_neither_path_nor_id(text):
    assert plugin.walkback_dataset_source(text) is None


# Splits


def test_folder_is_split_90_5_5_and_covers_every_image_once(root):
    write_images(root / "one", 20)
    write_images(root / "two" / "deep", 20, start=20)
    data = prepared(Folder(path=str(root)))
    assert data.info.splits == {"train": 36, "validation": 2, "test": 2}
    parts = [as_bytes(data.examples(split)) for split in SPLITS]
    assert set.union(*parts) == {picture(number).tobytes() for number in range(40)}
    assert sum(map(len, parts)) == 40


def test_held_out_images_come_from_all_of_a_sorted_folder():
    plan = plan_splits({"all": 1000}, "x", {"all": "a.parquet"})
    for split in ("validation", "test"):
        assert np.bincount(plan.rows[split][1] // 100).tolist() == [5] * 10


def test_split_folders_are_kept(root):
    for split, count, start in (("train", 5, 0), ("Valid", 2, 5), ("test", 3, 7), ("extra", 9, 20)):
        write_images(root / split, count, start)
    with pytest.warns(
        UserWarning, match=r"Left out of .*: 9 files whose names say no split, such as extra/020.png"
    ):
        data = prepared(Folder(path=str(root)))
    assert data.info.splits == {"train": 5, "validation": 2, "test": 3}
    assert as_bytes(data.examples("validation")) == {picture(5).tobytes(), picture(6).tobytes()}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"train": 100, "test": 7}, {"train": 90, "validation": 10, "test": 7}),
        ({"train": 60_000, "test": 7}, {"train": 55_000, "validation": 5_000, "test": 7}),
        ({"train": 100, "dev": 7}, {"train": 90, "validation": 7, "test": 10}),
        ({"train": 5, "val": 6, "test": 7, "extra": 8}, {"train": 5, "validation": 6, "test": 7}),
        ({"full": 100}, {"train": 90, "validation": 5, "test": 5}),
        ({"all": 3}, {"train": 1, "validation": 1, "test": 1}),
    ],
)
def test_missing_splits_are_cut_off_train_without_overlap(counts, expected):
    rows = plan_splits(counts, "x", dict.fromkeys(counts, "a.parquet")).rows
    assert {split: taken.size for split, (_, taken) in rows.items()} == expected
    taken = [(name, int(row)) for name, part in rows.values() for row in part]
    assert len(set(taken)) == len(taken)
    assert all(row < counts[name] for name, row in taken)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"a": 5, "b": 5}, "no train split in x; expected train or a single split, found a, b"),
        ({"train": 0, "test": 5}, r"empty split, train of x \(a.parquet\)"),
        ({"train": 5, "test": 0}, r"empty split, test of x \(a.parquet\)"),
        ({"all": 2}, "2 training image.s. in x, too few to cut off validation and test"),
    ],
)
def test_splits_that_cannot_be_had_are_refused(counts, words):
    with pytest.raises(DataError, match=words):
        plan_splits(counts, "x", dict.fromkeys(counts, "a.parquet"))


def test_limit_takes_the_first_training_images_and_leaves_the_other_splits(root):
    write_images(root / "train", 10)
    write_images(root / "test", 3, start=10)
    full, part = prepared(Folder(path=str(root))), prepared(Folder(path=str(root), limit=4))
    assert part.info.splits == {"train": 4, "validation": 1, "test": 3}
    assert torch.equal(part.examples("train"), full.examples("train")[:4])
    assert part.info.fingerprint != full.info.fingerprint


# Paths and options


def test_missing_empty_and_odd_paths_are_refused(root):
    (root / "notes.txt").write_text("nothing here")
    (root / ".hidden.png").write_bytes(encode(picture(0)))
    for path, words in (
        (root / "mistyped", "no file or folder at .*mistyped"),
        (root / "notes.txt", "the file .*notes.txt as data; expected a folder of images or a .parquet file"),
        (root, r"no images in .*pictures beside 1 .txt \(1 hidden\); expected .parquet, .png"),
        (root / ("x" * 5000), "no file or folder"),
    ):
        with pytest.raises(DataError, match=words):
            Folder(path=str(path)).prepare()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Folder(path="x", size=0), "data.size = 0"),
        (lambda: Folder(path="x", limit=0), "data.limit = 0"),
        (lambda: Folder(path="x", binarize="half"), "none, threshold, stochastic"),
        (lambda: Named(source="celeba", size=-1), "data.size = -1"),
        (lambda: Hub(id="mnist"), "data.id = 'mnist'; expected a hub id"),
        (lambda: Hub(id="../../etc"), "expected a hub id"),
    ],
)
def test_bad_options_are_refused_when_constructed(make, words):
    with pytest.raises(ConfigurationError, match=words):
        make()


def test_unprepared_data_say_so():
    with pytest.raises(DataError, match="call prepare"):
        _ = Folder(path="x").info
    with pytest.raises(DataError, match="call prepare"):
        Folder(path="x").examples("train")
