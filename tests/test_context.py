"""A context goes with the rows of a state: through walks, updates, chains, samples, works, diagnostics and pictures."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.toy.data import InMemory
from tests.toy.exact import Fixed, UniformPrior, gaussian, model
from tests.toy.labelled import SCALE, Around, Homing, Told
from tests.toy.processes import Jumps
from tests.toy.statistics import LIMIT, normal, rng, z_score
from tests.toy.trainers import CPU, MODES, Updates, everything, resumed
from torch import Tensor

from walkback.configuration.settings import TrainingSettings
from walkback.data import (
    Batch,
    DataInfo,
    batch_of,
    context_of,
    draw_labels,
    labels_in_turn,
)
from walkback.diagnostics import Subject
from walkback.errors import ConfigurationError
from walkback.measuring.bound import estimate_bound, path_bound
from walkback.measuring.traces import settle, trace
from walkback.measuring.work import cooling_work, heating_work, reheating_work
from walkback.model import Model
from walkback.objectives import AnyObjective
from walkback.processes import TiedProcess
from walkback.sampling import SamplePlan, anneal, chain, cool, last, sample_frames
from walkback.sampling.inpainting import fill_in, inpaint
from walkback.schedules import Level, levels_from
from walkback.state import State, concatenate_contexts, leaves, map_context
from walkback.storage.work_cache import WorkCache
from walkback.training.paths import path_loss
from walkback.training.trainer import Trainer
from walkback.walk import Start
from walkback_paper.objectives import NegativeBound, WalkbackLoss

LEVELS = levels_from([1.0, 1.0, 2.0])
LABELS = torch.tensor([2, 0, 1, -1, 2])
MEANS = torch.tensor([[-1.0, 0.5], [2.0, 0.0], [0.3, 0.3]], dtype=torch.float64)
"""Of class 0, of class 1, and of none."""


def homes(labels: Tensor) -> list[float]:
    """Where states of these classes are."""
    return [SCALE * float(label) for label in labels]


def ends(state: State) -> list[float]:
    """The first entry of each row, rounded."""
    return leaves(state)[0].flatten(1)[:, 0].round().tolist()


def homing(**options: Any) -> Model:
    prior = gaussian(torch.zeros(2), torch.full((2,), 1e-6, dtype=torch.float64))
    return model(Homing(**options), prior, LEVELS)


def start(labels: Tensor = LABELS) -> Start:
    """At -1, where no class is; a row without class stays."""
    return Start(-torch.ones(len(labels), 2).double(), context=labels)


WHERE = [20.0, 0.0, 10.0, -1.0, 20.0]


# --- through the mathematics


def test_a_walk_takes_each_row_by_its_own_label() -> None:
    system = homing()
    for step in system.walk(start(), LEVELS, rng()):
        assert ends(step.target) == WHERE
        assert step.context is LABELS
    assert len(system.operator.seen) == len(LEVELS) + 1  # type: ignore[arg-type]


def test_a_path_of_jumps_does_too() -> None:
    system = homing()
    for step in Jumps().path(system.operator, start(), LEVELS, rng()):
        assert ends(step.reverse.sample(rng()))[:3] == WHERE[:3]


def test_chains_are_those_of_each_class() -> None:
    system, here = homing(), start()
    assert ends(last(chain(system.operator, here.state, 2, rng(), LABELS))) == WHERE
    assert ends(last(cool(system.operator, here.state, LEVELS, rng(), LABELS))) == WHERE
    annealed = last(anneal(system.operator, system.prior, LEVELS, 5, rng(), LABELS))
    assert ends(annealed) == [20.0, 0.0, 10.0, 0.0, 20.0]  # the prior is at 0


def test_samples_drawn_batch_by_batch_keep_their_labels() -> None:
    plan = SamplePlan(num=5, extra=1, chain=2, batch_size=2)
    shown = sample_frames(homing(), LEVELS, plan, CPU, context=LABELS)
    frames = [state for _, step, state in shown if step is not None and state is not None]
    assert [ends(frame) for frame in frames] == [[20.0, 0.0, 10.0, 0.0, 20.0]] * 3
    began = sample_frames(homing(), (), plan, CPU, -torch.ones(5, 2).double(), LABELS)
    frames = [state for _, step, state in began if step is not None and state is not None]
    assert ends(frames[-1]) == WHERE


def test_inpainting_fills_in_what_a_label_says(monkeypatch: pytest.MonkeyPatch) -> None:
    known, mask = 7 * torch.ones(5, 2).double(), torch.tensor([True, False])
    filled = last(inpaint(homing(), known, mask, LEVELS, rng(), LABELS, extra=2))
    assert leaves(filled)[0][:, 0].tolist() == [7.0] * 5
    assert leaves(filled)[0][:, 1].round().tolist() == [20.0, 0.0, 10.0, 0.0, 20.0]
    monkeypatch.setattr("walkback.sampling.inpainting.BATCH", 2)
    options: dict[str, Any] = {"extra": 1, "seed": 0}
    shown = fill_in(homing(), known, mask, LEVELS, LABELS, readout="mean", **options)
    assert shown[:, 1].round().tolist() == [20.0, 0.0, 10.0, 0.0, 20.0]


@pytest.mark.parametrize("label", [0, 1, -1])
def test_works_given_a_class_average_to_the_likelihood_given_it(label: int) -> None:
    """E[exp(-W)] over heating paths is p(s_0 | k), and cooling from N(0, w) by K steps ends in a normal law:

    its mean is m (1 - a^K), its variance a^{2K} w + (1 - a^{2K}) σ².
    """
    a, num, w = 0.6, 60_000, 0.8
    system = model(Around(MEANS, a), gaussian(torch.zeros(2), torch.full((2,), w).double()), LEVELS)
    kept = a ** len(LEVELS)
    spread = math.sqrt(kept**2 * w + 1 - kept**2)
    law = torch.distributions.Normal(MEANS[label] * (1 - kept), torch.tensor(spread).double())
    x = torch.tensor([0.4, 0.1], dtype=torch.float64).expand(num, 2)
    context = torch.full((num,), label)
    weights = (-heating_work(system, x, LEVELS, rng(1), context).work).exp()
    assert abs(z_score(weights, float(law.log_prob(x[0]).sum().exp()))) < LIMIT
    state, cooled = cooling_work(system, num, LEVELS, rng(2), context)
    (found,) = leaves(state)
    assert abs(z_score(found[:, 0], float(law.mean[0]))) < LIMIT
    again = reheating_work(system, state, LEVELS, rng(3), context).work
    assert float(again.mean()) >= float(cooled.work.mean())  # E[W] of heating is above, of cooling below
    torch.testing.assert_close(
        path_bound(system, x[:9], LEVELS, rng(4), context[:9]),
        -heating_work(system, x[:9], LEVELS, rng(4), context[:9]).work,
    )


def test_without_context_it_is_what_it_was_and_minus_one_is_none() -> None:
    system = model(Around(MEANS), gaussian(torch.zeros(2), torch.ones(2).double()), LEVELS)
    data = normal(20, 2)
    silent, none = (heating_work(system, data, LEVELS, rng(), c).work for c in (None, torch.full((20,), -1)))
    told = heating_work(system, data, LEVELS, rng(), torch.zeros(20, dtype=torch.int64)).work
    assert silent.equal(none)
    assert not silent.equal(told)


@pytest.mark.parametrize("how", ["never", "always"])
def test_a_path_objective_reaches_the_parameters_of_the_classes_that_are_there(how: Any) -> None:
    system = model(Around(MEANS), gaussian(torch.zeros(2), torch.ones(2).double()), LEVELS)
    context = torch.tensor([0, 0, -1, 0])
    begin = Start(normal(4, 2), context=context)
    loss, _ = path_loss(system, NegativeBound(checkpointing=how), begin, LEVELS, rng(3))
    torch.testing.assert_close(loss, heating_work(system, normal(4, 2), LEVELS, rng(3), context).work)
    torch.autograd.backward(loss.sum())
    gradient = system.operator.get_parameter("means").grad
    assert gradient is not None
    assert gradient.abs().sum(1).gt(0).tolist() == [True, False, True]


def test_the_bound_of_batches_is_that_given_their_labels() -> None:
    """In detailed balance, and a prior that is the class's own law, every path says log p(s_0 | k)."""
    system = model(Around(MEANS), gaussian(MEANS[1], torch.ones(2).double()), LEVELS)
    data, told = MEANS[1] + normal(30, 2), torch.ones(30, dtype=torch.int64)
    found = estimate_bound(
        system, [Batch(data, told)[:20], Batch(data, told)[20:]], DataInfo("", (2,)), rng()
    )
    exact = -torch.distributions.Normal(MEANS[1], 1.0).log_prob(data).sum(1).mean()
    assert found.nats == pytest.approx(float(exact), rel=1e-12)
    assert estimate_bound(system, [Batch(data)], DataInfo("", (2,)), rng()).nats > found.nats + 0.1


