"""Pictures of what an operator does: the mean step at T = 1 as arrows, walks up and down."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from PIL import Image
from tests.program import cells
from tests.test_tuple_state import Mixed
from tests.toy.exact import Pair, Toy, filled, flips, gaussian, model, rotation
from tests.toy.statistics import LIMIT, normal, rng
from torch import Tensor

from walkback.data import Batch, DataInfo
from walkback.kernels import BernoulliKernel, Kernel, NormalKernel, ProductKernel
from walkback.operators import Conditional, Latent, TransitionOperator
from walkback.pictures.field import GRID, draw_field, grid_points, mean_step
from walkback.pictures.images import Picture, filmstrip, quiver, to_uint8
from walkback.pictures.walks import IMAGES, draw_walk, steps_shown
from walkback.sampling import anneal
from walkback.schedules import Level, levels_from
from walkback.state import Context, Space, State, StateSpace, leaves
from walkback.walk import Start

POINTS = DataInfo("points", (2,))


def blue(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that have the colour of arrows."""
    return np.nonzero(picture[..., 2].astype(int) - picture[..., 0] > 60)


# --- the mean step


def test_the_mean_step_of_a_normal_kernel_is_exact() -> None:
    points, angle = normal(7, 2), 0.3
    turn = 0.9 * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = points @ turn.double().T - points
    assert mean_step(rotation(0.9, angle), points, rng()).sub(expected).abs().max() < 1e-7


