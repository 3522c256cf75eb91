"""The objective without the walk's noise: the paper's rule on average, the example exactly where that is right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tests.program import TINY, walkback
from tests.toy.paper import gaussian_mlp
from torch import Tensor

from walkback.configuration.settings import TrainingSettings
from walkback.errors import ConfigurationError
from walkback.kernels import BernoulliKernel, Kernel, NormalKernel, stacked
from walkback.model import Model
from walkback.objectives import Objective
from walkback.processes import TiedProcess
from walkback.schedules import Level
from walkback.support.seeding import generator
from walkback.training.trainer import Trainer
from walkback.walk import Transition
from walkback_paper.conditional import ConditionalLoss
from walkback_paper.objectives import WalkbackLoss
from walkback_paper.priors import GaussianPrior
from walkback_paper.schedules import DoublingSchedule
from walkback_toys.digits import Digits

NU, NOISE = 0.3, 0.02
COLD = Level(1, 1.0)


def rng(*stream: int) -> torch.Generator:
    return generator("cpu", 7, "conditional", *stream)


def normal(*shape: int, stream: int) -> Tensor:
    return torch.randn(shape, generator=rng(stream))


@dataclass
class Step:
    """One step from smoothed examples, heated by h = x + a (s - x) and noise, and a mean that has one parameter."""

    rows: int
    dims: int
    contraction: float = 1.0
    nu: float = NU
    scale: float = 1.0

    def transition(self, slope: Tensor, stream: int, *, anchor: bool = True) -> Transition:
        x = self.scale * normal(self.rows, self.dims, stream=stream)
        source = x + self.nu * normal(self.rows, self.dims, stream=stream + 1)
        variance = torch.full((1, self.dims), NOISE)
        forward = NormalKernel(x + self.contraction * (source - x), variance)
        target = forward.sample(rng(stream + 2))
        reverse = NormalKernel(slope * target, variance)
        return Transition(source, target, COLD, forward, reverse, x if anchor else None)


def slopes(objective: Objective, step: Step, stream: int, slope: float = 0.9) -> Tensor:
    """d loss / d slope of each row, `(B,)`."""
    parameter = torch.full((step.rows, 1), slope, requires_grad=True)
    objective(step.transition(parameter, stream)).sum().backward()
    assert parameter.grad is not None
    return parameter.grad[:, 0]


def test_all_noise_kept_is_the_papers_rule() -> None:
    step = Step(5, 40)
    torch.testing.assert_close(slopes(ConditionalLoss(kept=1.0), step, 0), slopes(WalkbackLoss(), step, 0))


def test_the_value_is_that_of_the_papers_rule() -> None:
    transition = Step(5, 40).transition(torch.tensor(0.9), 0)
    torch.testing.assert_close(ConditionalLoss(weighting="snr")(transition), WalkbackLoss()(transition))


@pytest.mark.parametrize("contraction", [1.0, 0.8])
def test_on_average_it_is_the_papers_gradient(contraction: float) -> None:
    """z < 4.5 fails by chance with probability 7e-6; b is exact to 1/D, which is less than a standard error."""
    step = Step(400, 1024, contraction)
    paper = slopes(WalkbackLoss(), step, 10)
    ours = slopes(ConditionalLoss(), step, 10)
    difference = paper - ours
    error = difference.std() / math.sqrt(step.rows)
    assert abs(difference.mean()) < 4.5 * error
    assert error < 0.02 * paper.mean().abs()  # else the line above could not fail


def mean_gradient(objective: Objective, transition: Transition) -> Tensor:
    """d loss / d mean, `(B, D)`."""
    assert isinstance(transition.reverse, NormalKernel)
    mean = transition.reverse.mean.clone().requires_grad_()
    objective(transition._replace(reverse=NormalKernel(mean, transition.reverse.variance))).sum().backward()
    assert mean.grad is not None
    return mean.grad


def test_where_the_example_is_nearly_known_the_noise_is_gone() -> None:
    """At the best slope for examples of variance u, targets vary by b w and by (1 - b)² u: 0.0164 and 8e-5."""
    u, step = 0.05**2, Step(50, 1024, scale=0.05)
    transition = step.transition(torch.tensor((u + NU**2) / (u + NU**2 + NOISE)), 15)
    paper, ours = (mean_gradient(objective, transition) for objective in (WalkbackLoss(), ConditionalLoss()))
    assert ours.var() < 0.02 * paper.var()


def test_the_first_step_from_data_without_noise_asks_for_the_data() -> None:
    step = Step(5, 40, nu=0.0)
    torch.testing.assert_close(slopes(ConditionalLoss(), step, 20), slopes(WalkbackLoss(), step, 20))


def test_weights_count_the_error_of_the_example() -> None:
    """A mean that amounts to the example x' has the loss |x' - x|² / 2V, up to V ≈ v / (1 - b)."""
    step = Step(1, 20_000)
    (likelihood,), (snr,) = (
        slopes(ConditionalLoss(weighting=weighting), step, 30).tolist() for weighting in ("likelihood", "snr")
    )
    share = NU**2 / (NU**2 + NOISE)
    assert snr / likelihood == pytest.approx(1 / (1 - share), rel=0.02)


def test_the_variance_learns_from_the_state_and_not_from_its_mean() -> None:
    def gradient(objective: Objective) -> Tensor:
        transition = Step(6, 30).transition(torch.tensor(0.9), 40)
        assert isinstance(transition.reverse, NormalKernel)
        variance = torch.full((6, 1), 0.05, requires_grad=True)
        objective(
            transition._replace(reverse=NormalKernel(transition.reverse.mean, variance))
        ).sum().backward()
        assert variance.grad is not None
        return variance.grad

    torch.testing.assert_close(gradient(ConditionalLoss(weighting="snr")), gradient(WalkbackLoss()))


def test_stacked_rows_are_judged_as_they_are_one_by_one() -> None:
    first, second = (Step(3, 30, a).transition(torch.tensor(0.9), s) for a, s in ((1.0, 50), (0.7, 60)))

    loss = ConditionalLoss(weighting="snr")

    def both(name: str) -> Any:
        return torch.cat([getattr(first, name), getattr(second, name)])

    together = Transition(
        both("source"),
        both("target"),
        COLD,
        stacked([first.forward, second.forward], 3),
        NormalKernel(torch.cat([t.reverse.mean for t in (first, second)]), first.reverse.variance),  # type: ignore[attr-defined]
        both("anchor"),
    )
    torch.testing.assert_close(
        mean_gradient(loss, together), torch.cat([mean_gradient(loss, first), mean_gradient(loss, second)])
    )


def fixed_slope(u: float, n1: int) -> float:
    """α of the module's equation, by iteration."""
    share = math.sqrt(1 - NOISE / NU**2)
    slope = 0.99
    for _ in range(2000):
        cross, square = u, u + NU**2
        total = [0.0, 0.0]
        for t in range(1, n1 + 2):
            cross, square = slope * cross, slope**2 * square + NOISE
            weight = n1 + 2 - t
            total = [total[0] + weight * cross, total[1] + weight * square]
        slope = share + (1 - share) * total[0] / total[1]
    return slope


