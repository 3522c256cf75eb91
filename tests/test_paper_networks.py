"""The paper's networks: the layers of its tables, sizes of images, and how the temperature enters."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest
import torch
from tests.toy.learned import shaken
from tests.toy.statistics import normal
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback_paper.networks.conditioning import EMBEDDING, FiLM, TemperatureEmbedding
from walkback_paper.networks.conv import ConvEncoderDecoder
from walkback_paper.networks.mlp import ResidualMLP

Table: TypeAlias = tuple[tuple[int, int, int], list[tuple[int, int]], tuple[int, int], list[tuple[int, int]]]
"""Image, convolutions, (flat, width) of the bottleneck, transposed convolutions."""

TABLES: dict[str, Table] = {
    "Table 2, MNIST": ((1, 28, 28), [(1, 16), (16, 32)], (1568, 1024), [(32, 16), (16, 1)]),
    "Table 3, CelebA": (
        (3, 64, 64),
        [(3, 64), (64, 128), (128, 256)],
        (16384, 1024),
        [(256, 128), (128, 64), (64, 3)],
    ),
    "Table 4, CIFAR-10": (
        (3, 32, 32),
        [(3, 64), (64, 128), (128, 256)],
        (4096, 2048),
        [(256, 128), (128, 64), (64, 3)],
    ),
}


def conv(shape: tuple[int, ...], **options: Any) -> ConvEncoderDecoder:
    defaults = {"heads": 2, "channels": (4, 6), "width": 8, "norm": "batch", "conditioned": True}
    return ConvEncoderDecoder(shape, **{**defaults, **options})


def mlp(shape: tuple[int, ...], **options: Any) -> ResidualMLP:
    defaults = {"heads": 2, "width": 8, "depth": 2, "dropout": 0.0, "conditioned": True}
    return ResidualMLP(shape, **{**defaults, **options})


def logs(*temperatures: float) -> Tensor:
    return torch.tensor(temperatures, dtype=torch.float64).log2()


@pytest.mark.parametrize("name", TABLES)
def test_layers_are_those_of_the_table(name: str) -> None:
    """Shared encoder and three fully connected layers; two of those and the transposed convolutions for each head."""
    shape, convolutions, (flat, width), transposed = TABLES[name]
    with torch.device("meta"):
        network = conv(shape, channels=None, width=None, conditioned=False)
    modules = list(network.modules())
    down = [m for m in modules if isinstance(m, nn.Conv2d)]
    up = [m for m in modules if isinstance(m, nn.ConvTranspose2d)]
    dense = [(m.in_features, m.out_features) for m in modules if isinstance(m, nn.Linear)]
    assert [(m.in_channels, m.out_channels) for m in down] == convolutions
    assert [(m.in_channels, m.out_channels) for m in up] == 2 * transposed
    assert dense == [(flat, width), (width, width), (width, width)] + 2 * [(width, width), (width, flat)]
    assert {(m.kernel_size, m.stride) for m in (*down, *up)} == {((5, 5), (2, 2))}


def test_the_celeba_network_has_the_published_size() -> None:
    with torch.device("meta"):
        network = conv((3, 64, 64), channels=None, width=None, conditioned=False)
    assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(57.7e6, rel=2e-3)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 7, 9), (2, 1, 1), (3, 5, 2), (1, 28, 28)])
def test_every_size_of_image_comes_back(shape: tuple[int, ...], norm: str) -> None:
    for depth in (1, 2, 3):
        network = shaken(conv(shape, channels=(4,) * depth, norm=norm)).eval()
        outputs = network(normal(3, *shape), logs(1.0, 2.0, 4.0))
        assert [output.shape for output in outputs] == [(3, *shape)] * 2
        assert all(bool(output.any()) for output in outputs)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_rows_do_not_meet_in_evaluation(norm: str) -> None:
    network, x = shaken(conv((1, 8, 8), norm=norm)).eval(), normal(4, 1, 8, 8)
    together = network(x, logs(1.0))[0]
    alone = torch.cat([network(row[None], logs(1.0))[0] for row in x])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_group_norm_is_one_map_in_training_and_evaluation() -> None:
    network, x = shaken(conv((1, 8, 8), norm="group")), normal(4, 1, 8, 8)
    training = network.train()(x, logs(2.0))[0]
    assert training.equal(network.eval()(x, logs(2.0))[0])


@pytest.mark.parametrize("make", [conv, mlp])
@pytest.mark.parametrize("heads", [1, 2])
def test_heads_start_at_zero(make: Any, heads: int) -> None:
    outputs = make((1, 8, 8), heads=heads).double()(normal(4, 1, 8, 8), logs(2.0))
    assert len(outputs) == heads
    assert not any(bool(output.any()) for output in outputs)


@pytest.mark.parametrize("make", [conv, mlp])
def test_only_a_conditioned_network_has_weights_for_the_temperature(make: Any) -> None:
    x = normal(2, 1, 8, 8)
    for conditioned in (True, False):
        network = shaken(make((1, 8, 8), conditioned=conditioned)).eval()
        same = network(x, logs(1.0))[0].equal(network(x, logs(8.0))[0])
        weights = [name for name, _ in network.named_parameters() if "film" in name or "embedding" in name]
        assert same != conditioned
        assert bool(weights) == conditioned


def test_dropout_acts_in_training_only() -> None:
    network, x = shaken(mlp((6,), dropout=0.5)), normal(4, 6)
    first, second = (network.train()(x, logs(1.0))[0] for _ in range(2))
    assert not first.equal(second)
    assert network.eval()(x, logs(1.0))[0].equal(network(x, logs(1.0))[0])


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 4)])
@pytest.mark.parametrize("rows", [1, 5])
def test_film_scales_and_shifts_channels(shape: tuple[int, ...], rows: int) -> None:
    """(1 + a(e)) x + b(e), one pair a channel, one embedding for all rows or for each."""
    film, x, e = shaken(FiLM(3, conditioned=True)), normal(*shape), normal(rows, EMBEDDING, seed=1)
    assert film.affine is not None
    pairs = (e @ film.affine.weight.T + film.affine.bias).reshape(rows, 2, 3, *(1,) * (len(shape) - 2))
    torch.testing.assert_close(film(x, e), (1 + pairs[:, 0]) * x + pairs[:, 1], rtol=1e-12, atol=1e-12)


def test_a_new_film_changes_nothing() -> None:
    film, x = FiLM(3, conditioned=True).double(), normal(5, 3)
    assert film(x, normal(1, EMBEDDING)).equal(x)
    assert film(x, None).equal(x)
    assert not list(FiLM(3, conditioned=False).parameters())


def test_temperatures_are_told_apart() -> None:
    """Thirty doublings and the steps between them: no two embeddings are alike."""
    embedding = shaken(TemperatureEmbedding())
    features = embedding(torch.arange(0, 30, 0.25, dtype=torch.float64))
    distances = torch.cdist(features, features) + torch.eye(len(features))
    assert features.shape == (120, EMBEDDING)
    assert distances.min().item() > 1e-3


@pytest.mark.parametrize("shape", [(4,), (4, 4), (1, 2, 3, 4)])
def test_convolutions_need_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="choose image data"):
        conv(shape)
