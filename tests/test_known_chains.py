"""Chains that are known: from a file of Python to a checkpoint that is sampled and diagnosed, and exact references."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tests.program import Done, walkback
from tests.toy.statistics import rng
from torch import Tensor
from torch.nn.functional import one_hot

import walkback as wb
from walkback.data.spaces import EmptyData, parse_space
from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, NormalKernel, ProductKernel
from walkback.known import ChainOperator, MetropolisKernel, StepKernel, StepOperator, has_density
from walkback.schedules import Level
from walkback.state import Space, State, StateSpace, leaves

LIMIT = 4.5


def call(*arguments: str | Path, code: int = 0) -> Done:
    """Call the program, which ends with this code."""
    done = walkback(*arguments)
    assert done.code == code, done.err
    return done


EXAMPLE = Path(__file__).parents[1] / "examples" / "metropolis.py"
CYCLE = [[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]]


def log_density(x: Tensor) -> Tensor:
    """Uneven and skewed: log of Gamma(3, 1), up to a constant."""
    return torch.where(x[:, 0] > 0, 2 * x[:, 0].clamp(min=1e-9).log() - x[:, 0], -math.inf)


def lognormal_steps(x: Tensor) -> Kernel:
    """A proposal that is not symmetric: N(0.9 x, 1)."""
    return NormalKernel(0.9 * x, torch.ones_like(x))


def test_metropolis_has_the_law_of_its_density() -> None:
    """20,000 chains of 60 steps: mean and variance of Gamma(3, 1) are 3, of an asymmetric proposal (|z| < 4.5)."""
    x, generator = torch.full((20_000, 1), 3.0), rng()
    for _ in range(60):
        x = MetropolisKernel(x, lognormal_steps, log_density).sample(generator)
    for values, expected in ((x[:, 0], 3.0), ((x[:, 0] - 3) ** 2, 3.0), ((x[:, 0] - 3) ** 3, 6.0)):
        error = float(values.std()) / math.sqrt(len(x))
        assert abs(float(values.mean()) - expected) < LIMIT * error


def test_rejections_are_an_atom() -> None:
    """P(s' = s) is the rejection rate, about half for steps as wide as these: no density describes it."""
    x = torch.full((4000, 1), 1.0)
    kernel = MetropolisKernel(x, lambda s: NormalKernel(s, torch.full_like(s, 9.0)), log_density)
    stays = float((kernel.sample(rng()) == x).double().mean())
    assert 0.3 < stays < 0.7
    with pytest.raises(ConfigurationError, match="without a density"):
        kernel.log_prob(x)
    assert not has_density(ProductKernel([NormalKernel(x, x), kernel]))
    assert has_density(NormalKernel(x, x))


def test_a_program_is_a_kernel() -> None:
    x = torch.zeros(5, 2)
    kernel = StepKernel(lambda generator: x + torch.randn(x.shape, generator=generator))
    assert kernel.sample(rng()).equal(torch.randn(5, 2, generator=rng()))
    assert not has_density(kernel)


def test_spaces_are_read() -> None:
    assert parse_space("one-hot:12,3") == Space((12, 3), "one-hot")
    assert EmptyData(shape=(1, 2, 2), bins=17).info.bins == 17
    with pytest.raises(ConfigurationError, match=r"data\.bins = 17 for binary states"):
        EmptyData(shape=(1, 2, 2), support="binary", bins=17)
    for wrong in ("real", "real:", "real:0", "complex:2", "real:2,"):
        with pytest.raises(ConfigurationError, match="SUPPORT:SIZE"):
            parse_space(wrong)


class Walk(StepOperator):
    """s' = s / 2 + ε, drawn by a program; stationary at variance 4/3."""

    def __init__(self, space: StateSpace) -> None:
        super().__init__()

    def step(self, state: State, generator: torch.Generator) -> State:
        (x,) = leaves(state)
        return x / 2 + torch.randn(x.shape, generator=generator)


def test_a_program_is_sampled_and_diagnosed_in_python() -> None:
    """τ of a statistic with autocorrelation 2^-k is 3 steps; reversible; refused where a density is needed."""
    model = wb.chain(Walk(Space((2,))), data="real:2")
    drawn = wb.sample(model, 4000, extra=30, progress=False).states
    assert float(drawn.var()) == pytest.approx(4 / 3, rel=0.1)
    figures = {f.name: f for f in wb.diagnose("mixing", model, chains=50, steps=500, progress=False).figures}
    assert figures["autocorrelation_time_of_axis_1"].value == pytest.approx(3, rel=0.15)
    assert "autocorrelation_time_of_log_probability" not in figures
    report = wb.diagnose("reversibility", model, rank_chains=200, progress=False)
    assert [figure.name for figure in report.figures] == ["rank_test_p"]
    assert report["rank_test_p"].value > 1e-4
    with pytest.raises(ConfigurationError, match="an entropy production needs"):
        wb.diagnose("reversibility", model, rank_chains=0, progress=False)
    with pytest.raises(ConfigurationError, match="a likelihood needs"):
        wb.evaluate(model, progress=False)
    with pytest.raises(ConfigurationError, match="given as an instance"):
        model.save("never.safetensors")


def test_a_chain_without_states_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"expected data: a space, such as real:2"):
        wb.chain("markov", settings={"operator.matrix": CYCLE})
    with pytest.raises(ConfigurationError, match=r"wb\.chain"):
        wb.train("markov", data="potts", settings={"operator.matrix": CYCLE, "data.num": 100}, progress=False)


