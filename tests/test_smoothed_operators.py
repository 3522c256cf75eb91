"""Operators that are told the noise their data were smoothed by: what their networks have to learn, by closed forms."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from tests.toy.paper import gaussian_conv, gaussian_mlp, gaussian_plain_mlp, gaussian_unet
from tests.toy.statistics import LIMIT, normal
from torch import Tensor, nn

from walkback.building.preparation import prepare
from walkback.configuration.layering import resolve
from walkback.data import DataInfo, Dataset
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.networks import Told
from walkback.schedules import Level
from walkback.state import Space
from walkback_networks.mlp import MLP
from walkback_paper.gaussian import Gaussian
from walkback_toys.digits import Digits
from walkback_toys.figures import Circle, Mog, SwissRoll

NU, SIGMA, NUM = 0.5, 0.1, 100_000
TEMPERATURES = [1.0, 4.0, 64.0, 4096.0]


class Constant(nn.Module):
    """A network that says the same everywhere; the variance head says 0."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, state: Tensor, told: Told) -> list[Tensor]:
        return [torch.full_like(state, self.value), torch.zeros_like(state)]


def mean_at(operator: Gaussian, states: Tensor, temperature: float, output: float) -> Tensor:
    """The mean of a step from `states` if the network says `output`."""
    operator.network = Constant(output)
    level = Level(1, temperature)
    return operator(states, level).cooling(level).mean  # type: ignore[attr-defined, no-any-return]


def two_points(smoothing: float = NU) -> tuple[Gaussian, Tensor, Tensor]:
    """An operator in double precision that knows data at -1 and 3 smoothed by ν; the points and the data, `(N, 1)`."""
    points = torch.where(normal(NUM, 1) > 0, 3.0, -1.0).double()
    data = points + NU * normal(NUM, 1, seed=1)
    operator = gaussian_mlp(Space((1,)), sigma=SIGMA, smoothing=smoothing, hidden=4, depth=1).double()
    operator.fit_data(data)
    return operator, points, data


def required_output(temperature: float, smoothing: float = NU) -> tuple[Tensor, Tensor]:
    """What the network would have to say for the mean to be that of s_{t-1} given s_t and the point; and s_t."""
    operator, points, data = two_points(smoothing)
    v = temperature * SIGMA**2
    later = data + v**0.5 * normal(NUM, 1, seed=2)
    # The product of N(s_{t-1}; point, ν²) and N(s_t; s_{t-1}, v) in s_{t-1}.
    earlier = (v * points + NU**2 * later) / (v + NU**2)
    zero, one = (mean_at(operator, later, temperature, output) for output in (0.0, 1.0))
    return (earlier - zero) / (one - zero), later


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.discover(enabled=False)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_target_of_the_network_has_unit_scale_at_every_temperature(temperature: float) -> None:
    """Mean 0 and variance 1 of the target given the point, for data of any law with these moments."""
    target, _ = required_output(temperature)
    assert abs(target.mean().item()) < LIMIT / NUM**0.5
    spread = (target - target.mean()).square()
    assert abs(spread.mean().item() - 1) < LIMIT * spread.std().item() / NUM**0.5


