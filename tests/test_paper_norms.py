"""Norms of their own for each level: against one torch norm a level, in training, evaluation, and with mixed rows."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from tests.toy.learned import shaken
from tests.toy.paper import (
    bernoulli_conv,
    bernoulli_mlp,
    bernoulli_plain_mlp,
    gaussian_conv,
    gaussian_mlp,
    gaussian_plain_mlp,
)
from tests.toy.statistics import normal
from torch import Tensor, nn

from walkback.levels import stack_levels
from walkback.networks import Told
from walkback.schedules import Level, levels_from
from walkback.state import Space
from walkback_networks.level import LevelInput, LevelOptions
from walkback_networks.norms import LevelBatchNorm, LevelGroupNorm

LEVELS, CHANNELS = 4, 3
SHAPES = [(CHANNELS,), (CHANNELS, 2, 5)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def numbers(*values: int) -> Tensor:
    return torch.tensor(values)


def reference(norm: LevelBatchNorm, shape: tuple[int, ...]) -> list[nn.Module]:
    """A torch norm for each level, with that level's weights."""
    kind = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
    norms: list[nn.Module] = []
    for weight, bias in zip(norm.weight.detach(), norm.bias.detach(), strict=True):
        own = kind(CHANNELS).double()
        with torch.no_grad():
            own.weight.copy_(weight)
            own.bias.copy_(bias)
        norms.append(own)
    return norms


def check_same(norm: LevelBatchNorm, norms: list[Any]) -> None:
    """Statistics, and gradients (zero where a torch norm has none)."""
    for level, own in enumerate(norms):
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(getattr(norm, name)[level], getattr(own, name))
        for name in ("weight", "bias"):
            mine, other = getattr(norm, name).grad, getattr(own, name).grad
            if mine is not None:
                torch.testing.assert_close(
                    mine[level], torch.zeros(CHANNELS).double() if other is None else other
                )


@every_shape
def test_levels_one_by_one_are_norms_of_their_own(shape: tuple[int, ...]) -> None:
    """Six batches at levels 0, 2, 2, 3, 0, 2: outputs, gradients to the input and to weights, running statistics."""
    norm = shaken(LevelBatchNorm(CHANNELS, LEVELS))
    norms = reference(norm, shape)
    for seed, level in enumerate([0, 2, 2, 3, 0, 2]):
        x, y = (normal(7, *shape, seed=seed).mul_(level + 1).add_(level).requires_grad_() for _ in range(2))
        mine, other = norm(x, numbers(level)), norms[level](y)
        torch.testing.assert_close(mine, other)
        slope = normal(7, *shape, seed=50 + seed)
        mine.backward(slope)
        other.backward(slope)
        torch.testing.assert_close(x.grad, y.grad)
    check_same(norm, norms)
    for level in (0, 2, 3):
        x = normal(5, *shape, seed=9)
        torch.testing.assert_close(norm.eval()(x, numbers(level)), norms[level].eval()(x))


@every_shape
@pytest.mark.parametrize("training", [True, False])
def test_mixed_rows_meet_the_rows_of_their_own_level(shape: tuple[int, ...], training: bool) -> None:
    """Rows at levels 2, 0, 3 in any order, twice: each as its own norm makes it from the rows of its level alone."""
    norm = shaken(LevelBatchNorm(CHANNELS, LEVELS))
    norms = reference(norm, shape)
    level = numbers(2, 0, 2, 3, 0, 0, 3, 2, 2)
    for seed in (0, 1):  # in evaluation, the first pass gives the statistics
        norm.train(training or seed == 0)
        x, y = (normal(9, *shape, seed=seed).mul_(2).add_(1).requires_grad_() for _ in range(2))
        mine, other = norm(x, level), torch.zeros(9, *shape, dtype=torch.float64)
        for own in (0, 2, 3):
            norms[own].train(training or seed == 0)
            other = other.index_add(0, (level == own).nonzero().flatten(), norms[own](y[level == own]))
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
        slope = normal(9, *shape, seed=50)
        mine.backward(slope)
        other.backward(slope)
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-8, atol=1e-9)
    check_same(norm, norms)


@every_shape
def test_gradients_of_mixed_rows_by_finite_differences(shape: tuple[int, ...]) -> None:
    norm = shaken(LevelBatchNorm(CHANNELS, LEVELS))
    x = normal(6, *shape).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, *_: norm(x, numbers(1, 0, 1, 0, 0, 1)), (x, norm.weight, norm.bias)
    )


@every_shape
def test_one_level_may_be_said_once_or_for_every_row(shape: tuple[int, ...]) -> None:
    first = shaken(LevelBatchNorm(CHANNELS, LEVELS))
    second, x = copy.deepcopy(first), normal(6, *shape)
    for training in (True, True, False):
        once = first.train(training)(x, numbers(1))
        each = second.train(training)(x, numbers(1, 1, 1, 1, 1, 1))
        torch.testing.assert_close(once, each)
    for name, buffer in first.named_buffers():
        torch.testing.assert_close(buffer, second.get_buffer(name))


def test_a_level_that_was_never_met_uses_the_nearest() -> None:
    """Met: 1 and 3 of seven. The colder of two that are equally near; weights and statistics both."""
    norm = shaken(LevelBatchNorm(CHANNELS, 7))
    for level in (1, 3):
        norm(normal(6, CHANNELS, seed=level) + level, numbers(level))
    norm.eval()
    x = normal(6, CHANNELS, seed=9)
    results = [norm(x, numbers(level)) for level in range(7)]
    for level, nearest in enumerate([1, 1, 1, 3, 3, 3, 3]):
        assert results[level].equal(results[nearest]), level
    assert not results[1].equal(results[3])
    mixed = norm(x, numbers(0, 1, 2, 4, 5, 6))
    expected = torch.stack([results[level][row] for row, level in enumerate([1, 1, 1, 3, 3, 3])])
    torch.testing.assert_close(mixed, expected)