@pytest.mark.parametrize("wrong", [[[0.5, 0.5]], [[0.5, 0.6], [0.5, 0.5]], [[1.0, 0.0], [0.5, 0.25, 0.25]]])
def test_no_matrix_of_a_chain_is_refused(wrong: list[list[float]]) -> None:
    with pytest.raises(ConfigurationError, match="matrix"):
        wb.chain("markov", data="one-hot:1,2", settings={"operator.matrix": wrong})


def test_a_cycle_of_three_states_goes_from_the_command_line_to_its_exact_entropy_production(
    tmp_path: Path,
) -> None:
    """Σ π_i P_ij log(P_ij / P_ji) = 0.7 log 8 (|z| < 4.5)."""
    file = tmp_path / "cycle.safetensors"
    made = (
        "chain",
        "new",
        "markov",
        "--data",
        "one-hot:1,3",
        "--set",
        f"operator.matrix={json.dumps(CYCLE)}",
    )
    call(*made, "-o", str(file))
    sizes = ("--set", "steps=200", "--set", "rank_chains=0", "--json")
    report = json.loads(call("diagnose", "reversibility", str(file), *sizes).out)
    (figure,) = [f for f in report["figures"] if f["name"] == "entropy_production"]
    assert abs(figure["value"] - 0.7 * math.log(8)) < LIMIT * figure["error"]


