"""The walk of the linear part: its jumps against steps composed in float64, and training without walks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.test_linear_form import exact_operator, rng, schedule
from tests.toy.statistics import LIMIT

import walkback as wb
from walkback.errors import ConfigurationError
from walkback.processes import TiedProcess
from walkback.schedules import Levels, levels_from
from walkback.state import Space
from walkback.walk import Start, walk
from walkback_networks.mlp import MLP
from walkback_paper.gaussian import Gaussian
from walkback_paper.linear_walk import LinearWalk

ROWS = 1000


def levels() -> Levels:
    return levels_from(schedule(1.6, 1, 4000.0))


def examples(rows: int, seed: int = 3) -> torch.Tensor:
    _, covariance = exact_operator()
    noise = torch.randn(rows, 6, generator=rng(seed), dtype=torch.float64)
    return exact_operator()[0].parametrization.data_mean + noise @ torch.linalg.cholesky(covariance).T


def test_before_training_it_is_the_tied_walk() -> None:
    operator, _ = exact_operator()
    start = Start(examples(8))
    ours = [t.target for t in walk(operator, LinearWalk().heating, start, levels(), rng(0))]
    tied = [t.target for t in walk(operator, TiedProcess().heating, start, levels(), rng(0))]
    for one, other in zip(ours, tied, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_jumps_and_posteriors_have_the_law_of_composed_steps() -> None:
    operator, _ = exact_operator()
    linear = operator.parametrization
    one = examples(1)
    start = Start(one.expand(ROWS, 6).clone())
    z0 = linear.basis.coordinates(one - linear.data_mean)[0]
    # Every state and pair of states by composition of the single steps, one number a direction.
    means, variances, crossed = [z0], [torch.zeros(6, dtype=torch.float64)], []
    for level in levels():
        share = (1 - linear.noise(level)[0] / linear.variances).clamp(min=0).sqrt()
        crossed.append(share * variances[-1])
        means.append(share * means[-1])
        variances.append(share**2 * variances[-1] + linear.noise(level)[0])
    for transition in LinearWalk().path(operator, start, levels(), rng(1)):
        source, target = (
            linear.basis.coordinates(s - linear.data_mean) for s in (transition.source, transition.target)
        )
        steps = torch.as_tensor(transition.level.step).expand(ROWS)
        for t in steps.unique().tolist():
            rows = steps == t
            count = int(rows.sum())
            for states, k in ((target[rows], t), (source[rows], t - 1)):
                error = (states.mean(0) - means[k]) / (variances[k] / count).sqrt().clamp(min=1e-12)
                assert error.abs().max() < LIMIT
            product = ((source[rows] - means[t - 1]) * (target[rows] - means[t])).mean(0)
            spread = ((variances[t - 1] * variances[t] + crossed[t - 1] ** 2) / count).sqrt()
            assert ((product - crossed[t - 1]).abs() < LIMIT * spread + 1e-12).all()


def test_each_row_visits_each_level_once_and_the_last_is_shared() -> None:
    operator, _ = exact_operator()
    path = list(LinearWalk().path(operator, Start(examples(5)), levels(), rng(2)))
    visited = torch.stack([torch.as_tensor(t.level.step).expand(5) for t in path])
    count = len(levels())
    assert visited.sort(0)[0].T.tolist() == [list(range(1, count + 1))] * 5
    assert path[-1].level is levels()[-1] or path[-1].level == levels()[-1]
    assert LinearWalk(draws=4).num_transitions(levels()) == 4


def test_the_exact_terms_of_the_untrained_operator_sum_to_the_density() -> None:
    """On average over paths: each term is a mean of -log p + log q over s_{t-1}, exactly."""
    operator, covariance = exact_operator()
    x = examples(1)
    start = Start(x.expand(ROWS, 6).clone())
    prior_variance = torch.maximum(
        operator.parametrization.variances, operator.parametrization.noise(levels()[-1])[0]
    )
    found: list[list[torch.Tensor]] = [[] for _ in levels()]
    last = None
    for transition in LinearWalk().path(operator, start, levels(), rng(4)):
        steps = torch.as_tensor(transition.level.step).expand(ROWS)
        term = transition.term
        assert term is not None
        for t in steps.unique().tolist():
            found[t - 1].append(term[steps == t].detach())
        last = transition
    # Each of the rows has visited each level once.
    terms = torch.stack([torch.cat(values) for values in found])
    assert last is not None
    linear = operator.parametrization
    z = linear.basis.coordinates(last.target - linear.data_mean)
    mean, variance = z.mean(0), z.var(0)
    end = 0.5 * ((variance + mean**2) / prior_variance - 1 - (variance / prior_variance).log())
    truth = torch.distributions.MultivariateNormal(linear.data_mean, covariance).log_prob(x)[0]
    error = terms.mean(1).sum() + end.sum() + truth
    # The last term is estimated from moments of the last states, with a standard error below (6/ROWS)^½.
    assert error.abs() < LIMIT * (terms.var(1).sum() / ROWS + 6 / ROWS).sqrt()


def test_a_wrong_posterior_would_not_sum_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from walkback_paper import linear_walk

    right = linear_walk._Jump.posterior

    def wrong(jump: object, origin: torch.Tensor, z: torch.Tensor) -> object:
        return right(jump, 1.1 * origin, z)  # type: ignore[arg-type]

    monkeypatch.setattr(linear_walk._Jump, "posterior", wrong)
    with pytest.raises(AssertionError):
        test_the_exact_terms_of_the_untrained_operator_sum_to_the_density()


def test_training_by_jumps_learns_what_is_not_gaussian(tmp_path: Path) -> None:
    options = {
        "training.steps": 60,
        "training.batch_size": 256,
        "training.lr": 2e-3,
        "training.ema": 0.98,
        "training.validate_every": 60,
        "operator.network.hidden": 64,
        "operator.network.depth": 2,
        "operator.sigma": 0.05,
        "evaluation.limit": 1000,
        "samples.pictures": False,
    }
    run = wb.train(data="swiss-roll", operator="gaussian-mlp", process="linear", settings=options)
    untrained = wb.train(
        data="swiss-roll", operator="gaussian-mlp", process="linear", settings=options | {"training.lr": 1e-9}
    )
    difference = run.bound.figures[0].value - untrained.bound.figures[0].value
    assert difference < -4.5 * (run.bound.figures[0].error + untrained.bound.figures[0].error)


def test_another_operator_is_refused_by_name() -> None:
    operator = Gaussian(Space((6,)), MLP(hidden=4, depth=1))
    with pytest.raises(ConfigurationError, match=r"the process 'linear'.*operator.mean = 'linear'"):
        next(iter(LinearWalk().path(operator, Start(examples(2).float()), levels(), rng(0))))