@final
class Hidden(Kernel):
    """A kernel that does not tell its mean."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def sample(self, generator: torch.Generator) -> State:
        return self._kernel.sample(generator)

    def log_prob(self, state: State) -> Tensor:
        return self._kernel.log_prob(state)


def test_the_mean_step_of_other_kernels_is_estimated() -> None:
    """10,000 samples a point, of a kernel with standard deviation 0.5: |z| < 4.5."""

    def conditional(state: Tensor) -> Conditional:
        return Pair(
            lambda level: Hidden(
                NormalKernel(0.5 * state + 1, filled(0.25 * float(level.temperature), state))
            )
        )

    points = normal(6, 2)
    z = (mean_step(Toy(conditional), points, rng(), 10_000) - (1 - 0.5 * points)) / (0.5 / 100)
    assert z.abs().max() < LIMIT


def test_the_mean_step_of_bits_is_exact() -> None:
    """P(1 | 0) = 0.2 and P(0 | 1) = 0.4; nothing is drawn."""
    noise = rng()
    before = noise.get_state()
    step = mean_step(flips(0.2, 0.4), torch.tensor([[0.0, 1.0]], dtype=torch.float64), noise)
    torch.testing.assert_close(step, torch.tensor([[0.2, -0.4]], dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert noise.get_state().equal(before)


@final
class Leaning(TransitionOperator, Latent):
    """x' ~ N(x + h, 0.01), h' a fair bit; h_0 is 1 with probability 3/4."""

    @property
    def max_temperature(self) -> float:
        return 2.0

    @property
    def state_space(self) -> StateSpace:
        return Space((2,)), Space((1,), "binary")

    def initial_state(self, data: Tensor, generator: torch.Generator) -> tuple[State, Tensor]:
        kernel = BernoulliKernel(data.new_full((len(data), 1), math.log(3)))
        (bit,) = leaves(kernel.sample(generator))
        return (data, bit), kernel.log_prob(bit)

    def visible(self, state: State) -> Tensor:
        return leaves(state)[0]

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        point, bit = leaves(state)
        return Pair(
            lambda _: ProductKernel(
                [NormalKernel(point + bit, filled(0.01, point)), BernoulliKernel(0 * bit)]
            )
        )


def test_latent_units_are_averaged_over() -> None:
    """E[s' - s] = E[h_0] = 3/4; variance 3/16 a draw of h_0, 10,000 draws, |z| < 4.5."""
    found = mean_step(Leaning(), normal(4, 2), rng(), 10_000)
    assert ((found - 0.75) / math.sqrt(3 / 16 / 10_000)).abs().max() < LIMIT
    assert found.sub(found[:, :1]).abs().max() < 1e-5  # the step's own noise, 0.001 of a mean, is not drawn
    assert mean_step(Mixed().eval(), (normal(3, 2, 3) > 0).float(), rng(), 2).shape == (3, 2, 3)


# --- arrows


def test_the_grid_has_the_middles_of_equal_squares() -> None:
    points = grid_points((-1.0, 2.0, 4.0), 2)
    assert sorted(points.tolist()) == [[0.0, 3.0], [0.0, 5.0], [2.0, 3.0], [2.0, 5.0]]


@pytest.mark.parametrize("arrow", [(0.5, 0.0), (-0.25, 0.25), (0.0, -0.4)])
def test_an_arrow_lies_between_its_ends_with_y_upwards(arrow: tuple[float, float]) -> None:
    tail = np.array([0.5, 0.5])
    picture = quiver(
        torch.tensor([[0.5, 0.5]]), torch.tensor([arrow]), torch.zeros(0, 2), (0.0, 0.0, 1.0), 480
    )
    rows, columns = blue(picture)
    found = np.stack([(columns - 30 + 0.5) / 420, 1 - (rows - 30 + 0.5) / 420], 1)  # back to the plane
    length = math.hypot(*arrow)
    along = (found - tail) @ np.array(arrow) / length
    across = (found - tail) @ np.array([-arrow[1], arrow[0]]) / length
    assert along.min() == pytest.approx(0, abs=0.01)
    assert along.max() == pytest.approx(length, abs=0.01)
    assert np.abs(across).max() < 0.02
    # The head is at the far end: it is wider than the shaft.
    assert np.abs(across[along > length - 0.03]).max() > 1.5 * np.abs(across[along < length / 2]).max()


def test_arrows_that_are_not_finite_or_start_outside_are_left_out() -> None:
    tails = torch.tensor([[0.5, 0.5], [3.0, 0.5], [0.2, 0.2]])
    arrows = torch.tensor([[math.nan, 0.0], [0.1, 0.1], [math.inf, 0.0]])
    empty = quiver(tails[:0], arrows[:0], torch.zeros(0, 2), (0.0, 0.0, 1.0))
    assert (quiver(tails, arrows, torch.zeros(0, 2), (0.0, 0.0, 1.0)) == empty).all()


def drawn(operator: TransitionOperator, path: Path) -> Picture:
    draw_field(path, operator, DataInfo("points", (2,)), normal(50, 2), rng(), {"seed": 1})
    with Image.open(path) as image:
        assert json.loads(image.info["walkback"]) == {"seed": 1}
        return np.asarray(image)


def test_all_arrows_of_a_field_have_one_scale(tmp_path: Path) -> None:
    """A constant drift to the right: arrows of 0.9 times their distance, 560 / 24 pixels, row above row."""
    steady = Toy(lambda s: Pair(lambda _: NormalKernel(s + s.new_tensor([0.01, 0.0]), filled(0.1, s))))
    rows, columns = blue(drawn(steady, tmp_path / "field.png"))
    filled_columns = np.unique(columns)
    step = 560 / GRID
    assert len(filled_columns) / 560 == pytest.approx(0.92, abs=0.06)
    assert len(np.unique(rows)) < 0.6 * 560
    gaps = np.diff(filled_columns)
    assert (gaps > 1).sum() == pytest.approx(GRID - 1, abs=1)
    assert filled_columns.min() - 40 == pytest.approx(step / 2, abs=4)


@pytest.mark.parametrize("drift", [0.0, math.nan])
def test_a_field_without_drift_is_drawn(tmp_path: Path, drift: float) -> None:
    still = Toy(lambda s: Pair(lambda _: NormalKernel(s + drift, filled(0.1, s))))
    rows, _ = blue(drawn(still, tmp_path / "field.png"))
    assert (len(rows) > 0) == (drift == 0.0)


# --- walks


@pytest.mark.parametrize("num_steps", [0, 1, 5, 7, 8, 14, 30, 200])
def test_the_steps_shown_are_spread_from_the_first_to_the_last(num_steps: int) -> None:
    shown = steps_shown(num_steps)
    assert (shown[0], shown[-1], len(shown)) == (0, num_steps, min(8, num_steps + 1))
    gaps = np.diff(shown)
    assert (gaps >= 1).all()
    assert np.ptp(gaps) <= 1 if len(gaps) else True


def test_the_walk_of_images_shows_heated_ones_above_cooled_ones(tmp_path: Path) -> None:
    """Every cell is the state of its step, computed here from the walk itself with the same noise."""
    size, num_steps = 16, 9
    mean, variance = torch.full((size,), 0.5).double(), torch.full((size,), 0.1).double()
    operator = Toy(
        lambda s: Pair(
            lambda level: NormalKernel(0.5 + 0.9 * (s - 0.5), filled(0.01 * float(level.temperature), s))
        )
    )
    levels = levels_from([2.0**k for k in range(num_steps)])
    prior = gaussian(mean.reshape(1, 4, 4), variance.reshape(1, 4, 4))
    system, info = model(operator, prior, levels), DataInfo("images", (1, 4, 4))
    data = 0.5 + 0.2 * normal(10, 1, 4, 4)
    draw_walk(tmp_path / "walk.png", system, info, Batch(data), rng(3), {"seed": 3})

    noise, start = rng(3), data[:IMAGES]
    heated = [start, *(leaves(s.target)[0] for s in system.walk(Start(start), levels, noise))]
    cooled = [leaves(state)[0] for state in anneal(operator, prior, levels, IMAGES, noise)]
    shown = steps_shown(num_steps)
    with Image.open(tmp_path / "walk.png") as image:
        pixels = np.asarray(image)
    height = len(filmstrip(torch.stack([heated[t] for t in shown])))
    titles = [2 * 12, 12]  # lines of 12 pixels: step and temperature, and the step alone
    assert len(pixels) == height + height + sum(titles) + 12
    for header in (pixels[: titles[0]], pixels[-height - titles[1] : -height]):
        ink = (header < 64).any(0)  # by column of pixels
        width = (pixels.shape[1] - 4) / len(shown)
        assert all(ink[round(4 + i * width) : round((i + 1) * width)].any() for i in range(len(shown)))
    for part, states in (
        (pixels[titles[0] : titles[0] + height], [heated[t] for t in shown]),
        (pixels[-height:], [cooled[num_steps - t] for t in reversed(shown)]),
    ):
        Image.fromarray(part).save(tmp_path / "half.png")
        grid = cells(tmp_path / "half.png", IMAGES, len(shown))
        scale = grid.shape[2] // 4
        for column, state in enumerate(states):
            assert (grid[:, column, ::scale, ::scale] == to_uint8(state)).all()


def test_the_walk_of_points_spreads_above_and_shrinks_below(tmp_path: Path) -> None:
    """Panels of 200 pixels; the cloud of a random walk grows from left to right, and is cooled again."""
    spread = Toy(
        lambda s: Pair(lambda level: NormalKernel(0.7 * s, filled(0.3 * float(level.temperature), s)))
    )
    levels = levels_from([2.0**k for k in range(7)])
    prior = gaussian(torch.zeros(2).double(), torch.full((2,), 36.0).double())
    draw_walk(
        tmp_path / "walk.png", model(spread, prior, levels), POINTS, Batch(0.1 * normal(200, 2)), rng(), {}
    )
    with Image.open(tmp_path / "walk.png") as image:
        assert image.size == (4 + 8 * 204, 4 + 2 * 204)
        pixels = np.asarray(image)
    spreads = [
        [
            np.std(blue(pixels[4 + 204 * row : 204 + 204 * row, 4 + 204 * k : 204 + 204 * k])[0])
            for k in range(8)
        ]
        for row in range(2)
    ]
    assert spreads[0] == sorted(spreads[0])
    assert spreads[1][0] > 3 * spreads[1][-1]
