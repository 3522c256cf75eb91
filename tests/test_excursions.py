"""Chains there and back, where q and p are exact: law, reversibility and autocorrelation in closed form; refusals.

Random checks compare with |z| < 4.5 at fixed seeds: chance alone fails one with probability 6.8e-6.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from tests.program import run, walkback
from tests.test_noising import FORMS, U, diffusing, starts
from tests.toy.data import InMemory
from tests.toy.exact import Fixed, Pair, Toy, filled, gaussian, model
from tests.toy.irreversible import Companion, pair_prior, real_prior
from tests.toy.labelled import Around
from tests.toy.processes import Untold
from tests.toy.statistics import LIMIT, normal, rng, z_of_counts
from torch import Tensor

import walkback as wb
from walkback.diagnostics import Subject
from walkback.errors import ConfigurationError
from walkback.kernels import BernoulliKernel, Kernel, NormalKernel
from walkback.model import Model
from walkback.operators import Conditional, TransitionOperator
from walkback.processes import Jumping, Process, Reconstructing
from walkback.sampling import anneal, chain, last
from walkback.sampling.excursions import there_and_back
from walkback.sampling.guidance import guided
from walkback.sampling.readout import read_out
from walkback.sampling.wrapped import Compound
from walkback.schedules import Level, levels_from
from walkback.state import Context, Space, State, leaves
from walkback_diagnostics.reversibility import Reversibility
from walkback_networks.mlp import MLP
from walkback_paper.gaussian import Gaussian
from walkback_paper.linear import LinearGaussian

VARIANCES = torch.tensor([0.004, 0.02, 0.5, 3.0], dtype=torch.float64)
LEVELS = levels_from([1.0, 1.0, 2.0, 4.0, 8.0, 16.0])
NOISE = 0.01


def linear_gaussian() -> Model:
    """The untrained linear operator on Gaussian data, which is its own reverse; eigenvectors are the coordinates."""
    operator = Gaussian(Space((4,)), MLP(hidden=4, depth=1), mean="linear", basis="pixels", sigma=0.1)
    linear = operator.double().parametrization
    assert isinstance(linear, LinearGaussian)
    linear.variances.copy_(VARIANCES)
    return model(operator.eval(), gaussian(torch.zeros(4), VARIANCES), LEVELS)


def stepped(of: Model, num_levels: int, state: State) -> State:
    """One excursion from each state."""
    return last(chain(there_and_back(of, num_levels).operator, state, 1, rng(1)))


def moments_z(x: Tensor, y: Tensor, covariance: Tensor) -> Tensor:
    """z of E[x_i y_j] of rows against a covariance, `(D, D)`."""
    products = x[:, :, None] * y[:, None, :]
    return (products.mean(0) - covariance) / (products.std(0) / math.sqrt(len(x)))


@pytest.mark.parametrize("num_levels", [1, 2, 4, 6])
def test_excursions_of_its_own_reverse_keep_a_gaussian_and_are_reversible(num_levels: int) -> None:
    """In a direction of variance λ, autocovariance λ Π_t (1 - T_t σ²/λ)₊; 32 z-scores each (2e-4)."""
    x = VARIANCES.sqrt() * normal(40_000, 4)
    (y,) = leaves(stepped(linear_gaussian(), num_levels, x))
    kept = torch.stack([1 - NOISE * float(level.temperature) / VARIANCES for level in LEVELS])
    autocovariance = VARIANCES * kept.clamp(min=0)[:num_levels].prod(0)
    assert moments_z(y, y, VARIANCES.diag()).abs().max() < LIMIT
    assert moments_z(x, y, autocovariance.diag()).abs().max() < LIMIT
    # Reversible: E[x_i y_j] = E[x_j y_i], and not only in these moments.
    flow = x[:, :, None] * y[:, None, :].pow(3) - x[:, :, None].pow(3) * y[:, None, :]
    assert (flow.mean(0) / (flow.std(0) / math.sqrt(len(x)))).abs().max() < LIMIT
    if num_levels < 6:
        one_more = VARIANCES * kept.clamp(min=0)[: num_levels + 1].prod(0)
        assert moments_z(x, y, one_more.diag()).abs().max() > 10


@pytest.mark.parametrize("num_levels", [1, 3, 4])
@pytest.mark.parametrize("form", FORMS)
def test_excursions_of_an_exact_diffusion_keep_the_data(form: str, num_levels: int) -> None:
    """After a jump to level j: autocovariance Var E[s_0 | s_j], that of the regression of s_0 on s_j."""
    of, x = diffusing(form), starts(40_000)
    (y,) = leaves(stepped(of, num_levels, x))
    assert isinstance(of.process, Jumping)
    marginal = of.process.marginal(torch.ones(1, 2, dtype=torch.float64), of.levels()[num_levels - 1])
    assert isinstance(marginal, NormalKernel)
    signal, variance = float(marginal.mean[0, 0]), float(marginal.variance.max())
    autocovariance = U * signal**2 * U / (signal**2 * U + variance)
    eye = torch.eye(2, dtype=torch.float64)
    assert moments_z(y, y, U * eye).abs().max() < LIMIT
    assert moments_z(x, y, autocovariance * eye).abs().max() < LIMIT
    # Single steps at T = 1 are no chain of the data: each removes noise that is not there.
    cold = last(chain(of.operator, x, 20, rng(2)))
    assert moments_z(leaves(cold)[0], leaves(cold)[0], U * eye).diagonal().abs().min() > 10


ONE = 0.3
FLIPS = (0.1, 0.2)


def bit(*, wrong: float = 0.0) -> tuple[Model, np.ndarray]:
    """A bit that is 1 with probability 0.3, flipped at two levels, and Bayes' reverse; the matrix of an excursion."""
    law = np.array([1 - ONE, ONE])
    ups, backs = [], []
    for flip in FLIPS:
        up = np.array([[1 - flip, flip], [flip, 1 - flip]])
        after = law @ up
        backs.append((law[:, None] * up / after).T)
        ups.append(up)
        law = after
    tables = {
        name: torch.tensor([[table[0, 1], table[1, 1]] for table in found]).logit()
        for name, found in (("up", ups), ("back", backs))
    }
    tables["back"] += wrong

    def conditional(state: Tensor) -> Conditional:
        def kernel(name: str, level: Level) -> Kernel:
            return BernoulliKernel(tables[name][int(level.step) - 1][state.long()].to(state))

        return Pair(lambda level: kernel("back", level), lambda level: kernel("up", level))

    prior = gaussian(torch.zeros(1), torch.ones(1))
    return model(Toy(conditional), prior, levels_from([1.0, 2.0])), ups[0] @ ups[1] @ backs[1] @ backs[0]