@pytest.mark.parametrize("n1", [0, 4])
def test_gaussian_data_have_the_fixed_point_of_the_equation(n1: int) -> None:
    """One of many directions varies; there the mean gradient of the walk's steps vanishes at α (z < 4.5, 7e-6)."""
    u, dims, rows = 1.0, 800, 4000
    slope = fixed_slope(u, n1)
    x = torch.zeros(rows, dims)
    x[:, 0] = normal(rows, stream=70)
    share = math.sqrt(1 - NOISE / NU**2)
    factors = torch.full((dims,), share)
    factors[0] = slope
    state = x + NU * normal(rows, dims, stream=71)
    gradient = torch.zeros(rows)
    for t in range(1, n1 + 2):
        forward = NormalKernel(factors * state, torch.full((1, dims), NOISE))
        target = forward.sample(rng(72, t))
        mean = (factors * target).requires_grad_()
        ConditionalLoss()(
            Transition(state, target, COLD, forward, NormalKernel(mean, torch.ones(1, dims)), x)
        ).sum().backward()
        assert mean.grad is not None
        gradient += (n1 + 2 - t) * mean.grad[:, 0] * target[:, 0]
        state = target
    error = gradient.std() / math.sqrt(rows)
    assert abs(gradient.mean()) < 4.5 * error
    wrong = (n1 + 1) * (n1 + 2) / 2 * 0.01 * (u + NU**2)  # what a slope that is 0.01 off would show
    assert wrong > 9 * error


