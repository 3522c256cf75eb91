"""The walk: one record a step, K + 1 forwards, no gradient through the states, equal to the two-forward walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import final

import pytest
import torch
from tests.toy.learned import blind_bernoulli, blind_gaussian, seeing_gaussian
from tests.toy.statistics import normal, rng
from torch import Tensor, nn

from walkback.kernels import Kernel, NormalKernel
from walkback.levels import tensor_levels
from walkback.operators import Conditional, TransitionOperator
from walkback.processes import StepwiseProcess, TiedProcess
from walkback.schedules import Level, Levels, levels_from
from walkback.state import Context, State, leaves
from walkback.testing.reference import reference_walk
from walkback.walk import Heating, Start, Transition, walk

LEVELS = levels_from([1.0, 1.0, 2.0, 4.0, 8.0])
TIED = TiedProcess().heating
Walk = Callable[[TransitionOperator, Heating, Start, Levels, torch.Generator], Iterator[Transition]]


def bits() -> Tensor:
    return (normal(6, 3) > 0).double()


CASES: dict[str, tuple[Callable[[], TransitionOperator], Callable[[], Tensor]]] = {
    "gaussian": (blind_gaussian, lambda: normal(6, 3)),
    "bernoulli": (blind_bernoulli, bits),
}


def forwards(module: nn.Module, run: Callable[[], object]) -> int:
    """How often `run` calls `module`."""
    calls: list[int] = []
    with module.register_forward_hook(lambda *_: calls.append(1)):
        run()
    return len(calls)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_a_walk_of_k_steps_runs_the_network_k_plus_1_times(num_steps: int) -> None:
    operator, levels = blind_gaussian(), LEVELS[:num_steps]
    assert (
        forwards(operator.network, lambda: list(walk(operator, TIED, Start(normal(6, 3)), levels, rng())))
        == num_steps + 1
    )


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_the_reference_walk_runs_it_2k_times(num_steps: int) -> None:
    operator, levels = blind_gaussian(), LEVELS[:num_steps]
    steps = forwards(
        operator.network, lambda: list(reference_walk(operator, TIED, Start(normal(6, 3)), levels, rng()))
    )
    assert steps == 2 * num_steps


def gradients(
    operator: TransitionOperator, transitions: Iterator[Transition]
) -> tuple[list[Transition], list[Tensor]]:
    """The transitions, and the gradient of the mean walkback loss accumulated step by step."""
    steps = []
    for step in transitions:
        (-step.log_p.mean() / len(LEVELS)).backward()
        steps.append(step)
    return steps, [weight.grad for weight in operator.parameters() if weight.grad is not None]


@pytest.mark.parametrize("name", CASES)
def test_both_walks_are_exactly_equal_where_the_network_does_not_see_the_level(name: str) -> None:
    """Transitions, densities and accumulated gradients, bit by bit."""
    make, origin = CASES[name]
    one, two = make(), make()
    ours, our_gradients = gradients(one, walk(one, TIED, Start(origin()), LEVELS, rng(3)))
    theirs, their_gradients = gradients(two, reference_walk(two, TIED, Start(origin()), LEVELS, rng(3)))
    assert len(ours) == len(theirs) == len(LEVELS)
    for a, b in zip(ours, theirs, strict=True):
        assert a.level == b.level
        assert all(leaves(x)[0].equal(leaves(y)[0]) for x, y in [(a.source, b.source), (a.target, b.target)])
        assert a.log_q.equal(b.log_q)
        assert a.log_p.equal(b.log_p)
    assert len(our_gradients) == len(their_gradients) > 4
    assert all(a.equal(b) and bool(a.any()) for a, b in zip(our_gradients, their_gradients, strict=True))


def test_the_walks_differ_where_the_network_sees_the_level() -> None:
    """The comparison above has power: heating at the next level's mean is another walk."""
    operator = seeing_gaussian()
    ours = list(walk(operator, TIED, Start(normal(6, 3)), LEVELS, rng(3)))
    theirs = list(reference_walk(operator, TIED, Start(normal(6, 3)), LEVELS, rng(3)))
    assert leaves(ours[1].target)[0].equal(leaves(theirs[1].target)[0])
    assert not leaves(ours[2].target)[0].equal(leaves(theirs[2].target)[0])


