"""Pictures: every pixel where it belongs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from walkback.data import DataInfo
from walkback.pictures.images import (
    Picture,
    filmstrip,
    grid,
    save_png,
    scatter,
    tile,
    to_uint8,
    window_of,
)
from walkback.pictures.states import draw_states

BYTES = torch.arange(256).reshape(1, 1, 16, 16)


def random_images(num: int, channels: int, side: int) -> torch.Tensor:
    return torch.rand(num, channels, side, side, generator=torch.Generator().manual_seed(0))


def blue(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that have the colour of points."""
    return np.nonzero(picture[..., 2].astype(int) - picture[..., 0] > 60)


@pytest.mark.parametrize(
    "states",
    [BYTES / 255, BYTES / 256, (BYTES + 0.5) / 256, (BYTES + 0.99) / 256],
    ids=["v/255", "v/256", "middle", "top"],
)
def test_scaled_and_dequantized_bytes_come_back(states: torch.Tensor) -> None:
    assert to_uint8(states).tolist() == BYTES.permute(0, 2, 3, 1).tolist()


def test_values_outside_the_unit_interval_are_clipped() -> None:
    values = torch.tensor([-1.0, 0.0, 1.0, 2.0, math.inf, -math.inf, math.nan]).reshape(1, 1, 1, 7)
    assert to_uint8(values).flatten().tolist() == [0, 0, 255, 255, 255, 0, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_of_a_grid_is_in_its_cell(channels: int) -> None:
    images = random_images(5, channels, 4)
    picture = grid(images, columns=3, pad=2, scale=3)
    assert picture.shape == (2 + 2 * 14, 2 + 3 * 14, channels)
    pixels = to_uint8(images)
    for index in range(5):
        y, x = 2 + index // 3 * 14, 2 + index % 3 * 14
        cell = picture[y : y + 12, x : x + 12]
        assert (cell == np.kron(pixels[index], np.ones((3, 3, 1), np.uint8))).all()


def test_nothing_else_is_drawn() -> None:
    picture = grid(torch.ones(5, 1, 4, 4), columns=3, pad=2, scale=1)
    assert (picture == 255).sum() == 5 * 16
    assert set(np.unique(picture)) == {128, 255}


@pytest.mark.parametrize("side", [8, 16, 28, 32, 64])
def test_grids_of_64_images_have_a_readable_width(side: int) -> None:
    height, width, _ = grid(torch.zeros(64, 1, side, side)).shape
    assert height == width
    assert 500 <= width <= 900


def test_images_larger_than_a_cell_are_not_enlarged() -> None:
    assert tile(np.zeros((1, 200, 300, 3), np.uint8)).shape == (208, 308, 3)


def test_a_filmstrip_has_a_row_for_each_chain() -> None:
    frames = torch.arange(6.0).reshape(3, 2, 1, 1, 1) / 6
    strip = filmstrip(frames, pad=0, scale=1)
    assert strip[..., 0].tolist() == to_uint8(frames.flatten(0, 1)).reshape(3, 2).T.tolist()


def test_points_are_drawn_to_scale_with_y_upwards() -> None:
    for x, y in [(0.0, 0.0), (0.5, 0.25), (0.9, 0.9)]:
        rows, columns = blue(scatter(torch.tensor([[x, y]]), window=(0.0, 0.0, 1.0), size=480))
        assert columns.mean() == pytest.approx(30 + 420 * x, abs=1)
        assert rows.mean() == pytest.approx(480 - 30 - 420 * y, abs=1)


def test_both_axes_have_the_same_scale() -> None:
    angle = torch.linspace(0, 2 * math.pi, 1000)
    rows, columns = blue(scatter(torch.stack([3 + angle.cos(), angle.sin()], 1)))
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1
    assert np.ptp(rows) > 350


def test_the_window_holds_the_reference_and_counts_what_it_misses() -> None:
    reference = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert window_of(reference) == pytest.approx((-0.05, -0.05, 1.1))
    inside = scatter(torch.tensor([[0.5, 0.5]]), reference)
    outside = scatter(torch.tensor([[0.5, 0.5], [1e30, 0.0], [math.nan, 0.0]]), reference)
    differs = (inside != outside).any(-1)
    assert differs[:30].any()
    assert not differs[30:].any()


@pytest.mark.parametrize("points", [torch.zeros(0, 2), torch.full((3, 2), math.nan), torch.ones(2, 2)])
def test_odd_clouds_are_drawn(points: torch.Tensor) -> None:
    assert scatter(points, size=100).shape == (100, 100, 3)


def test_states_are_drawn_as_suits_their_data() -> None:
    images, points = random_images(4, 3, 8), torch.rand(5, 2, generator=torch.Generator().manual_seed(0))
    assert (draw_states(images, DataInfo("a", (3, 8, 8))) == grid(images)).all()
    assert (draw_states(points, DataInfo("b", (2,))) == scatter(points)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_picture_and_its_protocol(tmp_path: Path, channels: int) -> None:
    picture = to_uint8(random_images(1, channels, 9))[0]
    save_png(tmp_path / "a.png", picture, {"seed": 1, "name": "σ"})
    save_png(tmp_path / "b.png", picture, {"name": "σ", "seed": 1})
    with Image.open(tmp_path / "a.png") as image:
        assert (np.asarray(image).reshape(picture.shape) == picture).all()
        assert json.loads(image.text["walkback"]) == {"seed": 1, "name": "σ"}
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