def test_excursions_of_a_bit_have_the_product_of_its_matrices() -> None:
    of, matrix = bit()
    flow = np.array([[1 - ONE], [ONE]]) * matrix
    np.testing.assert_allclose(flow, flow.T, atol=1e-12)
    np.testing.assert_allclose(flow.sum(0), [1 - ONE, ONE])
    assert np.linalg.eigvals(matrix).min() > 0
    for start in (0, 1):
        (y,) = leaves(stepped(of, 2, torch.full((100_000, 1), float(start), dtype=torch.float64)))
        counts = torch.tensor([len(y) - float(y.sum()), float(y.sum())])
        assert z_of_counts(counts, torch.from_numpy(matrix[start])) < LIMIT
        (y,) = leaves(stepped(bit(wrong=0.2)[0], 2, torch.full((100_000, 1), float(start)).double()))
        assert z_of_counts(torch.tensor([len(y) - y.sum(), y.sum()]), torch.from_numpy(matrix[start])) > 10


# --- the rank test


def plane(a: float, angle: float, factor: float) -> Subject:
    """Heating s' = a s + √(1 - a²) ε of N(0, I) in the plane; the reverse turns, or has another variance."""
    c, s = math.cos(angle), math.sin(angle)
    turn = a * torch.tensor([[c, -s], [s, c]], dtype=torch.float64)

    def conditional(state: Tensor) -> Conditional:
        noise = filled(1 - a**2, state)
        return Pair(
            lambda _: NormalKernel(state @ turn.T, factor * noise), lambda _: NormalKernel(a * state, noise)
        )

    of = model(Toy(conditional), real_prior(2), levels_from([1.0, 2.0]))
    data = InMemory(normal(1000, 2, seed=7))
    return Subject(there_and_back(of, 2), data.info, lambda: data)