# --- through training


def trainer(operator: Homing | Around, objective: AnyObjective | None = None, **settings: Any) -> Trainer:
    chosen = TrainingSettings(**{"steps": 20, "batch_size": 12, "lr": 0.01, "ema": 0.0, **settings})
    prior = gaussian(torch.zeros(2), torch.ones(2).double())
    system = Model(operator, Fixed(LEVELS), TiedProcess(), prior)
    return Trainer(system, objective or WalkbackLoss(), Told(), chosen, seed=0, device=CPU)


@pytest.mark.parametrize("updates", MODES)
def test_updates_tell_the_operator_the_labels_of_the_rows(updates: Updates) -> None:
    """States of class k are 10 k in these data, so each row says what its label has to be."""
    operator = Around(torch.tensor([[0.0, 0.0], [10.0, 10.0], [20.0, 20.0], [10.0, 10.0]]).double(), a=0.99)
    seen: list[tuple[Tensor, Tensor]] = []
    operator.register_forward_pre_hook(lambda _, given: seen.append((leaves(given[0])[0], given[2])))
    worker = trainer(operator, updates=updates, unlabelled=0.25)
    for _ in range(10):
        worker.walk()
    states, labels = torch.cat([state for state, _ in seen]), torch.cat([label for _, label in seen])
    told = labels >= 0
    assert (states[told][:, 0] / SCALE).round().long().equal(labels[told])
    assert 0.1 < float((~told).double().mean()) < 0.4