@pytest.mark.parametrize(("w", "n1", "missing"), [(1 / 36, 0, 0.02), (1 / 36, 8, 0.05), (1 / 9, 8, 0.16)])
def test_how_narrow_the_law_is(monkeypatch: pytest.MonkeyPatch, w: float, n1: int, missing: float) -> None:
    monkeypatch.setattr(f"{__name__}.NOISE", w * NU**2)
    slope = fixed_slope(1.0, n1)
    assert 1 - NOISE / (1 - slope**2) / (1 + NU**2) == pytest.approx(missing, abs=0.005)


class Recorded(Objective):
    """Keeps the transitions that it judged."""

    def __init__(self) -> None:
        self.seen: list[Transition] = []

    def __call__(self, transition: Transition) -> Tensor:
        self.seen.append(transition)
        return -transition.log_p


@pytest.mark.parametrize("updates", ["online", "batch", "stacked"])
@pytest.mark.parametrize("own", [0.0, 0.5])
def test_training_hands_on_examples_without_their_noise(updates: str, own: float) -> None:
    data = Digits(noise=0.2)
    data.prepare()
    operator = gaussian_mlp(data.info.space, hidden=8, depth=1)
    model = Model(
        operator, DoublingSchedule(n1=0, max_temperature=4.0), TiedProcess(), GaussianPrior(data.info.space)
    )
    settings = TrainingSettings.model_validate(
        {"steps": 1, "batch_size": 4, "updates": updates, "chains": {"share": own, "pool": 4, "steps": 1}}
    )
    recorded = Recorded()
    Trainer(model, recorded, data, settings, seed=0, device=torch.device("cpu")).walk()
    first = recorded.seen[0]
    assert isinstance(first.source, Tensor)
    assert isinstance(first.anchor, Tensor)
    rows, chains = 4, round(4 * own)
    source, anchor = first.source[:rows], first.anchor[:rows]
    assert torch.equal(anchor[:chains], source[:chains])
    levels = 17 * anchor[chains:] - 0.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    scatter = (source - anchor)[chains:].std()
    assert scatter == pytest.approx(
        math.hypot(0.2, 1 / 17 / math.sqrt(12)), rel=0.25
    )  # 128 numbers: 4.5 errors
    for step in recorded.seen[1:]:
        assert isinstance(step.anchor, Tensor)
        assert torch.equal(step.anchor[:rows], anchor)


BITS, REAL = BernoulliKernel(torch.zeros(2, 3)), NormalKernel(torch.zeros(2, 3), torch.ones(1, 3))


@pytest.mark.parametrize(("forward", "reverse"), [(REAL, BITS), (BITS, REAL)])
def test_kernels_that_are_not_normal_are_refused(forward: Kernel, reverse: Kernel) -> None:
    state = torch.zeros(2, 3)
    with pytest.raises(ConfigurationError, match="BernoulliKernel for the objective 'conditional'"):
        ConditionalLoss()(Transition(state, state, COLD, forward, reverse, state))


def test_a_transition_of_no_walk_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="without anchor"):
        ConditionalLoss()(Step(2, 3).transition(torch.tensor(1.0), 0, anchor=False))


def test_bits_are_refused_before_training() -> None:
    done = walkback(
        "run", "--dry-run", *TINY, "--operator", "bernoulli-mlp", "--set", "objective.name=conditional"
    )
    assert (done.code, done.out) == (2, "")
    assert "BernoulliKernel for the objective 'conditional', expected normal kernels" in done.err


def test_a_share_above_one_is_refused() -> None:
    done = walkback(
        "run", "--dry-run", *TINY, "--set", "objective.name=conditional", "--set", "objective.kept=1.5"
    )
    assert (done.code, done.out) == (2, "")
    assert "objective.kept" in done.err
