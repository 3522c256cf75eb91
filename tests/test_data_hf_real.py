"""The real data sets of a local mirror, against an independent decoding and known figures."""

from __future__ import annotations

import os
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from walkback.data import SPLITS, Dataset
from walkback_hf.sources import Named

MIRROR = Path(os.environ.get("WALKBACK_DATA") or Path(__file__).parents[2] / "shared" / "data")

pytestmark = pytest.mark.data


def decoded(folder: str, split: str, column: str, row: int) -> Image.Image:
    """One image as `datasets` decodes it."""
    (path,) = (MIRROR / folder).glob(f"{split}-*.parquet")
    record = pq.read_table(path, columns=[column])[column][row].as_py()
    image = datasets.Image().decode_example(record)
    assert isinstance(image, Image.Image)
    return image


@pytest.fixture(scope="module")
def prepare(tmp_path_factory):
    """Prepares a data set of the mirror, or skips where the mirror lacks it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WALKBACK_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("WALKBACK_DATA", str(MIRROR))

        def make(dataset: Dataset, folder: str) -> Dataset:
            if not (MIRROR / folder).is_dir():
                pytest.skip(f"no {folder} in the local mirror (WALKBACK_DATA)")
            dataset.prepare()
            return dataset

        yield make


def test_mnist_is_split_55_5_10_and_has_its_known_mean(prepare):
    data = prepare(Named(source="mnist"), "ylecun/mnist")
    assert data.info.splits == {"train": 55_000, "validation": 5_000, "test": 10_000}
    assert (data.info.shape, data.info.bins) == ((1, 28, 28), 256)
    images = torch.cat((data.examples("train"), data.examples("validation"))).double() / 255
    assert images.mean() == pytest.approx(0.1307, abs=5e-5)
    assert images.std() == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.parametrize(
    ("split", "index", "source", "row"),
    [
        ("train", 0, "train", 0),
        ("train", 54_999, "train", 54_999),
        ("validation", 0, "train", 55_000),
        ("validation", 4_999, "train", 59_999),
        ("test", 9_999, "test", 9_999),
    ],
)
def test_mnist_rows_are_those_of_datasets(prepare, split, index, source, row):
    data = prepare(Named(source="mnist"), "ylecun/mnist")
    expected = np.asarray(decoded("ylecun/mnist/mnist", source, "image", row))
    assert np.array_equal(data.examples(split)[index, 0], expected)


def test_mnist_dequantization_is_uniform(prepare):
    # 7.8 million noises, mean and variance at z < 4.5; fails once in 75,000 seeds.
    data = prepare(Named(source="mnist"), "ylecun/mnist")
    rows = data.examples("test")
    states = data.states(rows, torch.Generator().manual_seed(0))
    noise = states.double() * 256 - rows
    assert states.min() >= 0
    assert states.max() <= 1
    assert abs(noise.mean() - 1 / 2) < 4.5 * (1 / 12 / noise.numel()) ** 0.5
    assert abs(noise.var() - 1 / 12) < 4.5 * (1 / 180 / noise.numel()) ** 0.5


def test_cifar10_rows_are_those_of_datasets(prepare):
    data = prepare(Named(source="cifar10"), "uoft-cs/cifar10")
    assert data.info.splits == {"train": 45_000, "validation": 5_000, "test": 10_000}
    assert data.info.shape == (3, 32, 32)
    for split, index, source, row in (("train", 7, "train", 7), ("validation", 3, "train", 45_003)):
        expected = np.asarray(decoded("uoft-cs/cifar10/plain_text", source, "img", row))
        assert np.array_equal(data.examples(split)[index].permute(1, 2, 0), expected)


def test_celeba_is_resized_to_64_by_78_and_cropped(prepare):
    data = prepare(Named(source="celeba"), "flwrlabs/celeba")
    assert set(data.info.splits) == set(SPLITS)
    assert data.info.shape == (3, 64, 64)
    for split, source in (("train", "train"), ("validation", "valid"), ("test", "test")):
        face = decoded("flwrlabs/celeba/img_align+identity+attr", source, "image", 5)
        expected = np.asarray(face.resize((64, 78), Image.Resampling.BICUBIC))[7:71]
        assert np.array_equal(data.examples(split)[5].permute(1, 2, 0), expected)


def test_mnist_binarized_has_two_values(prepare):
    data = prepare(Named(source="mnist", binarize="stochastic", limit=100), "ylecun/mnist")
    states = data.states(data.examples("train"), torch.Generator().manual_seed(0))
    assert set(states.unique().tolist()) == {0.0, 1.0}
    assert data.info.splits["train"] == 100
    assert data.info.space.support == "binary"
