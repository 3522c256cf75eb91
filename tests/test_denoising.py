"""The reverse of known noise: predictions of the noise, the data and the velocity, against the tables of DDPM."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import numpy as np
import pytest
import torch
from tests.toy.statistics import rng
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.kernels import BernoulliKernel, NormalKernel
from walkback.networks import Network, Ports, Told
from walkback.operators import TransitionOperator
from walkback.schedules import Level, levels_from
from walkback.state import Space, leaves
from walkback.temperature import StandardDeviationLaw
from walkback.walk import Start, Transition
from walkback_paper.denoising import Denoising
from walkback_paper.gaussian import Gaussian
from walkback_processes.denoising import DenoisingLoss
from walkback_processes.diffusion import DiffusionProcess
from walkback_processes.objectives import PosteriorDivergence

BETAS = np.linspace(1e-3, 0.2, 20)
"""Of a short linear schedule."""
LEVELS = levels_from((np.log1p(-BETAS) / np.log1p(-BETAS[0])).tolist())
SHARE = math.sqrt(-math.log1p(-BETAS[0]))

Function = Callable[[Tensor, Told], tuple[Tensor, ...]]


@final
class Given(Network):
    """A network that is a function of its inputs."""

    def __init__(self, function: Function) -> None:
        self._function = function

    def build(self, ports: Ports) -> nn.Module:
        function = self._function

        class Applied(nn.Module):
            def forward(self, state: Tensor, told: Told) -> tuple[Tensor, ...]:
                return function(state, told)[: ports.heads]

        return Applied()


def tanh(state: Tensor, told: Told) -> tuple[Tensor, ...]:
    return (0.3 + state.tanh(), torch.full_like(state, 0.4))


def denoiser(function: Function = tanh, **options: Any) -> Gaussian:
    """An operator of which m = 0.25 and σ_d = 2, in evaluation mode."""
    chosen = {"mean": "epsilon", "variance": "fixed", "sigma_share": SHARE, **options}
    operator = Gaussian(Space((3,)), Given(function), **chosen)
    operator.fit_data(torch.tensor([[2.25], [-1.75]], dtype=torch.float64).expand(2, 3))
    return operator.eval()


def cooled(operator: TransitionOperator, s: Tensor, level: Level) -> NormalKernel:
    kernel = operator(s, level).cooling(level)
    assert isinstance(kernel, NormalKernel)
    return kernel


def states(rows: int = 5) -> Tensor:
    return 0.25 + 2 * torch.randn(rows, 3, dtype=torch.float64, generator=rng(1))


@pytest.mark.parametrize("variance", ["fixed", "large", "range"])
def test_each_step_has_the_mean_and_variance_of_the_tables_of_ddpm(variance: str) -> None:
    # Eq. 11 and section 3.2 of Ho et al. (2020), eq. 15 of Nichol and Dhariwal (2021), for data of scale 1.
    operator, s = denoiser(variance=variance), states()
    kept = np.cumprod(1 - BETAS)
    before = np.append(1.0, kept[:-1])
    posterior = BETAS * (1 - before) / (1 - kept)
    posterior[0] = 0.5 * BETAS[0]
    upper = np.append(posterior[0], BETAS[1:]) if variance == "large" else BETAS
    weight = {"fixed": 0.0, "large": 1.0, "range": 0.7}[variance]
    variances = np.exp((1 - weight) * np.log(posterior) + weight * np.log(upper))
    for t, level in enumerate(LEVELS):
        x = (s - 0.25) / 2
        (epsilon, _) = tanh(x, Told(torch.zeros(1)))
        mean = (x - BETAS[t] / math.sqrt(1 - kept[t]) * epsilon) / math.sqrt(1 - BETAS[t])
        kernel = cooled(operator, s, level)
        torch.testing.assert_close(kernel.mean, 0.25 + 2 * mean, rtol=1e-7, atol=1e-7)
        found = kernel.variance.expand(5, 3)
        torch.testing.assert_close(found, torch.full_like(found, 4 * variances[t]), rtol=1e-6, atol=0)


def corresponding(mean: str, diffusion: str) -> Function:
    """A network that predicts x̂ = m + σ_d tanh(z) in terms of `mean`."""

    def function(z: Tensor, told: Told) -> tuple[Tensor, ...]:
        time = 2 ** told.log2_temperature.double()[:, None]
        signal = (-time * SHARE**2 / 2).exp() if diffusion == "preserving" else torch.ones_like(time)
        variance = 1 - signal**2 if diffusion == "preserving" else time * SHARE**2
        size = (signal**2 + variance).sqrt()
        cos, sin = signal / size, variance.sqrt() / size
        x = z.tanh()
        return {"x": (x,), "epsilon": ((z - cos * x) / sin,), "v": ((cos * z - x) / sin,)}[mean]

    return function


@pytest.mark.parametrize("diffusion", ["preserving", "exploding"])
def test_noise_data_and_velocity_are_three_parametrizations_of_one_kernel(diffusion: str) -> None:
    operators = [
        denoiser(corresponding(mean, diffusion), mean=mean, diffusion=diffusion)
        for mean in ("x", "epsilon", "v")
    ]
    for level in (*LEVELS, Level(3, torch.tensor([1.0, 5.0, 9.0]), 1.0, torch.tensor([0.0, 2.0, 40.0]))):
        first, *others = (cooled(operator, states(3), level) for operator in operators)
        for other in others:
            torch.testing.assert_close(other.mean, first.mean, rtol=1e-9, atol=1e-9)
            assert torch.equal(other.variance, first.variance)


@pytest.mark.parametrize("mean", ["x", "epsilon", "v"])
def test_numbers_of_single_precision_agree_with_double(mean: str) -> None:
    operator, s = denoiser(mean=mean), states()
    for level in LEVELS:
        double, single = cooled(operator, s, level), cooled(operator, s.float(), level)
        torch.testing.assert_close(single.mean.double(), double.mean, rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(single.variance.double(), double.variance, rtol=1e-5, atol=0)


def test_heating_is_the_noise_that_a_process_copies() -> None:
    operator = denoiser()
    process = DiffusionProcess(noise="preserving")
    process.fit_data(states())
    process.fit_operator(operator)
    s = states()
    for level in LEVELS:
        own, copied = operator(s, level).heating(level), process.heating(operator(s, level), s, level, s)
        assert isinstance(own, NormalKernel)
        assert isinstance(copied, NormalKernel)
        assert torch.equal(own.mean, copied.mean)
        assert torch.equal(own.variance, copied.variance)
        assert torch.equal(operator.noise(level), own.variance)
    assert process.max_temperature == operator.max_temperature == pytest.approx(5 / SHARE**2)


def test_the_prediction_is_clipped_in_evaluation_only() -> None:
    plain, clipped = denoiser(), denoiser(clip=(-0.5, 0.75))
    s, level = states(), LEVELS[4]
    assert isinstance(clipped.parametrization, Denoising)
    origin = plain(s, level).origin
    wanted = clipped.parametrization.noise_model.posterior(s, origin.clamp(-0.5, 0.75), level)
    torch.testing.assert_close(cooled(clipped, s, level).mean, wanted.mean)
    assert torch.equal(cooled(clipped.train(), s, level).mean, cooled(plain, s, level).mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variance": "tied"}, r"operator\.variance = 'tied'"),
        ({"mean": "preconditioned", "variance": "range"}, r"operator\.variance = 'range' has no effect"),
        ({"mean": "linear", "clip": (0.0, 1.0)}, r"operator\.clip = .* has no effect"),
        ({"mean": "mix", "diffusion": "exploding"}, r"operator\.diffusion = 'exploding' has no effect"),
        ({"clip": (1.0, 0.0)}, r"operator\.clip = \[1\.0, 0\.0\]"),
        ({"temperature_law": StandardDeviationLaw()}, "temperature law"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        denoiser(**options)


def test_a_process_with_other_noise_is_refused() -> None:
    operator = denoiser()
    for options in ({"noise": "exploding"}, {"noise": "flips"}, {"noise": "preserving", "sigma": 0.1}):
        with pytest.raises(ConfigurationError, match="reverses"):
            DiffusionProcess(**options).fit_operator(operator)


def transition(operator: TransitionOperator, rows: int = 60) -> Transition:
    """Rows of data at levels of their own, the first one included."""
    process = DiffusionProcess(noise="preserving")
    process.fit_operator(denoiser())
    return next(process.path(operator, Start(states(rows)), LEVELS, rng(3)))


@pytest.mark.parametrize("mean", ["x", "epsilon", "v", "preconditioned"])
def test_the_simple_loss_is_the_squared_error_of_the_noise(mean: str) -> None:
    operator = denoiser(mean=mean) if mean != "preconditioned" else preconditioned()
    step = transition(operator)
    s, x = leaves(step.target)[0], states(60)
    t = torch.as_tensor(step.level.step) - 1
    kept = torch.from_numpy(np.cumprod(1 - BETAS))[t][:, None]
    ratio = kept / (4 * (1 - kept))
    before = torch.from_numpy(np.append(1.0, np.cumprod(1 - BETAS)[:-1]))[t][:, None]
    beta = torch.from_numpy(BETAS)[t][:, None]
    # Solved for x̂: μ = √ᾱ_{t-1} β/(1 - ᾱ) x̂ + √α (1 - ᾱ_{t-1})/(1 - ᾱ) s
    reverse = operator(s, step.level).cooling(step.level)
    assert isinstance(reverse, NormalKernel)
    rest = (1 - beta).sqrt() * (1 - before) / (1 - kept) * (s - 0.25)
    predicted = 0.25 + (reverse.mean - 0.25 - rest) * (1 - kept) / (before.sqrt() * beta)
    squared = (predicted - x).square()
    torch.testing.assert_close(DenoisingLoss()(step), (ratio * squared).sum(1), rtol=1e-6, atol=1e-6)
    snr = DenoisingLoss(weight="snr", gamma=5.0)(step)
    torch.testing.assert_close(snr, (ratio.clamp(max=5 / 4) * squared).sum(1), rtol=1e-6, atol=1e-6)
    if mean == "epsilon":
        noise = (s - 0.25 - kept.sqrt() * (x - 0.25)) / (2 * (1 - kept).sqrt())
        z = (s - 0.25) / 2
        error = (noise - 0.3 - z.tanh()).square().sum(1)
        torch.testing.assert_close(DenoisingLoss()(step), error, rtol=1e-6, atol=1e-6)


def preconditioned() -> Gaussian:
    operator = Gaussian(Space((3,)), Given(tanh), sigma=2 * SHARE, mean="preconditioned", variance="fixed")
    operator.fit_data(states())
    return operator.double().eval()


def test_the_bound_weight_is_the_objective_kl() -> None:
    step = transition(denoiser(variance="large"))
    assert torch.equal(DenoisingLoss(weight="bound")(step), PosteriorDivergence()(step))


def test_the_hybrid_loss_teaches_the_variance_by_the_bound_and_the_mean_by_the_error() -> None:
    mean, spread = (torch.zeros(3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def function(state: Tensor, told: Told) -> tuple[Tensor, ...]:
        return mean + state.tanh(), spread + 0 * state

    step = transition(denoiser(function, variance="range"))

    def gradient(loss: Tensor, of: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(loss.sum(), of, retain_graph=True, allow_unused=True)
        return torch.zeros(3) if found is None else found

    hybrid = DenoisingLoss(bound=0.7)(step)
    simple, bound = DenoisingLoss()(step), PosteriorDivergence()(step)
    torch.testing.assert_close(gradient(hybrid, mean), gradient(simple, mean))
    torch.testing.assert_close(gradient(hybrid, spread), 0.7 * gradient(bound, spread))
    assert gradient(bound, spread).abs().min() > 0
    DenoisingLoss(bound=0.7).require_fitting(step)
    with pytest.raises(ConfigurationError, match=r"objective\.bound > 0"):
        DenoisingLoss().require_fitting(step)


def test_other_noise_and_other_kernels_are_refused() -> None:
    step = transition(denoiser())
    for change in ({"noise": None}, {"posterior": None}, {"reverse": BernoulliKernel(torch.zeros(60, 3))}):
        with pytest.raises(ConfigurationError, match="objective 'denoising' needs"):
            DenoisingLoss()(step._replace(**change))


def test_a_path_of_few_draws_spreads_its_rows_over_all_levels() -> None:
    operator, x = denoiser(), states(190)
    process = DiffusionProcess(noise="preserving", draws=3)
    process.fit_operator(operator)
    steps = list(process.path(operator, Start(x), LEVELS, rng(3)))
    assert len(steps) == process.num_transitions(LEVELS) == 3
    assert steps[-1].level is LEVELS[-1]
    first, second = (torch.as_tensor(step.level.step) for step in steps[:2])
    assert torch.equal(torch.bincount(first)[1:], torch.full((19,), 10))
    assert set(((second - first) % 19).tolist()) == {9}
