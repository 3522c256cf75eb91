"""The residual U-Net: shapes, locality of each row, what it starts as, and what it refuses."""

from __future__ import annotations

import math
import shutil
import warnings

import pytest
import torch
from tests.toy.paper import bernoulli_unet, gaussian_unet
from torch.nn.functional import interpolate, pixel_unshuffle, silu

from walkback.errors import ConfigurationError
from walkback.networks import Ports, Told
from walkback.schedules import Level
from walkback.state import Space
from walkback.support.seeding import generator
from walkback_networks.unet import ResidualUNet, doubled, folded_patches, unfolded_patches


def network(
    shape: tuple[int, ...] = (1, 28, 28), *, randomized: bool = True, **changes: object
) -> ResidualUNet:
    """A small one; its zero layers get weights, so that every path matters."""
    options: dict[str, object] = {
        "channels": (8, 16),
        "blocks": 1,
        "patch": 2,
        "attention": True,
        "dropout": 0.0,
    }
    torch.manual_seed(0)
    unet = ResidualUNet(Ports(shape, heads=2), **(options | changes))  # type: ignore[arg-type]
    if randomized:
        for parameter in unet.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return unet.eval()


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((1, 28, 28), {}),
        ((1, 28, 28), {"patch": 1, "channels": (8, 8, 16)}),  # 28 → 14 → 7
        ((3, 32, 32), {"patch": 4, "blocks": 2}),
        ((3, 30, 22), {"patch": 2, "channels": (8, 8, 8)}),  # odd sizes on the way down
        ((1, 8, 8), {"patch": 1, "attention": False}),
        ((2, 13), {"patch": 1}),  # a series
        ((2, 12), {"patch": 3}),
        ((1, 4, 6, 5), {"patch": 1}),  # a volume
        ((2, 4, 6, 8), {"patch": 2}),
    ],
)
def test_every_head_has_the_shape_of_the_state(shape: tuple[int, ...], changes: dict[str, object]) -> None:
    outputs = network(shape, **changes)(torch.randn(3, *shape), Told(torch.zeros(1)))
    assert [tuple(output.shape) for output in outputs] == [(3, *shape)] * 2