@pytest.mark.parametrize(("a", "angle", "factor"), [(0.99, 0.0, 1.0), (0.99, 0.1, 1.0), (0.8, 0.0, 0.6)])
def test_the_rank_test_catches_a_reverse_that_is_none(a: float, angle: float, factor: float) -> None:
    """Chains start at the data, so that a chain in balance with another law is caught as well."""
    report = Reversibility(rank_chains=1000, start="data", burn_in=0).measure(plane(a, angle, factor))
    assert report.headline == "rank_test_p"
    p = report["rank_test_p"].value
    assert p > 1e-4 if (angle, factor) == (0.0, 1.0) else p < 1e-12


# --- what is run


@final
class Noting(TransitionOperator):
    """N(s, T), noting the levels of its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Level] = []

    @property
    def max_temperature(self) -> float:
        return 1.0

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        (x,) = leaves(state)
        self.seen.append(level)
        return Pair(lambda at: NormalKernel(x, filled(float(at.temperature), x)))


@final
class Corrupting(Process, Reconstructing):
    """Adds noise to s_0 in one step, which the operator removes in one step."""

    @property
    def max_temperature(self) -> None:
        """The operator's."""

    def corruption(self, origin: State, level: Level) -> Kernel:
        (x,) = leaves(origin)
        return NormalKernel(x + 100, filled(float(level.temperature), x))

    def path(self, *_: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("num_levels", [1, 4])
@pytest.mark.parametrize("kind", ["steps", "jumps", "reconstructs"])
def test_the_network_runs_as_often_as_is_said(num_levels: int, kind: str) -> None:
    """The network sees the level of its state, as in walks: t at s_t, and the first level at s_0."""
    of = replace(model(Noting(), real_prior(2), LEVELS[:5]), schedule=Fixed(LEVELS[:5]))
    if kind != "steps":
        of = replace(of, process=Corrupting() if kind == "reconstructs" else diffusing("exploding").process)
    operator = there_and_back(of, num_levels).operator
    assert isinstance(operator, Compound)
    assert isinstance(of.operator, Noting)
    of.operator.seen.clear()
    (x,) = leaves(last(chain(operator, torch.zeros(50, 2, dtype=torch.float64), 3, rng())))
    up, back = [LEVELS[0], *LEVELS[: num_levels - 1]], list(reversed(LEVELS[:num_levels]))
    one = {"steps": up + back, "jumps": back, "reconstructs": back[:1]}[kind]
    assert of.operator.seen == 3 * one
    assert operator.runs == len(one)
    assert (float(x.mean()) > 250) == (kind == "reconstructs")


def test_samples_are_annealed_and_shown_by_single_steps() -> None:
    of = linear_gaussian()
    there = there_and_back(of, 3)
    first, second = (last(anneal(m.operator, m.prior, LEVELS, 5, rng(3))) for m in (of, there))
    assert leaves(first)[0].equal(leaves(second)[0])
    shown = [read_out(m.operator, first, "mean@2") for m in (of, there)]
    assert shown[0].equal(shown[1])
    assert there.max_temperature == of.max_temperature


def test_latent_units_go_along() -> None:
    of = model(Companion(0.8, 0.0), pair_prior(), levels_from([1.0, 2.0]))
    x = (normal(20_000, 2), normal(20_000, 1, seed=1))
    y = stepped(of, 2, x)
    for before, after in zip(x, leaves(y), strict=True):
        eye = torch.eye(before.shape[1], dtype=torch.float64)
        assert moments_z(after, after, eye).abs().max() < LIMIT
        assert moments_z(before, after, 0.8**4 * eye).abs().max() < LIMIT


def test_classes_and_guidance_go_along() -> None:
    """Excursions of a guided operator stay around m + w (m_k - m)."""
    operator = Around(torch.tensor([[1.0], [3.0], [0.0]], dtype=torch.float64)).eval()
    of = model(guided(operator, 2.0), real_prior(1), levels_from([1.0, 2.0]))
    label = torch.arange(40_000) % 2
    there = there_and_back(of, 2).operator
    (y,) = leaves(last(chain(there, torch.zeros(40_000, 1, dtype=torch.float64), 30, rng(), label)))
    for k, mean in enumerate((2.0, 6.0)):
        z = (y[label == k].mean() - mean) / (y[label == k].std() / math.sqrt(20_000))
        assert abs(z) < LIMIT


# --- requests


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of digits, 14 annealing levels."""
    place = tmp_path_factory.mktemp("excursions") / "a"
    assert run(place).code == 0
    return place / "final.safetensors"


def test_the_command_and_python_draw_the_same_chain(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.npz"
    sizes: dict[str, Any] = {"num": 4, "chain": 3, "every": 1}
    done = walkback("sample", digits, "--excursion", "2", "--out", out, "--json", *_flags(sizes))
    assert done.code == 0, done.err
    assert done.document()["excursion"] == 2
    drawn = wb.sample(digits, excursion=2, progress=False, **sizes)
    with np.load(out) as file:
        assert torch.from_numpy(file["states"]).equal(drawn.frames)
    single = wb.sample(digits, progress=False, **sizes)
    assert drawn.frames[0].equal(single.frames[0])
    assert not drawn.frames[1].equal(single.frames[1])


def _flags(values: dict[str, int]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def test_diagnostics_of_states_measure_excursions_and_others_refuse(digits: Path) -> None:
    quick: dict[str, Any] = {"progress": False, "excursion": 3}
    report = wb.diagnose("mixing", digits, chains=4, steps=40, **quick)
    assert report.protocol["excursion"] == 3
    assert "autocorrelation_time_of_log_probability" not in {figure.name for figure in report.figures}
    wb.diagnose("stationarity", digits, chains=10, steps=20, frames=10, reference=20, **quick)
    ranked = wb.diagnose("reversibility", digits, rank_chains=20, rank_steps=3, burn_in=2, **quick)
    assert ranked.headline == "rank_test_p"
    for name, message in (
        ("thermodynamics", "the work of a path needs"),
        ("symmetry", "expected a normal or Bernoulli"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            wb.diagnose(name, digits, **quick)
    with pytest.raises(ConfigurationError, match="temperatures of the schedule"):
        wb.diagnose("mixing", digits, temperature=2.0, chains=4, steps=40, **quick)
    done = walkback("diagnose", "reversibility", digits, "--excursion", "3", "--set", "rank_chains=0")
    assert done.code == 2
    assert "an entropy production needs" in done.err
    done = walkback(
        *(
            "diagnose",
            "mixing",
            digits,
            "--excursion",
            "2",
            "--set",
            "chains=4",
            "--set",
            "steps=40",
            "--json",
        )
    )
    assert json.loads(done.out)["protocol"]["excursion"] == 2


def test_what_cannot_be_is_refused_before_any_work(digits: Path) -> None:
    for number, message in ((0, "expected at least 1"), (15, "expected 1 to 14, the number of levels")):
        with pytest.raises(ConfigurationError, match=message):
            wb.sample(digits, chain=2, excursion=number, progress=False)
        with pytest.raises(ConfigurationError, match=message):
            wb.diagnose("mixing", digits, excursion=number, progress=False)
    with pytest.raises(ConfigurationError, match="no effect without steps at T = 1"):
        wb.sample(digits, excursion=2, progress=False)
    with pytest.raises(ConfigurationError, match="beside a trace"):
        wb.diagnose("mixing", torch.rand(4, 50, 2), excursion=2, progress=False)
    with pytest.raises(ConfigurationError, match="a chain there and back needs"):
        there_and_back(replace(linear_gaussian(), process=Untold()), 2)
    assert walkback("sample", digits, "--chain", "2", "--excursion", "0").code == 2
