"""Sampling: annealing through the levels hottest first, chains at T = 1, constant memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import final

import pytest
import torch
from tests.toy.exact import autoregressive, filled, gaussian, model, self_consistent
from tests.toy.learned import blind_bernoulli, seeing_gaussian
from tests.toy.statistics import LIMIT, normal, rng, z_of_variance, z_score
from torch import Tensor

from walkback.kernels import Kernel, NormalKernel
from walkback.operators import Conditional, TransitionOperator
from walkback.sampling import COLD, SamplePlan, anneal, chain, cool, last, sample_frames
from walkback.schedules import Level, levels_from
from walkback.state import Context, State, leaves

LEVELS = levels_from([1.0, 1.0, 2.0, 4.0])
MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
VARIANCE = torch.tensor([4.0, 0.25], dtype=torch.float64)
PRIOR = gaussian(MEAN, VARIANCE)


@final
class Tracer(Conditional):
    """N(s, T), noting every level it is asked for."""

    def __init__(self, state: Tensor, cooled: list[Level]) -> None:
        self._state = state
        self._cooled = cooled

    def cooling(self, level: Level) -> Kernel:
        self._cooled.append(level)
        return NormalKernel(self._state, filled(float(level.temperature), self._state))

    def heating(self, level: Level) -> Kernel:
        raise AssertionError("sampling heats nothing")


@final
class TracerOperator(TransitionOperator):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Level] = []
        self.cooled: list[Level] = []

    @property
    def max_temperature(self) -> float:
        return 1.0

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        self.seen.append(level)
        return Tracer(leaves(state)[0], self.cooled)


def test_annealing_cools_through_the_levels_hottest_first() -> None:
    """K + 1 states from K network calls; the network at s_t sees level t, as in the bound."""
    operator = TracerOperator()
    states = list(anneal(operator, PRIOR, LEVELS, 3, rng()))
    assert len(states) == len(LEVELS) + 1
    assert operator.seen == operator.cooled == list(reversed(LEVELS))
    assert leaves(states[0])[0].equal(leaves(PRIOR.sample(3, rng()))[0])


def test_cooling_goes_on_from_any_state() -> None:
    """Annealing is a draw from the prior, then cooling with the same generator."""
    operator, generator = seeing_gaussian(2).eval(), rng(5)
    annealed = list(anneal(operator, PRIOR, LEVELS, 3, rng(5)))
    cooled = list(cool(operator, PRIOR.sample(3, generator), LEVELS, generator))
    assert all(leaves(a)[0].equal(leaves(b)[0]) for a, b in zip(annealed[1:], cooled, strict=True))


def test_a_chain_stays_at_one_level() -> None:
    operator = TracerOperator()
    list(chain(operator, normal(2, 1), 3, rng()))
    assert operator.cooled == [COLD] * 3 == [Level(1, 1.0)] * 3
    list(chain(operator, normal(2, 1), 2, rng(), level=Level(7, 3.0)))
    assert operator.cooled[3:] == operator.seen[3:] == [Level(7, 3.0)] * 2


@pytest.mark.parametrize(
    ("num_steps", "every", "kept"), [(6, 2, [2, 4, 6]), (7, 3, [3, 6]), (2, 3, []), (0, 1, [])]
)
def test_a_chain_yields_every_so_many_steps(num_steps: int, every: int, kept: list[int]) -> None:
    operator = seeing_gaussian(2).eval()
    whole = list(chain(operator, normal(3, 2), num_steps, rng(1)))
    thinned = list(chain(operator, normal(3, 2), num_steps, rng(1), every=every))
    assert len(thinned) == len(kept)
    assert all(leaves(a)[0].equal(leaves(whole[step - 1])[0]) for a, step in zip(thinned, kept, strict=True))


def test_the_last_of_a_stream() -> None:
    assert leaves(last(iter([torch.zeros(1), torch.ones(1)])))[0].item() == 1
    with pytest.raises(ValueError, match="empty stream"):
        last(iter([]))


def most_alive(states: Iterator[State]) -> int:
    """The largest number of yielded states that were alive at once."""
    references: list[weakref.ref[Tensor]] = []
    most = 0
    for state in states:
        references.append(weakref.ref(leaves(state)[0]))
        most = max(most, sum(reference() is not None for reference in references))
    return most


@pytest.mark.parametrize("num_steps", [3, 60])
def test_memory_does_not_grow_with_the_number_of_steps(num_steps: int) -> None:
    """A chain holds its one state; annealing also holds where it started."""
    operator = seeing_gaussian(2).eval()
    assert most_alive(chain(operator, normal(3, 2), num_steps, rng())) == 1
    assert most_alive(cool(operator, normal(3, 2), levels_from([1.0] * num_steps), rng())) == 1
    assert most_alive(anneal(operator, PRIOR, levels_from([1.0] * num_steps), 3, rng())) <= 2


def test_states_carry_no_graph_and_gradients_stay_on_outside() -> None:
    operator = seeing_gaussian(2)
    for state in anneal(operator, PRIOR, LEVELS, 3, rng()):
        assert not leaves(state)[0].requires_grad
        assert torch.is_grad_enabled()
    for state in chain(operator, normal(3, 2), 3, rng()):
        assert leaves(state)[0].grad_fn is None
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("operator", [seeing_gaussian(2).eval(), blind_bernoulli(2)])
def test_sampling_depends_on_the_generator_alone(operator: TransitionOperator) -> None:
    before = torch.get_rng_state()
    start = (normal(4, 2) > 0).double()
    ends = [leaves(last(chain(operator, start, 5, rng(seed))))[0] for seed in (1, 1, 2)]
    assert ends[0].equal(ends[1])
    assert not ends[0].equal(ends[2])
    assert torch.get_rng_state().equal(before)


def test_annealing_a_stationary_chain_samples_its_law() -> None:
    """20,000 samples of the reversible AR(1) chain from its own law: mean and variance, |z| < 4.5."""
    operator = autoregressive(0.6, MEAN, VARIANCE)
    samples = leaves(last(anneal(operator, PRIOR, LEVELS, 20_000, rng())))[0]
    for dimension in range(2):
        assert abs(z_score(samples[:, dimension], float(MEAN[dimension]))) < LIMIT
        assert abs(z_of_variance(samples[:, dimension], float(VARIANCE[dimension]))) < LIMIT


def test_extra_steps_forget_a_wrong_start() -> None:
    """200 steps at T = 1 of the self-consistent operator bring a spike to N(0, u), |z| < 4.5."""
    operator = self_consistent(VARIANCE, sigma=0.3)
    end = leaves(last(chain(operator, torch.zeros(20_000, 2, dtype=torch.float64), 200, rng())))[0]
    spread = VARIANCE * (1 - (1 - 0.09 / VARIANCE) ** 200)
    for dimension in range(2):
        assert abs(z_of_variance(end[:, dimension], float(spread[dimension]))) < LIMIT


def frames(plan: SamplePlan) -> list[Tensor]:
    system = model(seeing_gaussian(2).eval(), PRIOR, LEVELS)
    told = list(sample_frames(system, LEVELS, plan, torch.device("cpu")))
    assert [done for done, _, _ in told] == list(range(plan.total_steps(LEVELS) + 1))
    recorded = [(step, leaves(state)[0]) for _, step, state in told if state is not None]
    assert [step for step, _ in recorded] == list(range(0, plan.chain + 1, plan.every))
    return [state for _, state in recorded]


def test_extra_steps_are_steps_of_the_chain_before_the_first_frame() -> None:
    recorded = frames(SamplePlan(num=3, extra=4, chain=6, every=3, seed=1))
    for frame, state in enumerate(recorded):
        (alone,) = frames(SamplePlan(num=3, extra=4 + 3 * frame, seed=1))
        assert state.equal(alone)
    assert not recorded[0].equal(recorded[1])


def test_each_batch_of_samples_has_a_stream_of_its_own() -> None:
    """The first batch of a larger plan is the smaller plan."""
    (few,) = frames(SamplePlan(num=4, batch_size=4))
    (many,) = frames(SamplePlan(num=10, batch_size=4))
    assert many.shape == (10, 2)
    assert many[:4].equal(few)
    assert not many[4:8].equal(few)
