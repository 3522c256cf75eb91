"""Tensors as data: images whose channels are last, masks, and what is no tensor."""

from __future__ import annotations

import pytest
import torch
from tests.toy.statistics import normal
from torch import Tensor

import walkback as wb
from walkback.data.tensors import TensorData
from walkback.errors import ConfigurationError, DataError


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "rows",
    [
        noise(100, 16, 16, 3).to(torch.uint8),
        noise(100, 16, 12, 1).to(torch.uint8),
        noise(100, 16, 12, 4).to(torch.uint8),
        noise(100, 16, 16, 1) > 100,
        noise(100, 16, 16, 3) / 255,
        noise(100, 16, 16, 3) / 127.5 - 1,
        noise(100, 16, 16, 3).float(),
    ],
)
def test_images_whose_channels_are_last_are_refused_in_a_sentence(rows: Tensor) -> None:
    with pytest.raises(DataError) as caught:
        wb.train("gaussian-conv", data=rows, steps=1)
    assert str(caught.value) == (
        f"Got a tensor of shape {tuple(rows.shape)} as data, which look like images with their channels last, expected "
        "(N, C, H, W): pass data.permute(0, 3, 1, 2), or data.flatten(1) if they are no images."
    )
    assert TensorData(rows.permute(0, 3, 1, 2)).info.shape == (rows.shape[3], *rows.shape[1:3])
    assert TensorData(rows.flatten(1)).info.shape == (rows[0].numel(),)


@pytest.mark.parametrize(
    "rows",
    [
        noise(20, 3, 16, 3).to(torch.uint8),
        noise(20, 1, 16, 4).to(torch.uint8),
        noise(20, 3, 3, 3).to(torch.uint8),
        noise(20, 16, 16).to(torch.uint8),
        noise(20, 2, 16, 16).to(torch.uint8),
        normal(20, 8, 8, 3),
    ],
)
def test_other_shapes_are_taken_as_they_are(rows: Tensor) -> None:
    assert TensorData(rows).info.shape == tuple(rows.shape[1:])


def test_masks_of_0_and_1_have_two_levels() -> None:
    masks = (noise(50, 1, 4, 4) > 127).to(torch.uint8)
    data = TensorData(masks)
    assert data.info.bins == 2
    rows = data.examples("train")
    states = data.states(rows, torch.Generator().manual_seed(0))
    assert torch.equal((states * 2).floor(), rows.float())
    assert data.info.fingerprint != TensorData(masks * 2).info.fingerprint
    assert TensorData(masks * 2).info.bins == 256


def test_objects_that_are_no_rows_are_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"Got a list as data, .* a pandas DataFrame or a datasets.Dataset"
    ):
        wb.train("gaussian-mlp", data=[[1.0, 2.0]] * 20, steps=1)