@pytest.mark.parametrize("updates", MODES)
def test_data_that_tell_nothing_have_no_context(updates: Updates) -> None:
    operator = Around(MEANS)
    seen: list[Any] = []
    operator.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    settings = TrainingSettings(batch_size=12, updates=updates)
    system = Model(operator, Fixed(LEVELS), TiedProcess(), gaussian(torch.zeros(2), torch.ones(2).double()))
    Trainer(system, WalkbackLoss(), Told(told=False), settings, seed=0, device=CPU).walk()
    assert set(seen) == {None}


def test_batch_and_stacked_updates_agree() -> None:
    found = []
    for updates in ("batch", "stacked"):
        operator = Around(MEANS[[0, 1, 0, 2]], sigma=5.0)
        worker = trainer(operator, updates=updates)
        found.append((float(worker.walk()), operator.means.detach().clone()))
    (one, weights), (two, others) = found
    assert one == pytest.approx(two, rel=1e-6)
    torch.testing.assert_close(weights, others, rtol=1e-9, atol=1e-9)


def test_training_finds_the_mean_of_each_class_and_of_none() -> None:
    """With a = 0 a step forgets: only the first of a walk pulls, m_k to the data of class k, m of none to all data."""
    operator = Around(torch.full((4, 2), 9.0).double(), a=0.0)
    worker = trainer(operator, lr=0.5, steps=300, unlabelled=0.3, lr_schedule="cosine")
    for _ in range(300):
        worker.walk()
    expected = torch.tensor([0.0, 10.0, 20.0, 10.0]).double()[:, None].expand(4, 2)
    torch.testing.assert_close(operator.means.detach(), expected, rtol=0, atol=0.6)


@pytest.mark.parametrize("direction", ["cooling", "heating"])
def test_a_persistent_chain_keeps_its_label(direction: str) -> None:
    """States stay at the home of their class: a chain whose label was another row's would be seen."""
    operator = Around(torch.tensor([[0.0, 0.0], [10.0, 10.0], [20.0, 20.0], [50.0, 50.0]]).double(), a=0.99)
    worker = trainer(
        operator,
        chains={"share": 0.5, "pool": 9, "steps": 2, "direction": direction, "restart": 0.3},
        unlabelled=0.2,
    )
    seen: list[tuple[Tensor, Tensor]] = []
    operator.register_forward_pre_hook(lambda _, given: seen.append((leaves(given[0])[0], given[2])))
    assert worker._start(0, rng()).context is not None
    for _ in range(30):
        started = worker._start(len(seen), rng(len(seen)))
        labels = leaves(started.context)[0]  # type: ignore[arg-type]
        told = labels >= 0
        assert (leaves(started.state)[0][told][:, 0] / SCALE).round().long().equal(labels[told])
    states, labels = torch.cat([state for state, _ in seen]), torch.cat([label for _, label in seen])
    told = labels >= 0
    assert len(told) > 300
    assert (states[told][:, 0] / SCALE).round().long().equal(labels[told])