def test_small_temperatures_ask_for_the_same_function() -> None:
    """The mean target at a state, F*(s), hardly changes from T = 1 to 4; unscaled (ν = 0), it doubles."""

    def learned(smoothing: float) -> list[float]:
        outputs = []
        for temperature in (1.0, 4.0):
            target, state = required_output(temperature, smoothing)
            near = (state > 1.8) & (state < 2.4)
            outputs.append(target[near].mean().item())
        return outputs

    scaled, unscaled = learned(NU), learned(0.0)
    assert scaled[1] / scaled[0] == pytest.approx(1.0, abs=0.1)
    assert unscaled[1] / unscaled[0] == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_without_smoothing_the_scale_is_that_of_unsmoothed_data(temperature: float) -> None:
    operator, _, data = two_points(smoothing=0.0)
    zero, one = (mean_at(operator, data[:3], temperature, output) for output in (0.0, 1.0))
    v, variance = temperature * SIGMA**2, data.var(correction=0)
    expected = (v * variance / (v + variance)).sqrt().expand(3, 1)
    torch.testing.assert_close(one - zero, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_silent_network_leaves_the_mean_of_linear_gaussian_data(temperature: float) -> None:
    """The skip connection does not depend on ν: smoothed data have only their own moments."""
    means = [mean_at(two_points(nu)[0], two_points()[2][:5], temperature, 0.0) for nu in (0.0, NU)]
    assert torch.equal(*means)


@pytest.mark.parametrize("build", [gaussian_mlp, gaussian_plain_mlp, gaussian_conv, gaussian_unet])
def test_every_gaussian_operator_takes_the_smoothing(build: Callable[..., Gaussian]) -> None:
    data = 0.5 * normal(20, 1, 8, 8).float()

    def scale(smoothing: float) -> Tensor:
        operator = build(Space((1, 8, 8)), sigma=SIGMA, smoothing=smoothing)
        operator.fit_data(data)
        return mean_at(operator, data, 1.0, 1.0) - mean_at(operator, data, 1.0, 0.0)

    variance, v = data.sub(data.mean(0)).square().mean(), SIGMA**2
    expected = (v * (1 - 0.3**2 / variance) / (v + 0.3**2)).sqrt()
    torch.testing.assert_close(scale(0.3) / scale(0.0), expected.expand(data.shape), rtol=1e-4, atol=0)


def test_smoothing_that_no_data_have_is_refused() -> None:
    operator = gaussian_mlp(Space((2,)), smoothing=0.4, hidden=4, depth=1)
    before = {name: value.clone() for name, value in operator.state_dict().items()}
    with pytest.raises(ConfigurationError, match=r"smoothed by noise of 0\.4, expected them to vary more"):
        operator.fit_data(0.3 * normal(50, 2).float())
    assert all(torch.equal(value, before[name]) for name, value in operator.state_dict().items())


def test_before_it_has_seen_data_an_operator_takes_any_smoothing() -> None:
    operator = gaussian_mlp(Space((2,)), smoothing=3.0, hidden=4, depth=1)
    assert bool(mean_at(operator, normal(5, 2).float(), 1.0, 1.0).isfinite().all())


def test_the_mixing_mean_has_no_smoothing() -> None:
    with pytest.raises(
        ConfigurationError, match=r"operator\.smoothed = true has no effect on operator\.mean = 'mix'"
    ):
        gaussian_mlp(Space((2,)), smoothing=0.4, mean="mix")


def test_data_without_noise_leave_nothing_to_make_use_of() -> None:
    with pytest.raises(ConfigurationError, match=r"operator\.smoothed = true for data without noise"):
        Gaussian(Space((2,)), MLP(), smoothed=True)


@pytest.mark.parametrize(
    ("data", "noise"),
    [
        (Digits(noise=0.3), 0.3),
        (Digits(), 0.0),
        (Digits(binarize="threshold"), 0.0),
        (SwissRoll(num=10, num_held_out=2, noise=0.07), 0.07),
        (Circle(num=10, num_held_out=2, noise=0.08), 0.08),
        (Mog(num=10, num_held_out=2, std=0.09), 0.09),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Dataset) else str(value),
)
def test_data_say_the_noise_that_they_are_smoothed_by(data: Dataset, noise: float) -> None:
    data.prepare()
    assert (data.info.noise, data.info.space.noise) == (noise, noise)
    assert DataInfo.from_dict(json.loads(json.dumps(data.info.to_dict()))) == data.info


def test_the_noise_is_said_once_in_a_run(registry: Registry) -> None:
    """A model in a file is built with the noise of the data that it was trained on."""
    overrides = ["data.noise=0.3", "operator.mean=preconditioned", "operator.smoothed=true"]
    config = resolve(registry, components={"data": "digits"}, overrides=overrides)
    prepared = prepare(config, registry)
    assert prepared.model.operator.parametrization._smoothing == 0.3