def test_levels_held_as_tensors_make_the_same_walk() -> None:
    """What compilation uses, so that a temperature is not a constant of the program."""
    operator = seeing_gaussian()
    plain = list(walk(operator, TIED, Start(normal(6, 3)), LEVELS, rng(3)))
    tensors = list(
        walk(operator, TIED, Start(normal(6, 3)), tensor_levels(LEVELS, torch.device("cpu")), rng(3))
    )
    for a, b in zip(plain, tensors, strict=True):
        assert leaves(a.target)[0].equal(leaves(b.target)[0])
        assert a.log_p.equal(b.log_p)


def test_transitions_form_a_chain_through_the_levels() -> None:
    origin = normal(6, 3)
    steps = list(walk(blind_gaussian(), TIED, Start(origin), LEVELS, rng()))
    assert steps[0].source is origin
    assert all(before.target is after.source for before, after in pairwise(steps))
    assert tuple(step.level for step in steps) == LEVELS


@final
class Recorder(TransitionOperator):
    """Keeps the levels that the network and the kernels are asked for; kernels are N(s, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Level] = []
        self.cooled: list[Level] = []
        self.heated: list[Level] = []

    @property
    def max_temperature(self) -> float:
        return 1.0

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        self.seen.append(level)
        return Recorded(self, leaves(state)[0])


@final
class Recorded(Conditional):
    def __init__(self, recorder: Recorder, state: Tensor) -> None:
        self._recorder = recorder
        self._state = state

    def cooling(self, level: Level) -> Kernel:
        self._recorder.cooled.append(level)
        return NormalKernel(self._state, level.temperature_like(self._state))

    def heating(self, level: Level) -> Kernel:
        self._recorder.heated.append(level)
        return NormalKernel(self._state, level.temperature_like(self._state))


def test_levels_that_each_state_and_kernel_sees() -> None:
    """s_t is seen at level t (s_0 at level 1); step t heats and cools at level t."""
    recorder, levels = Recorder(), LEVELS[1:4]
    steps = list(walk(recorder, TIED, Start(normal(2, 1)), levels, rng()))
    assert recorder.seen == [levels[0], *levels]
    assert recorder.heated == recorder.cooled == list(levels)
    for step in steps:
        noise = leaves(step.target)[0] - leaves(step.source)[0]
        expected = (
            torch.distributions.Normal(0.0, float(step.level.temperature) ** 0.5).log_prob(noise).sum(1)
        )
        torch.testing.assert_close(step.log_q, expected)
        torch.testing.assert_close(step.log_p, expected)


def test_the_reference_walk_sees_both_states_at_the_level_of_the_step() -> None:
    recorder = Recorder()
    list(reference_walk(recorder, TIED, Start(normal(2, 1)), LEVELS[1:3], rng()))
    assert recorder.seen == [LEVELS[1], LEVELS[1], LEVELS[2], LEVELS[2]]


@final
class Infusion(StepwiseProcess):
    """Heats around where the walk came from: N(origin, T)."""

    @property
    def max_temperature(self) -> None:
        """The operator's."""

    def heating(self, conditional: Conditional, source: State, level: Level, origin: State) -> Kernel:
        (x,) = leaves(origin)
        return NormalKernel(x, level.temperature_like(x))