def test_a_file_of_python_goes_from_the_command_line_to_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampled and diagnosed with the plugin, refused without it; the rotation produces 2 nats a step (|z| < 4.5)."""
    file, turning = tmp_path / "metropolis.safetensors", tmp_path / "rotation.safetensors"
    monkeypatch.setenv("WALKBACK_PLUGINS", str(EXAMPLE))
    call("chain", "new", "metropolis", "-o", str(file), "--set", "operator.width=1.0")
    call("sample", str(file), "--num", "10", "--extra", "20", "--out", str(tmp_path / "s.npz"))
    mixing = ("--set", "chains=8", "--set", "steps=100", "--json")
    report = json.loads(call("diagnose", "mixing", str(file), *mixing).out)
    assert report["protocol"]["operator"] == "metropolis"
    refused = call("evaluate", str(file), code=2)
    assert "a likelihood needs" in refused.err
    call("chain", "new", "rotation", "-o", str(turning))
    sizes = ("--set", "steps=200", "--set", "rank_chains=0", "--json")
    report = json.loads(call("diagnose", "reversibility", str(turning), *sizes).out)
    (figure,) = [f for f in report["figures"] if f["name"] == "entropy_production"]
    assert abs(figure["value"] - 2) < LIMIT * figure["error"]
    monkeypatch.delenv("WALKBACK_PLUGINS")
    assert "the operator 'metropolis' of metropolis.py" in call("sample", str(file), code=2).err


def test_a_check_takes_spaces_and_expected_failures() -> None:
    matrix = ("--set", f"matrix={json.dumps(CYCLE)}")
    check = ("plugins", "check", "markov", *matrix, "--space", "one-hot:2,3", "--json")
    found = {c["name"]: c["status"] for c in json.loads(call(*check).out)["checks"]}
    assert "failed" not in found.values()
    wrong = json.loads(call(*check, "--expect-failure", "shapes=why", code=4).out)
    assert [c["name"] for c in wrong["checks"] if c["status"] == "failed"] == ["shapes"]
    assert "such as real:2" in call("plugins", "check", "markov", "--space", "two", code=2).err


SITES, COUPLING = 12, 1.0


def spins_given(neighbours: Tensor) -> Tensor:
    """log p of each spin of one half of the ring given the other, `(B, 6, 3)`: spin l is between l and l + 1."""
    states = one_hot(neighbours, 3).double()
    return (COUPLING * (states + states.roll(-1, 1))).log_softmax(-1)


class Sweep(Kernel):
    """Heat bath of the even spins given the odd ones, then of the odd ones given the new even ones."""

    def __init__(self, spins: Tensor) -> None:
        self.odd = spins[:, 1::2].roll(1, 1)

    def sample(self, generator: torch.Generator) -> Tensor:
        even = self._draw(spins_given(self.odd), generator)
        odd = self._draw(spins_given(even), generator)
        return one_hot(torch.stack([even, odd], 2).flatten(1), 3).float()

    def log_prob(self, state: State) -> Tensor:
        spins = leaves(state)[0].argmax(-1)
        even, odd = spins[:, ::2], spins[:, 1::2]
        terms = [(spins_given(given), drawn) for given, drawn in ((self.odd, even), (even, odd))]
        return torch.stack([p.gather(-1, x[..., None]).sum((1, 2)) for p, x in terms]).sum(0).float()

    def _draw(self, log_p: Tensor, generator: torch.Generator) -> Tensor:
        return torch.multinomial(log_p.exp().flatten(0, 1), 1, generator=generator).reshape(-1, 6)


class Checkerboard(ChainOperator):
    """Sweeps over a ring of spins: stationary at the Potts law, and out of equilibrium, since the order is fixed."""

    def kernel(self, state: State, level: Level) -> Kernel:
        return Sweep(leaves(state)[0].argmax(-1))


def exact_entropy_production() -> float:
    """Of `Checkerboard`, by sums over all 3^6 halves: with (e, o), (e', o) and (e', o') ~ π,

    E log p(s' | s) - log p(s | s') = E log p(e' | o) - E log p(e | o').
    """
    halves = torch.cartesian_prod(*[torch.arange(3)] * 6)
    columns = one_hot(halves, 3).double().flatten(1).T
    even_given_odd = (
        spins_given(halves.roll(1, 1)).flatten(1) @ columns
    )  # of odd spins, in the order of the ring
    odd_given_even = spins_given(halves).flatten(1) @ columns
    # π(o) ∝ p(o | e) / p(e | o) for any e.
    law = (odd_given_even[0] - even_given_odd[:, 0]).softmax(0)
    there = even_given_odd.exp()
    twice = law[:, None] * (there @ odd_given_even.exp())
    return float((law[:, None] * there * even_given_odd).sum() - (twice * (there @ even_given_odd.T)).sum())


def test_a_ring_of_spins_is_diagnosed_against_its_exact_entropy_production() -> None:
    """Twelve sites of three states (|z| < 4.5); and the law of the chain is the data's, by their energy."""
    settings = {"data.coupling": COUPLING, "data.num": 5000}
    model = wb.chain(Checkerboard(), data="potts", prior="uniform-symbols", settings=settings)
    report = wb.diagnose(
        "reversibility", model, start="data", chains=200, steps=200, rank_chains=0, progress=False
    )
    figure, exact = report["entropy_production"], exact_entropy_production()
    assert exact > 0.5
    assert figure.error is not None
    assert abs(figure.value - exact) < LIMIT * figure.error
