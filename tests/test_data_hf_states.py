"""From pixels to states: dequantization, binarization, and the description that goes with them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from walkback.data import DataInfo, Dataset
from walkback.errors import ConfigurationError
from walkback_hf.sources import Folder


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


@pytest.fixture
def grey(root):
    write_images(root, 40, height=32, width=32)
    return root


def states(data: Dataset, rows: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return data.states(rows, torch.Generator().manual_seed(seed))


def test_info_describes_the_data(grey):
    info = prepared(Folder(path=str(grey), size=16)).info
    assert (info.name, info.shape, info.support, info.bins) == ("pictures", (1, 16, 16), "real", 256)
    assert info.preprocessing == (
        "found 40 .png; no name says a split",
        "validation and test: 2 evenly spaced examples of all each",
        "one channel, grey",
        "shorter side resized to 16 (bicubic, antialiased)",
        "centre crop 16×16",
        "dequantized: (v + u) / 256, u ~ U[0, 1)",
    )
    assert DataInfo.from_dict(info.to_dict()) == info


def test_dequantization_noise_is_uniform(grey):
    # Mean and variance of the 36,864 noises at z < 4.5; fails once in 75,000 seeds.
    data = prepared(Folder(path=str(grey)))
    rows = data.examples("train")
    values = states(data, rows)
    noise = (values * 256 - rows).double()
    assert (values.dtype, values.shape) == (torch.float32, rows.shape)
    assert values.min() >= 0
    assert values.max() <= 1
    assert abs(noise.mean() - 1 / 2) < 4.5 * (1 / 12 / noise.numel()) ** 0.5
    assert abs(noise.var() - 1 / 12) < 4.5 * (1 / 180 / noise.numel()) ** 0.5
    assert torch.equal(values, states(data, rows))


def test_training_mirrors_half_of_the_images_and_measurements_none(grey):
    data = prepared(Folder(path=str(grey), flip=True))
    rows = data.examples("train")[:1].expand(1000, 1, 32, 32)
    found = data.augmented(rows, torch.Generator().manual_seed(0))
    as_stored = (found == rows).flatten(1).all(1)
    assert torch.equal(found[~as_stored], rows.flip(-1)[~as_stored])
    assert abs(int(as_stored.sum()) - 500) < 4.5 * 250**0.5  # fails once in 150,000 seeds
    assert torch.equal(states(data, rows), states(prepared(Folder(path=str(grey))), rows))
    assert data.augmented(rows, torch.Generator().manual_seed(1)).data_ptr() != rows.data_ptr()
    plain = prepared(Folder(path=str(grey)))
    assert plain.augmented(rows, torch.Generator()) is rows


def test_without_dequantization_there_are_no_bins(grey):
    data = prepared(Folder(path=str(grey), dequantize=False))
    assert states(data, torch.tensor([[0, 51, 255]], dtype=torch.uint8)).tolist() == [
        [0, pytest.approx(0.2), 1]
    ]
    assert data.info.bins is None


def test_smoothing_adds_gaussian_noise_to_the_dequantized_state(grey):
    """Mean, variance and fourth moment of the 36,864 noises at z < 4.5; fails once in 50,000 seeds."""
    data, plain = prepared(Folder(path=str(grey), noise=0.3)), prepared(Folder(path=str(grey)))
    rows = data.examples("train")
    noise = (
        states(data, rows) - states(plain, rows)
    ).double().flatten() / 0.3  # the uniform noise is drawn first
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
        z = (noise.pow(power).mean() - expected) / (variance / noise.numel()) ** 0.5
        assert abs(float(z)) < 4.5
    assert data.info.bins is None
    assert (
        data.info.preprocessing[-1] == "dequantized: (v + u) / 256, u ~ U[0, 1), then Gaussian noise of 0.3"
    )


def test_no_smoothing_draws_nothing(grey):
    data = prepared(Folder(path=str(grey), noise=0.0, dequantize=False))
    noise = torch.Generator().manual_seed(0)
    before = noise.get_state()
    data.states(data.examples("train"), noise)
    assert noise.get_state().equal(before)


def test_smoothing_of_binary_states_is_refused(grey):
    with pytest.raises(
        ConfigurationError,
        match=r"data.noise = 0.1 cannot be added to binary states \(data.binarize = 'threshold'\)",
    ):
        Folder(path=str(grey), noise=0.1, binarize="threshold")


def test_threshold_is_at_the_middle(grey):
    data = prepared(Folder(path=str(grey), binarize="threshold"))
    assert states(data, torch.tensor([[0, 127, 128, 255]], dtype=torch.uint8)).tolist() == [[0, 0, 1, 1]]
    assert (data.info.support, data.info.bins) == ("binary", None)


def test_stochastic_binarization_follows_the_grey_level(grey):
    # 20,000 draws of each of 11 levels at z < 4.5; fails once in 10,000 seeds.
    data = prepared(Folder(path=str(grey), binarize="stochastic"))
    levels = torch.tensor([0, 15, 40, 65, 90, 115, 140, 165, 190, 240, 255], dtype=torch.uint8)
    drawn = states(data, levels.expand(20_000, 11))
    share = levels / 255
    assert ((drawn.mean(0) - share).abs() <= 4.5 * (share * (1 - share) / 20_000).sqrt()).all()
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(drawn, states(data, levels.expand(20_000, 11), seed=1))
    assert data.info.support == "binary"


def test_fingerprint_changes_with_pixels_and_preprocessing(grey):
    options = [
        {},
        {"size": 16},
        {"binarize": "threshold"},
        {"dequantize": False},
        {"grayscale": False},
        {"noise": 0.1},
    ]
    prints = {prepared(Folder(path=str(grey), **option)).info.fingerprint for option in options}
    (grey / "007.png").write_bytes(encode(picture(99, 32, 32)))
    prints.add(prepared(Folder(path=str(grey))).info.fingerprint)
    assert len(prints) == 7
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in prints)