@pytest.mark.parametrize("walker", [walk, reference_walk])
def test_a_process_decides_how_to_heat(walker: Walk) -> None:
    origin = 1000 + normal(6, 3)
    steps = list(walker(Recorder(), Infusion().heating, Start(origin), LEVELS, rng()))
    assert all((leaves(step.target)[0] - origin).abs().max() < 20 for step in steps)
    noise = leaves(steps[-1].target)[0] - origin
    expected = torch.distributions.Normal(0.0, float(LEVELS[-1].temperature) ** 0.5).log_prob(noise).sum(1)
    torch.testing.assert_close(steps[-1].log_q, expected)


@pytest.mark.parametrize("walker", [walk, reference_walk])
def test_states_are_detached(walker: Walk) -> None:
    for step in walker(blind_gaussian(), TIED, Start(normal(6, 3)), LEVELS, rng()):
        assert not leaves(step.target)[0].requires_grad
        assert step.log_p.requires_grad


def walkback_loss(operator: TransitionOperator, steps: list[tuple[State, State, Level]]) -> Tensor:
    """-log p_T(s_{t-1} | s_t) summed over a recorded walk, states held fixed."""
    losses = [
        -operator(target, level).cooling(level).log_prob(source).mean() for source, target, level in steps
    ]
    return torch.stack(losses).sum()


def derivative(function: Callable[[], Tensor], weight: Tensor, step: float = 1e-6) -> float:
    """Central difference with respect to the first element of a weight."""
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            weight.view(-1)[0] += sign * step
            values.append(float(function()))
            weight.view(-1)[0] -= sign * step
    return (values[0] - values[1]) / (2 * step)


def rewalked(operator: TransitionOperator) -> Callable[[], Tensor]:
    """The loss of the walk taken anew with the same noise: it moves with the weights."""
    return lambda: torch.stack(
        [-step.log_p.mean() for step in walk(operator, TIED, Start(normal(6, 3)), LEVELS, rng(3))]
    ).sum()


def test_no_gradient_flows_through_the_walk() -> None:
    """The gradient is the numerical one with the states frozen, and not the one of the moving walk."""
    operator = blind_gaussian()
    steps = list(walk(operator, TIED, Start(normal(6, 3)), LEVELS, rng(3)))
    torch.stack([-step.log_p.mean() for step in steps]).sum().backward()
    frozen = [(step.source, step.target, step.level) for step in steps]
    for name, weight in operator.named_parameters():
        assert weight.grad is not None, name
        ours = float(weight.grad.view(-1)[0])
        assert ours == pytest.approx(
            derivative(lambda: walkback_loss(operator, frozen), weight), rel=1e-5, abs=1e-7
        )
    head = operator.network.heads[0].bias
    moving = derivative(rewalked(operator), head)
    assert abs(moving - float(head.grad.view(-1)[0])) > 0.1 * abs(moving)


def test_an_update_in_the_middle_acts_from_the_next_network_call_on() -> None:
    """Online: s_{t+1} is drawn from the output at s_t of before the update, and judged by the new weights."""
    operator, old = blind_gaussian(), blind_gaussian()
    steps = walk(operator, TIED, Start(normal(6, 3)), LEVELS, rng(3))
    first = next(steps)
    with torch.no_grad():
        for weight in operator.parameters():
            weight += 0.1
    second = next(steps)
    level = LEVELS[1]
    drawn_from = old(first.target, level).heating(level).log_prob(second.target)
    assert second.log_q.equal(drawn_from)
    assert second.log_p.equal(operator(second.target, level).cooling(level).log_prob(first.target))


@pytest.mark.parametrize("walker", [walk, reference_walk])
def test_a_walk_depends_on_its_generator_alone(walker: Walk) -> None:
    operator = seeing_gaussian().eval()
    before = torch.get_rng_state()
    ends = [
        leaves(list(walker(operator, TIED, Start(normal(6, 3)), LEVELS, rng(s)))[-1].target)[0]
        for s in (1, 1, 2)
    ]
    assert ends[0].equal(ends[1])
    assert not ends[0].equal(ends[2])
    assert torch.get_rng_state().equal(before)