def test_a_trainer_with_labels_and_chains_resumes_exactly() -> None:
    def new(seed: int) -> Trainer:
        return trainer(Around(normal(4, 2, seed=seed), sigma=5.0), chains={"share": 0.5, "pool": 9})

    straight, stopped = new(0), new(0)
    for number in range(4):
        if number == 2:
            stopped = resumed(stopped, new(1))
        assert straight.walk().equal(stopped.walk())
    ours, theirs = everything(straight), everything(stopped)
    assert "chains.context.0" in ours
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


# --- through data and diagnostics


def test_batches_have_the_labels_of_their_rows() -> None:
    data = Told(20)
    found = batch_of(data, "test", torch.tensor([4, 0, 5]), rng())
    assert leaves(found.context)[0].tolist() == [1, 0, 2]  # type: ignore[arg-type]
    assert (found.states[:, 0] / SCALE).round().tolist() == [1.0, 0.0, 2.0]
    assert len(found) == 3
    assert leaves(found[1:].context)[0].tolist() == [0, 2]  # type: ignore[arg-type]
    assert context_of(Told(told=False), "test", slice(3), CPU) is None


def test_classes_without_labels_are_refused() -> None:
    data = InMemory(normal(10, 2))
    info = DataInfo("unlabelled", (2,), splits=data.info.splits, classes={"a": 5, "b": 5})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InMemory, "info", info)
        with pytest.raises(ConfigurationError, match=r"has no labels.*data.condition = 'none'"):
            context_of(data, "train", slice(2), CPU)


def test_a_record_of_data_keeps_its_classes_in_order() -> None:
    info = DataInfo("", (2,), classes={"zebra": 7, "ant": 3})
    again = DataInfo.from_dict(info.to_dict())
    assert again == info
    assert list(again.classes.items()) == [("zebra", 7), ("ant", 3)]
    assert again.space.classes == 2
    record = info.to_dict()
    del record["classes"]  # as files have it that were written before
    assert DataInfo.from_dict(record).classes == {}


def test_labels_are_drawn_as_often_as_in_training() -> None:
    info = DataInfo("", (2,), classes={"a": 10, "b": 0, "c": 30})
    labels = draw_labels(info, 20_000, rng())
    assert isinstance(labels, Tensor)
    assert set(labels.tolist()) == {0, 2}
    assert abs(z_score((labels == 2).double(), 0.75)) < LIMIT
    turns = labels_in_turn(info, 5, CPU)
    assert isinstance(turns, Tensor)
    assert turns.tolist() == [0, 1, 2, 0, 1]
    assert draw_labels(DataInfo("", (2,)), 3, rng()) is labels_in_turn(DataInfo("", (2,)), 3, CPU) is None


def subject(system: Model, cache: WorkCache | None = None) -> Subject:
    return Subject(system, Told().info, Told, cache=cache or WorkCache())


@pytest.mark.parametrize("begin", ["annealed", "data"])
def test_chains_of_a_diagnostic_have_labels(begin: Any) -> None:
    system = subject(homing())
    found = system.start(begin, 12)
    labels = leaves(found.context)[0]  # type: ignore[arg-type]
    assert ends(found.state) == homes(labels)
    assert len(labels.unique()) == 3
    later = settle(system, found, Level(1, 1.0), 3)
    assert ends(later.state) == homes(labels)
    ran = trace(system, later, Level(1, 1.0), 4, lambda step: leaves(step.target)[0], name="long")
    assert (ran.values[-1, :, 0]).round().tolist() == homes(labels)
    data = system.held_out("test", 9)
    assert ends(data.states) == homes(leaves(data.context)[0])  # type: ignore[arg-type]


def test_contexts_join_as_states_do() -> None:
    one, two = torch.tensor([1]), torch.tensor([2, -1])
    joined = concatenate_contexts([one, two])
    assert isinstance(joined, Tensor)
    assert joined.tolist() == [1, 2, -1]
    assert concatenate_contexts([None, None]) is concatenate_contexts([]) is None
    pair = map_context(lambda leaf: leaf + 1, (one, two))
    assert isinstance(pair, tuple)
    assert [leaf.tolist() for leaf in pair] == [[2], [3, 0]]
    assert UniformPrior(()) is not None