def test_a_new_norm_evaluates_as_a_new_torch_norm() -> None:
    x = normal(6, CHANNELS)
    torch.testing.assert_close(
        LevelBatchNorm(CHANNELS, 3).double().eval()(x, numbers(2)),
        nn.BatchNorm1d(CHANNELS).double().eval()(x),
    )


@every_shape
@pytest.mark.parametrize("groups", [1, 3])
def test_norms_of_rows_have_the_weights_of_their_level(shape: tuple[int, ...], groups: int) -> None:
    norm, x, level = (
        shaken(LevelGroupNorm(groups, CHANNELS, LEVELS)),
        normal(5, *shape),
        numbers(3, 0, 1, 3, 2),
    )
    for row, (own, result) in enumerate(zip(level, norm(x, level), strict=True)):
        torch_norm = nn.GroupNorm(groups, CHANNELS).double()
        torch_norm.load_state_dict({"weight": norm.weight.detach()[own], "bias": norm.bias.detach()[own]})
        torch.testing.assert_close(result, torch_norm(x)[row])
        torch.testing.assert_close(norm(x, own[None])[row], result)


@pytest.mark.parametrize(
    ("per_doubling", "temperatures", "expected"),
    [
        (1.0, [1.0, 1.3, 1.5, 2.0, 4.0, 1024.0], [0, 0, 1, 1, 2, 5]),
        (2.0, [1.0, 2**0.5, 2.0, 2.9, 3000.0, 0.25], [0, 1, 2, 3, 5, 0]),
        (0.5, [1.0, 2.1, 4.0, 16.0], [0, 1, 1, 2]),
    ],
)
def test_the_set_of_a_temperature(
    per_doubling: float, temperatures: list[float], expected: list[int]
) -> None:
    """round(d log2 T), held within six sets."""
    level = LevelInput(LevelOptions("none", 6, per_doubling))
    features = level(Told(torch.tensor(temperatures).log2()))
    assert features.embedding is None
    assert features.norms is not None
    assert features.norms.tolist() == expected


REAL, BITS = Space((1, 5, 6)), Space((1, 5, 6), "binary")
SMALL: dict[str, Any] = {"conditioning": "none", "level_norms": 5}
OPERATORS: dict[str, Any] = {
    "gaussian-mlp": lambda **o: gaussian_mlp(REAL, hidden=8, depth=1, **o),
    "gaussian-plain": lambda **o: gaussian_plain_mlp(REAL, hidden=(8, 6), **o),
    "gaussian-plain-layer": lambda **o: gaussian_plain_mlp(REAL, hidden=(8, 6), norm="layer", **o),
    **{
        f"gaussian-conv-{norm}": lambda norm=norm, **o: gaussian_conv(
            REAL, channels=(4, 6), hidden=8, norm=norm, **o
        )
        for norm in ("table", "batch", "layer", "group")
    },
    "bernoulli-mlp": lambda **o: bernoulli_mlp(BITS, hidden=8, depth=1, **o),
    "bernoulli-plain": lambda **o: bernoulli_plain_mlp(BITS, hidden=(8, 6), **o),
    "bernoulli-conv": lambda **o: bernoulli_conv(BITS, channels=(4, 6), hidden=8, **o),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", OPERATORS)
def test_a_stacked_update_treats_levels_as_one_by_one(name: str, training: bool) -> None:
    """log p of rows at three levels, its gradient, and the statistics, as by three calls."""
    together = shaken(OPERATORS[name](**SMALL), size=0.2)
    alone = copy.deepcopy(together)
    levels = levels_from([1.0, 2.0, 8.0])
    x = (normal(12, 1, 5, 6) > 0).double()
    for pass_training in (True, training):
        stacked = stack_levels(levels, 4, torch.device("cpu"))
        whole = together.train(pass_training)(x, stacked).cooling(stacked).log_prob(x.flip(0))
        parts = [
            alone.train(pass_training)(rows, level).cooling(level).log_prob(target)
            for rows, target, level in zip(x.split(4), x.flip(0).split(4), levels, strict=True)
        ]
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-8, atol=1e-8)
    whole.sum().backward()
    torch.cat(parts).sum().backward()
    for one, other in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-8)
    for one, other in zip(together.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", OPERATORS)
def test_sets_of_norms_tell_levels_apart(name: str) -> None:
    """Without any other input, the kernels' means differ between levels that have sets of their own, and only there."""
    operator, x = shaken(OPERATORS[name](**SMALL), size=0.2), (normal(6, 1, 5, 6) > 0).double()
    temperatures = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    with torch.no_grad():
        for level in levels_from(temperatures):
            operator(x + level.step, level)
        outputs = [
            operator.eval().network(x, Told(torch.tensor([t]).double().log2()))[0] for t in temperatures
        ]
    same = [first.equal(second) for first, second in pairwise(outputs)]
    assert same == [False] * 4 + [True]


def test_statistics_of_levels_travel_with_the_weights() -> None:
    trained, restored = (shaken(OPERATORS["gaussian-plain"](**SMALL), seed=s) for s in (0, 1))
    level, x = Level(2, 4.0), normal(6, 1, 5, 6)
    trained(x, level)
    restored.load_state_dict(trained.state_dict())
    densities = [m.eval()(x, level).cooling(level).log_prob(x) for m in (trained, restored)]
    assert densities[0].equal(densities[1])
