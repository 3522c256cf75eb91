"""The paper's networks: the layers of its tables, sizes of images, and how the temperature enters."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from tests.toy.learned import shaken
from tests.toy.statistics import normal
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.networks import Ports, Told
from walkback_networks.conditioning import EMBEDDING, FiLM, Shift, TemperatureEmbedding, conditioner
from walkback_networks.encoder_decoder import ConvEncoderDecoder
from walkback_networks.layers import Layer
from walkback_networks.level import LevelOptions
from walkback_networks.mlp import ResidualMLP
from walkback_networks.plain import FullyConnected

BLIND = LevelOptions(conditioning="none")
NORMS = ["table", "batch", "layer", "group", "none"]


class Row(NamedTuple):
    """A row of a table: maps of a 5×5 convolution of stride 2, or "in * out" units; norm; nonlinearity."""

    operation: str
    units: int | tuple[int, int]
    norm: type[nn.Module] | None
    activation: type[nn.Module] | None


class Table(NamedTuple):
    """A table with the images it is for, and the activations that its rows must give."""

    image: tuple[int, int, int]
    width: int | None
    rows: list[Row]
    sizes: list[tuple[int, ...]]

    @property
    def convolutions(self) -> int:
        return sum(row.operation == "Convolution" for row in self.rows)

    @property
    def shared(self) -> int:
        """Rows that all heads share: the convolutions and three fully connected layers."""
        return self.convolutions + 3


def rows_of(maps: list[int], units: list[tuple[int, int]], image: int, grey: bool) -> list[Row]:
    """Convolutions of `maps`, five fully connected layers, and convolutions back to an image."""
    batch = nn.BatchNorm2d, nn.ReLU
    dense = (nn.LayerNorm, nn.LeakyReLU) if grey else (nn.BatchNorm1d, nn.ReLU)
    return [
        *(Row("Convolution", number, *batch) for number in maps),
        *(Row("Fully Connected", pair, *dense) for pair in units),
        *(Row("Strided Convolution", number, *batch) for number in maps[-2::-1]),
        Row("Strided Convolution", image, None, None),
    ]


def five(flat: int, width: int) -> list[tuple[int, int]]:
    return [(flat, width), *[(width, width)] * 3, (width, flat)]


RGB = [64, 128, 256]
TABLES = {
    "Table 2, MNIST": Table(
        (1, 28, 28),
        None,
        rows_of([16, 32], five(1568, 1024), 1, grey=True),
        [(16, 14, 14), (32, 7, 7), *[(1024,)] * 4, (1568,), (16, 14, 14), (1, 28, 28)],
    ),
    "Table 3, CelebA": Table(
        (3, 64, 64),
        None,
        rows_of(RGB, five(16384, 1024), 3, grey=False),
        [
            (64, 32, 32),
            (128, 16, 16),
            (256, 8, 8),
            *([(1024,)] * 4),
            (16384,),
            (128, 16, 16),
            (64, 32, 32),
            (3, 64, 64),
        ],
    ),
    "Table 4, CIFAR-10": Table(
        (3, 32, 32),
        None,
        rows_of(RGB, five(4096, 2048), 3, grey=False),
        [
            (64, 16, 16),
            (128, 8, 8),
            (256, 4, 4),
            *([(2048,)] * 4),
            (4096,),
            (128, 8, 8),
            (64, 16, 16),
            (3, 32, 32),
        ],
    ),
    "Table 5, SVHN": Table(
        (3, 32, 32),
        1024,
        rows_of(RGB, five(4096, 1024), 3, grey=False),
        [
            (64, 16, 16),
            (128, 8, 8),
            (256, 4, 4),
            *([(1024,)] * 4),
            (4096,),
            (128, 8, 8),
            (64, 16, 16),
            (3, 32, 32),
        ],
    ),
}


def conv(shape: tuple[int, ...], heads: int = 2, classes: int = 0, **options: Any) -> ConvEncoderDecoder:
    defaults = {"channels": (4, 6), "width": 8, "norm": "batch", "dropout": 0.0, "level": LevelOptions()}
    return ConvEncoderDecoder(Ports(shape, heads, classes), **{**defaults, **options})


def mlp(shape: tuple[int, ...], heads: int = 2, classes: int = 0, **options: Any) -> ResidualMLP:
    defaults = {"width": 8, "depth": 2, "dropout": 0.0, "level": LevelOptions()}
    return ResidualMLP(Ports(shape, heads, classes), **{**defaults, **options})


def plain(shape: tuple[int, ...], heads: int = 2, classes: int = 0, **options: Any) -> FullyConnected:
    defaults = {"hidden": (8, 5), "norm": "batch", "dropout": 0.0, "level": LevelOptions()}
    return FullyConnected(Ports(shape, heads, classes), **{**defaults, **options})


def table_network(table: Table, heads: int = 2) -> ConvEncoderDecoder:
    """The network as it is in the paper, without weights."""
    with torch.device("meta"):
        return conv(table.image, heads=heads, channels=None, width=table.width, norm="table", level=BLIND)


def logs(*temperatures: float) -> Told:
    return Told(torch.tensor(temperatures, dtype=torch.float64).log2())


def numbers_of(table: Table) -> list[int]:
    """Parameters of each row: weights, a bias for each output, and a scale and a shift for each normalized one."""
    channels, numbers = table.image[0], []
    for row in table.rows:
        if isinstance(row.units, tuple):
            weights, outputs = row.units[0] * row.units[1], row.units[1]
        else:  # the first one after the bottleneck starts from the maps that entered it
            weights, outputs = 5 * 5 * channels * row.units, row.units
            channels = row.units
        numbers.append(weights + outputs + (2 * outputs if row.norm else 0))
    return numbers


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_gives_the_number_of_parameters(name: str, heads: int) -> None:
    """Convolutions and three fully connected layers once; two of those and the convolutions back for each head."""
    table = TABLES[name]
    numbers, network = numbers_of(table), table_network(table, heads)
    expected = sum(numbers[: table.shared]) + heads * sum(numbers[table.shared :])
    assert sum(weight.numel() for weight in network.parameters()) == expected


def test_the_celeba_network_has_the_published_size() -> None:
    network = table_network(TABLES["Table 3, CelebA"])
    assert round(sum(weight.numel() for weight in network.parameters()) / 1e6, 1) == 57.7


@pytest.mark.parametrize("name", TABLES)
def test_layers_are_those_of_the_table(name: str) -> None:
    """Operation, kernel, stride, units, norm and nonlinearity of every row, and the size of what it gives."""
    table = TABLES[name]
    network = table_network(table)
    seen: list[tuple[nn.Module, nn.Module | None, nn.Module | None, tuple[int, ...]]] = []

    def record(module: nn.Module, _: Any, output: Tensor) -> None:
        if isinstance(module, Layer):
            norms = [part for part in module.norm.modules() if not list(part.children())]
            seen.append((module.linear, norms[0], module.activation, tuple(output.shape[1:])))
        elif isinstance(module, nn.ConvTranspose2d) and module.out_channels == table.image[0]:
            seen.append((module, None, None, tuple(output.shape[1:])))

    for module in network.modules():
        module.register_forward_hook(record)
    network(torch.empty(2, *table.image, device="meta"), Told(torch.zeros(1, device="meta")))
    for head in (seen[: len(table.rows)], [*seen[: table.shared], *seen[len(table.rows) :]]):
        for row, size, (linear, norm, activation, shape) in zip(table.rows, table.sizes, head, strict=True):
            assert (shape, type(norm), type(activation)) == (
                size,
                row.norm or type(None),
                row.activation or type(None),
            )
            if isinstance(linear, nn.Linear):
                assert row[:2] == ("Fully Connected", (linear.in_features, linear.out_features))
                continue
            assert isinstance(linear, nn.Conv2d | nn.ConvTranspose2d)
            operation = "Convolution" if isinstance(linear, nn.Conv2d) else "Strided Convolution"
            assert row[:2] == (operation, linear.out_channels)
            assert (linear.kernel_size, linear.stride) == ((5, 5), (2, 2))
    units = table.rows[table.convolutions].units
    assert isinstance(units, tuple)
    assert units[0] == math.prod(table.sizes[table.convolutions - 1])


def test_the_network_of_the_mnist_bound_has_its_published_layers() -> None:
    """Two layers of 1,200 units with batch norm, and two final ones of as many units as there are pixels."""
    with torch.device("meta"):
        network = plain((1, 28, 28), hidden=(1200, 1200), norm="batch", level=BLIND)
    hidden = sum(a * b + b + 2 * b for a, b in pairwise([784, 1200, 1200]))
    final = 2 * (1200 * 784 + 784)
    assert sum(weight.numel() for weight in network.parameters()) == hidden + final == 4_271_168


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 7, 9), (2, 1, 1), (3, 5, 2), (1, 28, 28)])
def test_every_size_of_image_comes_back(shape: tuple[int, ...], norm: str) -> None:
    for depth in (1, 2, 3):
        network = shaken(conv(shape, channels=(4,) * depth, norm=norm)).eval()
        outputs = network(normal(3, *shape), logs(1.0, 2.0, 4.0))
        assert [output.shape for output in outputs] == [(3, *shape)] * 2
        assert all(bool(output.any()) for output in outputs)


@pytest.mark.parametrize("norm", NORMS)
def test_rows_do_not_meet_in_evaluation(norm: str) -> None:
    network, x = shaken(conv((1, 8, 8), norm=norm)).eval(), normal(4, 1, 8, 8)
    together = network(x, logs(1.0))[0]
    alone = torch.cat([network(row[None], logs(1.0))[0] for row in x])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("sets", [0, 3])
def test_norms_of_single_rows_are_one_map_in_training_and_evaluation(norm: str, sets: int) -> None:
    network = shaken(conv((1, 8, 8), norm=norm, level=LevelOptions(norms=sets)))
    x = normal(4, 1, 8, 8)
    training = network.train()(x, logs(2.0))[0]
    assert training.equal(network.eval()(x, logs(2.0))[0])


@pytest.mark.parametrize("make", [conv, mlp, plain])
@pytest.mark.parametrize("heads", [1, 2])
def test_heads_start_at_zero(make: Any, heads: int) -> None:
    outputs = make((1, 8, 8), heads=heads).double()(normal(4, 1, 8, 8), logs(2.0))
    assert len(outputs) == heads
    assert not any(bool(output.any()) for output in outputs)


@pytest.mark.parametrize("make", [conv, mlp, plain])
def test_only_a_conditioned_network_has_weights_for_the_temperature(make: Any) -> None:
    x = normal(2, 1, 8, 8)
    for kind in ("film", "embedding", "none"):
        network = shaken(make((1, 8, 8), level=LevelOptions(kind))).eval()
        same = network(x, logs(1.0))[0].equal(network(x, logs(8.0))[0])
        weights = [name for name, _ in network.named_parameters() if "conditioner" in name or "level" in name]
        assert same == (kind == "none")
        assert bool(weights) == (kind != "none")


@pytest.mark.parametrize("make", [conv, mlp, plain])
def test_dropout_acts_in_training_only(make: Any) -> None:
    network, x = shaken(make((1, 8, 8), dropout=0.5)), normal(4, 1, 8, 8)
    first, second = (network.train()(x, logs(1.0))[0] for _ in range(2))
    assert not first.equal(second)
    assert network.eval()(x, logs(1.0))[0].equal(network(x, logs(1.0))[0])


def test_dropout_is_in_the_bottleneck() -> None:
    network = conv((1, 8, 8), dropout=0.4)
    shares = {type(m.linear): m.dropout.p for m in network.modules() if isinstance(m, Layer)}
    assert shares == {nn.Conv2d: 0.0, nn.Linear: 0.4, nn.ConvTranspose2d: 0.0}


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 4)])
@pytest.mark.parametrize("rows", [1, 5])
def test_film_scales_and_shifts_channels(shape: tuple[int, ...], rows: int) -> None:
    """(1 + a(e)) x + b(e), one pair a channel, one embedding for all rows or for each."""
    film, x, e = shaken(FiLM(3)), normal(*shape), normal(rows, EMBEDDING, seed=1)
    pairs = (e @ film.affine.weight.T + film.affine.bias).reshape(rows, 2, 3, *(1,) * (len(shape) - 2))
    torch.testing.assert_close(film(x, e), (1 + pairs[:, 0]) * x + pairs[:, 1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 5])
def test_an_embedding_is_added_to_channels(rows: int) -> None:
    """x + b(e), one number a channel."""
    shift, x, e = shaken(Shift(3)), normal(5, 3, 2, 4), normal(rows, EMBEDDING, seed=1)
    numbers = (e @ shift.linear.weight.T + shift.linear.bias).reshape(rows, 3, 1, 1)
    torch.testing.assert_close(shift(x, e), x + numbers, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["film", "embedding", "none"])
def test_new_conditioning_changes_nothing(kind: Any) -> None:
    told, x = conditioner(kind, 3).double(), normal(5, 3)
    assert told(x, normal(1, EMBEDDING)).equal(x)
    assert bool(list(told.parameters())) == (kind != "none")


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm1d), ("layer", nn.LayerNorm), ("none", None)]
)
def test_the_plain_network_has_the_norm_it_is_given(norm: str, kind: type[nn.Module] | None) -> None:
    """drop(relu(norm(W x))) by hand, in evaluation, where batch norm has its first statistics."""
    network, x = shaken(plain((6,), norm=norm, level=BLIND)).eval(), normal(4, 6)
    features = x
    for layer in network.layers:
        assert isinstance(layer, Layer)
        features = features @ layer.linear.weight.T + layer.linear.bias
        if kind is not None:
            (part,) = [module for module in layer.norm.modules() if isinstance(module, kind)]
            if norm == "layer":
                features = features - features.mean(1, keepdim=True)
            spread = features.square().mean(1, keepdim=True) if norm == "layer" else torch.ones(1)
            features = features / (spread + 1e-5).sqrt() * part.weight + part.bias
        features = features.clamp(min=0)
    for head, output in zip(network.heads, network(x, logs(2.0)), strict=True):
        torch.testing.assert_close(output, features @ head.weight.T + head.bias)


@pytest.mark.parametrize("make", [conv, plain])
def test_sets_of_norms_need_a_norm(make: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"operator\.network\.level_norms = 3 .*choose a norm"):
        make((1, 8, 8), norm="none", level=LevelOptions(norms=3))


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