def test_a_row_depends_on_itself_and_its_own_temperature_alone() -> None:
    unet = network()
    state = torch.randn(4, 1, 28, 28)
    temperatures = torch.tensor([0.0, 1.0, 5.0, 11.0])
    together = unet(state, Told(temperatures))[0]
    alone = torch.cat([unet(state[i : i + 1], Told(temperatures[i : i + 1]))[0] for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    other = unet(state, Told(temperatures + 1))[0]
    assert (together - other).abs().flatten(1).amax(1).min() > 1e-3


def test_every_pixel_reaches_every_pixel_through_attention() -> None:
    state = torch.randn(1, 1, 28, 28, requires_grad=True)
    network()(state, Told(torch.zeros(1)))[0][0, 0, 0, 0].backward()
    assert state.grad is not None
    assert (state.grad != 0).all()


def test_without_attention_the_view_is_limited() -> None:
    state = torch.randn(1, 1, 64, 64, requires_grad=True)
    network((1, 64, 64), attention=False, patch=1)(state, Told(torch.zeros(1)))[0][0, 0, 0, 0].backward()
    assert state.grad is not None
    # Group norm mixes statistics over the image, so far pixels matter, but far less than near ones.
    assert state.grad[0, 0, 40:, 40:].abs().max() < 0.05 * state.grad[0, 0, :8, :8].abs().max()


@pytest.mark.parametrize("axes", [(6,), (4, 6), (2, 4, 6)])
def test_patches_are_folded_into_channels_and_back(axes: tuple[int, ...]) -> None:
    state = torch.randn(2, 3, *axes)
    folded = folded_patches(state, 2)
    assert torch.equal(unfolded_patches(folded, 2), state)
    if len(axes) == 2:
        assert torch.equal(folded, pixel_unshuffle(state, 2))
    # Channel 0 has the first corner of every patch of the first channel.
    assert torch.equal(folded[:, 0], state[:, 0][(slice(None), *(slice(None, None, 2) for _ in axes))])


@pytest.mark.parametrize("size", [(4, 6), (3, 5), (3, 6), (3,), (4,), (4, 3, 5)])
def test_doubling_is_nearest_interpolation(size: tuple[int, ...]) -> None:
    features = torch.randn(2, 3, *((length + 1) // 2 for length in size))
    expected = interpolate(features, size=size, mode="nearest")
    assert torch.equal(doubled(features, torch.empty(2, 3, *size)), expected)


class Decoder(torch.nn.Module):
    """The part of a U-Net around a step up."""

    def __init__(self) -> None:
        super().__init__()
        self.before = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.norm = torch.nn.GroupNorm(8, 16)
        self.inner = torch.nn.Conv2d(16, 8, 3, padding=1)
        self.skip = torch.nn.Conv2d(16, 8, 1)

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        features = torch.cat([doubled(self.before(coarse), fine), fine], 1)
        return self.skip(features) + self.inner(silu(self.norm(features)))


@pytest.mark.skipif(shutil.which("c++") is None, reason="compiling for a CPU needs a C++ compiler")
def test_the_gradient_of_a_step_up_survives_being_compiled_in_bfloat16() -> None:
    """With nearest interpolation it is 0 there, which cuts off the coarser half of the network."""
    torch.manual_seed(0)
    decoder = Decoder()
    coarse, fine, weights = torch.randn(4, 8, 3, 3), torch.randn(4, 8, 6, 6), torch.randn(4, 8, 6, 6)

    def gradient(function: torch.nn.Module, bf16: bool) -> torch.Tensor:
        decoder.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            output = function(coarse, fine)
        (output.float() * weights).sum().backward()
        assert decoder.before.weight.grad is not None
        return decoder.before.weight.grad.clone()

    expected = gradient(decoder, bf16=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler's own
        found = gradient(torch.compile(decoder), bf16=True)
    assert (found - expected).norm() < 0.02 * expected.norm()  # rounding makes 0.005


def test_folding_pixels_divides_the_features_and_keeps_every_pixel() -> None:
    assert network((1, 8, 8), patch=2).stem.in_channels == 4
    state = torch.zeros(1, 1, 8, 8, requires_grad=True)
    network((1, 8, 8), patch=2)(state, Told(torch.zeros(1)))[0].sum().backward()
    assert state.grad is not None


def test_parameters_counted_by_hand() -> None:
    """channels (8, 16), one block a resolution, patch 1, no attention, one channel, two heads."""

    def conv(source: int, target: int, side: int = 3) -> int:
        return source * target * side**2 + target

    def block(source: int, target: int) -> int:
        norms = 2 * source + 2 * target
        film = 64 * 2 * target + 2 * target
        skip = conv(source, target, 1) if source != target else 0
        return norms + conv(source, target) + conv(target, target) + film + skip

    embedding = (17 * 64 + 64) + (64 * 64 + 64)
    encoder = conv(1, 8) + block(8, 8) + conv(8, 8) + block(8, 16)
    middle = 2 * block(16, 16)
    decoder = block(16 + 16, 16) + block(16 + 8, 8)
    expected = embedding + encoder + middle + decoder + 2 * 8 + 2 * conv(8, 1)
    unet = network((1, 28, 28), patch=1, attention=False)
    assert sum(parameter.numel() for parameter in unet.parameters()) == expected


def test_the_operator_starts_as_the_linear_gaussian_posterior() -> None:
    operator = gaussian_unet(Space((1, 8, 8)), sigma=0.1, channels=(8, 16), blocks=1)
    data = 0.5 + 2 * torch.randn(500, 1, 8, 8, generator=generator("cpu", 0, "data"))
    operator.fit_data(data)
    state = torch.randn(2, 1, 8, 8)
    kernel = operator(state, Level(1, 4.0)).cooling(Level(1, 4.0))
    mean, variance = data.mean(0), (data - data.mean(0)).square().mean()
    expected = mean + (state - mean) * variance / (variance + 4 * 0.1**2)
    torch.testing.assert_close(kernel.mean, expected)
    torch.testing.assert_close(kernel.variance.mean(), torch.tensor(4 * 0.1**2))


def test_the_binary_twin_starts_as_plain_flips() -> None:
    operator = bernoulli_unet(Space((1, 8, 8), "binary"), flip=0.02, channels=(8, 16), blocks=1)
    bits = torch.randint(2, (5, 1, 8, 8)).float()
    log_prob = operator(bits, Level(1, 1.0)).cooling(Level(1, 1.0)).log_prob(bits)
    torch.testing.assert_close(log_prob, torch.full((5,), 64 * math.log(0.98)))


def test_wrong_data_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected series"):
        gaussian_unet(Space((2,)))
    with pytest.raises(ConfigurationError, match="expected a divisor of each"):
        gaussian_unet(Space((1, 27, 28)), patch=2)
    with pytest.raises(ConfigurationError, match="binary"):
        gaussian_unet(Space((1, 8, 8), "binary"))
    with pytest.raises(ConfigurationError, match="binary"):
        bernoulli_unet(Space((1, 8, 8)))
