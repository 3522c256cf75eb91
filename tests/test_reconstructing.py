"""Denoising autoencoders and walkback of GSNs: their paths, their chain, and models without a bound."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tests.program import TINY, walkback
from tests.toy.exact import Pair, Toy, gaussian
from tests.toy.statistics import LIMIT, normal, rng, z_of_variance, z_score
from torch import Tensor

from walkback.configuration.layering import resolve
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.kernels import BernoulliKernel, NormalKernel
from walkback.model import Model
from walkback.priors import Prior
from walkback.sampling import anneal, chain, last
from walkback.sampling.excursions import own_chain
from walkback.schedules import Level, levels_from
from walkback.state import Space, leaves
from walkback.walk import Start
from walkback_paper.priors import BernoulliPrior
from walkback_paper.schedules import ExplicitSchedule
from walkback_processes.reconstructing import Corrupting, DenoisingProcess, WalkbackProcess

TEMPERATURES = (1.0, 3.0, 8.0)
LEVELS = levels_from(TEMPERATURES)
SIGMA, U = 0.5, 1.3
"""σ, and the variance of the data."""


def exact() -> Toy:
    """p_T(x | s) of x ~ N(0, U), s = x + √T σ ε."""

    def conditional(state: Tensor) -> Pair:
        def kernel(level: Level) -> NormalKernel:
            gain = U / (U + SIGMA**2 * level.temperature_like(state))
            return NormalKernel(gain * state, U * (1 - gain))

        return Pair(kernel)

    return Toy(conditional)


def reconstructing(process: Corrupting) -> Model:
    """The operator above; its prior is the law of s_K."""
    hot = torch.full((2,), U + SIGMA**2 * TEMPERATURES[-1], dtype=torch.float64)
    prior = gaussian(torch.zeros(2), hot)
    return Model(exact(), ExplicitSchedule(temperatures=TEMPERATURES), process, prior)


def examples(rows: int) -> Tensor:
    return math.sqrt(U) * normal(rows, 2)


@pytest.mark.parametrize("kind", [DenoisingProcess, WalkbackProcess])
def test_every_transition_leads_back_to_the_example(kind: type[Corrupting]) -> None:
    model, x = reconstructing(kind(sigma=SIGMA)), examples(6)
    steps = list(model.path(Start(x, prior=model.prior), LEVELS, rng(1)))
    assert len(steps) == len(LEVELS)
    assert steps[-1].level is LEVELS[-1]
    for step in steps:
        assert leaves(step.source)[0] is x
        wanted = model.operator(step.target, step.level).cooling(step.level).log_prob(x)
        assert torch.equal(step.log_p, wanted)


@pytest.mark.parametrize("kind", [DenoisingProcess, WalkbackProcess])
def test_corrupted_states_have_the_variance_of_data_and_noise(kind: type[Corrupting]) -> None:
    # x_{t-1} ~ p(x | s) follows the data's law if p is exact, so s_t does not tell the two processes apart. |z| < 4.5
    # at three levels of each process: fails with probability 4e-5.
    model, x = reconstructing(kind(sigma=SIGMA)), examples(20000)
    found: dict[float, list[Tensor]] = {temperature: [] for temperature in TEMPERATURES}
    for step in model.path(Start(x, prior=model.prior), LEVELS, rng(2)):
        of_rows = torch.as_tensor(step.level.temperature).expand(len(x))
        for temperature, parts in found.items():
            parts.append(leaves(step.target)[0][of_rows == temperature])
    for temperature, parts in found.items():
        states = torch.cat(parts)
        assert len(states) == len(x)
        assert abs(z_of_variance(states, U + SIGMA**2 * temperature)) < LIMIT


def test_walkback_corrupts_what_the_model_makes_of_the_example() -> None:
    # s_2 = x_1 + noise with x_1 ~ p(· | s_1): its covariance with x is that of x and x_1, U · gain.
    # Chains of two steps: the third transition begins at the example again, whose covariance is U.
    levels = levels_from([1.0, 1.0, 1.0, 1.0, 8.0])
    model, x = reconstructing(WalkbackProcess(sigma=SIGMA, steps=2)), examples(40000)
    first, second, third, *_ = model.path(Start(x, prior=model.prior), levels, rng(3))
    gain = U / (U + SIGMA**2)
    for step, covariance in ((first, U), (second, U * gain), (third, U)):
        assert abs(z_score(x * leaves(step.target)[0], covariance)) < LIMIT


@pytest.mark.parametrize("kind", [DenoisingProcess, WalkbackProcess])
def test_an_exact_model_has_the_data_at_the_end_of_annealing_and_along_its_chain(
    kind: type[Corrupting],
) -> None:
    # Both keep N(0, U): p applied K times without corruption would not. |z| < 4.5 twice: fails with probability 1e-5.
    model = own_chain(reconstructing(kind(sigma=SIGMA)))
    state = last(anneal(model.operator, model.prior, LEVELS, 20000, rng(4)))
    assert abs(z_of_variance(leaves(state)[0], U)) < LIMIT
    state = last(chain(model.operator, state, 5, rng(5)))
    assert abs(z_of_variance(leaves(state)[0], U)) < LIMIT


def test_the_noise_is_that_of_the_states() -> None:
    process = DenoisingProcess()
    assert process.max_temperature is None
    process.fit_data((torch.rand(50, 4, generator=rng(6)) < 0.4).float())
    kernel = process.corruption(torch.zeros(1, 4), Level(1, 1.0))
    assert isinstance(kernel, BernoulliKernel)
    assert process.max_temperature == pytest.approx(50)
    loaded = DenoisingProcess()
    loaded.load_state_dict(process.state_dict())
    assert isinstance(loaded.corruption(torch.zeros(1, 4), Level(1, 1.0)), BernoulliKernel)
    process.fit_operator(exact())  # its noise is not known, and bits do not need it
    with pytest.raises(ConfigurationError, match=r"set process\.sigma"):
        DenoisingProcess().fit_operator(exact())


def test_noise_that_does_not_fit_the_states_is_refused() -> None:
    prior: Prior = BernoulliPrior(Space((2,), "binary"))
    with pytest.raises(ConfigurationError, match="choose 'exploding'"):
        next(DenoisingProcess(sigma=0.1).path(exact(), Start(torch.zeros(3, 2), prior=prior), LEVELS, rng(1)))


def test_a_run_without_a_bound_says_so_and_its_model_is_sampled_and_compared(tmp_path: Path) -> None:
    here = (*TINY, "--operator", "gaussian-mlp", "--data", "digits", "--process", "dae", "--steps", "2")
    refused = walkback("run", *here, "--set", "training.patience=3", "--out", tmp_path / "none")
    assert refused.code == 2
    assert "no bound to validate" in refused.err
    result = walkback("run", *here, "--json", "--out", tmp_path / "run").document()
    assert result["bound"] is None
    assert "no bound" in result["remarks"][0]
    assert {Path(picture).stem for picture in result["pictures"]} == {"annealed", "chain", "walk"}
    final = result["checkpoint"]
    report = walkback("evaluate", final, "--json", "--limit", "50").document()
    assert "no bound" in report["warnings"][0]
    assert not any("bound" in figure["name"] for figure in report["figures"])
    assert walkback("evaluate", final, "--no-baselines").code == 2
    sampled = walkback("sample", final, "--num", "4", "--chain", "3", "--out", tmp_path / "chain.npz")
    assert sampled.code == 0, sampled.err


@pytest.mark.parametrize("process", ["dae", "gsn", "infusion"])
def test_processes_propose_settings_that_suit_them(process: str) -> None:
    chosen = {"operator": "gaussian-mlp", "data": "swiss-roll", "process": process}
    config = resolve(Registry.discover(), components=chosen)
    assert config.objective.name == "walkback"
    assert config.training.updates == "online"
    assert (config.schedule.name == "geometric") == (process == "infusion")
