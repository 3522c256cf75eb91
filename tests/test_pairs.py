"""Pair plots and projections of states of any shape, held to closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from walkback.data import DataInfo
from walkback.data.standardization import Standardization
from walkback.pictures.pairs import pairs
from walkback.pictures.planes import Directions, Plane
from walkback.pictures.states import draw_frames, draw_states

LIMIT = 4.5
"""Standard errors: a correct test fails with a probability of 7e-6."""


def normal(num: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_energy_of_gaussian_data_is_half_a_chi_square_whatever_the_units() -> None:
    mixing, scale = normal(5, 5, seed=1), torch.tensor([1e-4, 1.0, 7.0, 1e3, 1e6], dtype=torch.float64)
    data, fresh = (normal(2000, 5, seed=seed) @ mixing * scale + 3 * scale for seed in (2, 3))
    energy = Directions.of(data).energy(fresh)
    # E[½ χ²_5] = 5/2 with variance 5/2; the fitted moments of 2,000 rows add about as much.
    assert abs(float(energy.mean()) - 2.5) < LIMIT * (2 * 2.5 / 2000) ** 0.5
    assert abs(float(Directions.of(data).energy(data).mean()) - 2.5) < 1e-6


def test_components_are_uncorrelated_with_the_variances_that_are_told() -> None:
    data = normal(500, 6) @ normal(6, 6, seed=1)
    found = Directions.of(data)
    components = found.components(data)
    assert torch.allclose(components.T @ components / 500, torch.diag(found.variances), atol=1e-9)
    assert sum(found.shares) == pytest.approx(1)


def test_points_are_shown_as_they_are_and_named_columns_by_components() -> None:
    points = normal(50, 2)
    assert torch.equal(Plane.of(points, DataInfo("a", (2,))).points(points), points)
    table = DataInfo(
        "a", (2,), standardized=Standardization((0.0, 0.0), (1.0, 1.0), ("x", "y"), (False,) * 2)
    )
    assert "standardized" in Plane.of(points, table).label


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 2), (2, 8, 8), (1, 40), (1, 4, 4, 4)])
@pytest.mark.parametrize("num", [1, 2, 300])
def test_states_of_any_shape_are_drawn(shape: tuple[int, ...], num: int) -> None:
    info, values = DataInfo("a", shape), normal(num, *shape)
    for reference in (None, normal(100, *shape, seed=1)):
        assert draw_states(values, info, reference).std() > 0
    assert draw_frames(values[None].repeat(3, *(1,) * values.dim()), info, (0, 1, 2)).shape[2] == 3


def test_constant_columns_and_far_values_are_drawn() -> None:
    values = normal(100, 3)
    values[:, 1] = 5.0
    values[0, 0] = 1e12
    assert pairs(values, DataInfo("a", (3,))).std() > 0


def test_names_from_a_file_are_shortened() -> None:
    names = ("a" * 10_000, "b\n\x1b[31m", "質量")
    info = DataInfo("a", (3,), standardized=Standardization((0.0,) * 3, (1.0,) * 3, names, (False,) * 3))
    drawn = pairs(normal(50, 3), info, normal(50, 3, seed=1))
    assert drawn.shape[1] < 1200
    assert drawn.dtype == np.uint8


def test_samples_are_drawn_over_the_data_at_their_place() -> None:
    """A cloud far to the left of the data leaves the data's half of the histogram without blue."""
    data = torch.cat([normal(500, 2) * 0.1, normal(500, 2, seed=1) * 0.1 + 10])
    table = DataInfo(
        "a", (2,), standardized=Standardization((0.0, 0.0), (1.0, 1.0), ("x", "y"), (False,) * 2)
    )
    picture = pairs(data[:500], table, data).astype(int)
    blue = (picture[..., 2] - picture[..., 0] > 100).nonzero()
    below = blue[1][blue[0] > picture.shape[0] // 2]  # the lower row: the plane, and the second histogram
    plane = below[below < 26 + 220]
    assert plane.max() < 26 + 110
