"""Learned levels, on Gaussian data whose best levels an independent optimizer finds in float64."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime, minimize
from tests.program import FEW, digest, options, walkback
from tests.test_betas import table
from tests.toy.diffused import VARIANCES, Array, best_bound, best_operator, signal_and_noise
from tests.toy.exact import gaussian
from tests.toy.statistics import LIMIT, rng, z_score
from torch import Tensor

import walkback as wb
from walkback.measuring.bound import path_bound
from walkback.model import Model
from walkback.noising import Form
from walkback.support.world import World
from walkback.training.learned_levels import LevelGradients, level_bound
from walkback.walk import Start
from walkback_processes.diffusion import DiffusionProcess
from walkback_processes.learned import Ends, LearnedSchedule

STEPS = 8
FORMS: list[Form] = ["exploding", "preserving"]


def data(rows: int, seed: int) -> Tensor:
    return torch.from_numpy(np.sqrt(VARIANCES)) * torch.randn(
        rows, 3, generator=rng(seed), dtype=torch.float64
    )


def schedule(ends: Ends = "learned") -> LearnedSchedule:
    return LearnedSchedule(num_steps=STEPS, ends=ends).double()


def model_of(form: Form, levels: LearnedSchedule) -> Model:
    """The best operator; the prior has the moments of s_K, whatever the levels are."""
    operator = best_operator(form).eval()
    process = DiffusionProcess(noise=form).double()
    process.fit_operator(operator)
    model = Model(operator, levels, process, gaussian(torch.zeros(3).double(), torch.ones(3).double()))
    follow(model, form)
    return model


def follow(model: Model, form: Form) -> None:
    signal, noise = signal_and_noise(form, np.cumsum(temperatures(model)))
    end = torch.from_numpy(signal[-1] * VARIANCES + noise[-1])
    model.prior.load_state_dict({**model.prior.state_dict(), "variance": end})


def temperatures(model: Model) -> Array:
    return np.array([level.temperature for level in model.levels()])


def learn(model: Model, form: Form, walks: int, rows: int = 256) -> float:
    """Train the levels; returns the closed form of the bound, nats."""
    gradients = LevelGradients(model, 3, 0, World())
    optimizer = torch.optim.Adam(gradients.parameters, lr=2e-2, betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, walks)
    for walk in range(walks):
        gradients.add(Start(data(rows, walk)), walk)
        optimizer.step()
        rate.step()
        follow(model, form)
    return best_bound(form, temperatures(model))


def optimum(form: Form, start: Array, ends: Ends) -> Array:
    """The best temperatures near `start`, by BFGS with numerical gradients."""

    def of(offsets: Array) -> Array:
        if ends == "learned":
            return np.asarray(np.exp(offsets))
        shares = np.exp(offsets - offsets.max())
        return np.concatenate([start[:1], shares / shares.sum() * start[1:].sum()])

    first = np.log(start if ends == "learned" else start[1:])
    found = minimize(lambda offsets: best_bound(form, of(offsets)), first, method="BFGS", tol=1e-9)
    return of(found.x)


@pytest.mark.parametrize("form", FORMS)
def test_the_estimate_has_the_bound_in_closed_form_as_its_mean(form: Form) -> None:
    """Of the walk's levels, of the bound that evaluations measure, and of the closed form; |z| < 4.5."""
    model = model_of(form, schedule())
    wanted = best_bound(form, temperatures(model))
    states = data(20_000, 1)
    with torch.no_grad():
        found = level_bound(model, torch.from_numpy(temperatures(model)), Start(states), rng(2))
    assert abs(z_score(found, wanted)) < LIMIT
    assert abs(z_score(-path_bound(model, states, model.levels(), rng(3)), wanted)) < LIMIT


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_the_estimate_and_on_average_those_of_the_bound(form: Form) -> None:
    """By differences of the estimate at the same noise, and of the closed form (|z| < 4.5, 8 levels)."""
    model = model_of(form, schedule())
    start = torch.from_numpy(temperatures(model)).log().requires_grad_()
    few = Start(data(6, 1))
    assert torch.autograd.gradcheck(lambda x: level_bound(model, x.exp(), few, rng(2)), start)
    gradients = []
    for seed in range(30):
        bound = level_bound(model, start.exp(), Start(data(400, seed)), rng(900 + seed))
        gradients.append(torch.autograd.grad(bound.mean(), start)[0])
    wanted = approx_fprime(start.detach().numpy(), lambda x: best_bound(form, np.exp(x)), 1e-6)
    for found, expected in zip(torch.stack(gradients).T, wanted, strict=True):
        assert abs(z_score(found, float(expected))) < LIMIT
    assert np.abs(wanted).max() > 0.1


@pytest.mark.parametrize("form", FORMS)
def test_between_fixed_ends_levels_reach_the_optimum_of_an_independent_optimizer(form: Form) -> None:
    """To 0.005 nats of at least 0.5 that are to be won; linear and cosine spacing between these ends is worse."""
    model = model_of(form, schedule("fixed"))
    start = temperatures(model)
    best = best_bound(form, optimum(form, start, "fixed"))
    found = learn(model, form, 150, rows=768)
    ends = temperatures(model)
    assert ends[0] == 1
    assert ends.sum() == pytest.approx(start.sum(), rel=1e-12)
    assert 0 <= found - best < 0.005
    assert min(best_bound(form, others) for others in (start, *spaced(start))) - best > 0.5


def spaced(start: Array) -> list[Array]:
    """The linear and the cosine schedule, scaled to the ends of `start`."""
    found = []
    for ramp in (np.linspace(0.1, 20, STEPS), -np.log1p(-table("cosine", STEPS))):
        found.append(np.concatenate([start[:1], ramp[1:] / ramp[1:].sum() * start[1:].sum()]))
    return found


def test_ends_are_learned_too() -> None:
    """The bound gets 1.9 nats below the best one between the first ends; it has several optima, some degenerate."""
    model = model_of("preserving", schedule())
    fixed = best_bound("preserving", optimum("preserving", temperatures(model), "fixed"))
    assert learn(model, "preserving", 80) + 1.9 < fixed


def test_levels_of_other_lengths_are_between_the_same_ends() -> None:
    levels = schedule()
    torch.nn.init.normal_(levels.offsets, std=0.03, generator=rng(1))
    times = np.cumsum([level.temperature for level in levels.levels(100.0)])
    for length in (1, 2, 15, 40):
        found = np.cumsum([level.temperature for level in levels.levels_of_length(100.0, length)])
        assert len(found) == length
        assert found[-1] == pytest.approx(times[-1])
    np.testing.assert_allclose(
        np.cumsum([level.temperature for level in levels.levels_of_length(100.0, 15)])[::2], times, rtol=1e-12
    )


# --- in runs

SMALL = {
    "operator.network.hidden": 8,
    "operator.network.depth": 1,
    "evaluation.limit": 10,
    "samples.num": 4,
    "samples.chains": 2,
    "samples.chain_steps": 2,
    "samples.chain_every": 1,
    "schedule.num_steps": 5,
    "training.checkpoint_every": 2,
    "training.keep_checkpoints": 4,
    "training.lr": 0.01,
    "training.validation_examples": 10,
}
RUN = (
    *("run", "--operator", "ddpm-mlp", "--schedule", "learned", "--data", "digits", "--batch-size", "8"),
    *options(settings=SMALL),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six walks."""
    directory = tmp_path_factory.mktemp("learned") / "a"
    done = walkback(*RUN, "--steps", "6", "--out", directory)
    assert done.code == 0, done.err
    return directory


def test_checkpoints_have_the_levels_and_everything_uses_them(finished: Path, tmp_path: Path) -> None:
    found, checkpoint = levels_of(finished), finished / "final.safetensors"
    start = LearnedSchedule(num_steps=5).levels(wb.load(checkpoint).model.max_temperature)
    assert max(abs(a / b.temperature - 1) for a, b in zip(found, start, strict=True)) > 0.01
    report = wb.evaluate(checkpoint, **{**FEW, "simulated": 0}, progress=False)
    (used,) = (series for series in report.series if series.name == "temperature")
    assert list(used.y) == found
    for verb in ("sample --num 2 --chain 2 --excursion 3", "sample --num 2 --levels 9", "diagnose symmetry"):
        quick = (
            ["--set", "examples=20", "--set", "probes=2"]
            if "diagnose" in verb
            else ["--out", str(tmp_path / "a.npz"), "--force"]
        )
        done = walkback(*verb.split(), checkpoint, *quick)
        assert done.code == 0, done.err


def levels_of(directory: Path) -> list[float]:
    return [float(level.temperature) for level in wb.load(directory).model.levels()]


def test_a_resumed_run_learns_the_same_levels(finished: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(finished, half)
    (half / "final.safetensors").unlink()
    for path in (*half.glob("checkpoints/step-4.*"), *half.glob("checkpoints/step-6.*")):
        path.unlink()
    done = walkback("run", "--resume", half)
    assert done.code == 0, done.err
    assert digest(half / "final.safetensors") == digest(finished / "final.safetensors")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (("--operator", "gaussian-mlp"), "Got the process TiedProcess with LearnedSchedule"),
        (("--set", "training.chains.share=0.5"), "Got training.chains.share = 0.5 with LearnedSchedule"),
        (
            ("--operator", "bernoulli-mlp", "--process", "diffusion", "--set", "process.noise=flips"),
            "Got noise that draws BernoulliKernels with LearnedSchedule",
        ),
        (("--set", "run.shard=true"), "the process or the schedule that are trained"),
    ],
)
def test_what_cannot_work_is_refused_by_name(chosen: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = walkback(*RUN, *chosen, "--steps", "1", "--out", tmp_path / "a")
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert not (tmp_path / "a").exists()
