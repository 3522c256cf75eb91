"""Work, free energy and dissipation against closed forms: reversible, linear-Gaussian, rotating and two-state walks.

Random checks compare with |z| < 4.5 at fixed seeds.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from tests.toy.data import InMemory
from tests.toy.exact import (
    LinearGaussian,
    Pair,
    Toy,
    autoregressive,
    bits,
    filled,
    flips,
    gaussian,
    model,
    rotation,
)
from tests.toy.harmonic import free_energy, sudden
from tests.toy.statistics import LIMIT, normal, normal_log_density, rng
from torch import Tensor

from walkback.data import Dataset
from walkback.diagnostics import Subject
from walkback.errors import ConfigurationError, DataError, WalkbackError
from walkback.kernels import BernoulliKernel, Kernel, NormalKernel, ProductKernel
from walkback.measuring.work import effective_sample_size, exponential_average
from walkback.model import Model
from walkback.operators import Conditional, Latent, TransitionOperator
from walkback.priors import ProductPrior
from walkback.report import Figure, Report
from walkback.schedules import Level, levels_from
from walkback.state import Context, Space, State, StateSpace, leaves
from walkback.storage.work_cache import WorkCache
from walkback_diagnostics import thermodynamics
from walkback_diagnostics.free_energy import bar
from walkback_diagnostics.thermodynamics import Thermodynamics

HEATING = LinearGaussian(
    a=[1.0, 0.9, 0.8, 0.5], q=[0.1, 0.2, 0.4, 0.8], b=[0.9, 0.8, 0.7, 0.4], r=[0.1, 0.15, 0.3, 0.7], w=1.3
)


def subject(candidate: Model, rows: Tensor, cache: WorkCache | None = None, seed: int = 0) -> Subject:
    data = InMemory(rows)
    return Subject(candidate, data.info, lambda: data, seed=seed, cache=cache or WorkCache())


def measured(candidate: Model, rows: Tensor, seed: int = 0, **options: object) -> Report:
    chosen = {"examples": 200, "chains": 100, "burn_in": 0, "bennett": False, **options}
    return Thermodynamics(**chosen).measure(subject(candidate, rows, seed=seed))  # type: ignore[arg-type]


def z(figure: Figure, expected: float) -> float:
    return (figure.value - expected) / (figure.error or math.nan)


# --- functions of works


def reference(forward: Tensor, reverse: Tensor) -> tuple[float, float]:
    """pymbar's own ratio, with its asymptotic error."""
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    from pymbar.other_estimators import bar as ratio

    found = ratio(forward.numpy(), reverse.numpy())
    return float(found["Delta_f"]), float(found["dDelta_f"])


@pytest.mark.parametrize(("start", "end"), [(1.0, 4.0), (4.0, 1.0), (1.0, 1.2)])
def test_free_energy_of_a_sudden_change_of_stiffness(start: float, end: float) -> None:
    forward, reverse = sudden(start, end, 20_000, rng(0)), sudden(end, start, 5_000, rng(1))
    value, (_, error) = bar(forward, reverse), reference(forward, reverse)
    assert abs(value - free_energy(start, end)) < LIMIT * error
    assert error < 0.03
    assert bar(reverse, forward) == pytest.approx(-value, abs=1e-9)


def test_the_ratio_is_that_of_pymbar() -> None:
    forward, reverse = sudden(1, 4, 30, rng(0)), sudden(4, 1, 70, rng(1))
    assert bar(forward, reverse) == pytest.approx(reference(forward, reverse)[0], abs=1e-9)


@pytest.mark.parametrize("offset", [0.0, 9000.0])
@pytest.mark.parametrize("scale", [0.1, 10.0, 2000.0])
def test_the_ratio_of_one_reverse_work_solves_its_equation(offset: float, scale: float) -> None:
    """Σ over all P + 1 paths of 1 / (1 + P exp(W - F)) = 1, solved here by bisection, in logarithms."""
    heating = offset + scale * normal(16).abs()
    cooling = offset - scale * normal(1, seed=1).abs()
    works = torch.cat([heating, cooling])
    low, high = works.min().item() - 50, works.max().item() + 50
    for _ in range(200):
        middle = (low + high) / 2
        left = torch.nn.functional.logsigmoid(middle - math.log(16) - heating).logsumexp(0)
        right = torch.nn.functional.logsigmoid(math.log(16) + cooling - middle).logsumexp(0)
        low, high = (low, middle) if left > right else (middle, high)
    assert bar(heating, -cooling) == pytest.approx(low, abs=1e-6)


def test_equal_works_are_the_free_energy_itself() -> None:
    works = torch.full((8,), 3.0, dtype=torch.float64)
    for jitter in (0.0, 1e-14):
        assert bar(works + jitter * normal(8), -works[:1]) == pytest.approx(3, abs=1e-12)


def test_works_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(WalkbackError, match="1 of them not finite"):
        bar(torch.tensor([1.0, math.nan]), torch.ones(1))
    with pytest.raises(WalkbackError, match="Got 0 works"):
        bar(torch.ones(3), torch.ones(0))


def test_exponential_averages_row_by_row() -> None:
    works = 1000 + normal(5, 7)
    expected = 1000 - np.log(np.exp(1000 - works.numpy()).mean(1))
    np.testing.assert_allclose(exponential_average(works), expected)
    weights = np.exp(1000 - works.numpy())
    np.testing.assert_allclose(effective_sample_size(works), weights.sum(1) ** 2 / (weights**2).sum(1))


# --- reversible walks


def test_every_work_of_a_reversible_chain_is_its_free_energy() -> None:
    mean, variance = torch.tensor([0.5, -1.0]).double(), torch.tensor([2.0, 0.01]).double()
    candidate = model(autoregressive(0.7, mean, variance), gaussian(mean, variance), levels_from([1.0] * 6))
    rows = mean + variance.sqrt() * normal(300, 2)
    report = measured(candidate, rows, bennett=True)
    for name in ("hysteresis", "dissipated_heating", "dissipated_cooling"):
        assert abs(report[name].value) < 1e-9
    assert abs(z(report["irreversibility"], 0)) < LIMIT  # of few steps: log π(s_n) - log π(s_0) is left in it
    assert abs(z(report["excess_heat"], 0)) < LIMIT
    free = report["free_energy"].value
    for name in (
        "work_heating",
        "work_cooling",
        "free_energy_above",
        "free_energy_below",
        "free_energy_bennett",
    ):
        assert report[name].value == pytest.approx(free, abs=1e-9)
    entropy = float((0.5 * (2 * math.pi * math.e * variance).log()).sum())
    assert abs(z(report["free_energy"], entropy)) < LIMIT
    chosen = subject(candidate, rows).held_out("test", 200).states
    exact = -normal_log_density(chosen.numpy(), mean.numpy(), variance.numpy()).sum(1).mean()
    assert report["work_data"].value == pytest.approx(exact, abs=1e-9)
    assert report["free_energy_above_data"].value == pytest.approx(exact, abs=1e-9)
    assert report["effective_sample_size"].value == pytest.approx(16)
    assert report["work_heating_per_dimension"].value == pytest.approx(free / 2)
    assert report.warnings == ()
    assert report.headline == "hysteresis"


VISIBLE, HIDDEN = Space((3,), "binary"), Space((2,))


@final
class Mixed(TransitionOperator, Latent):
    """Bits and a latent code, each reversible by itself; q(h_0 | data) is the code's stationary law."""

    @property
    def max_temperature(self) -> float:
        return 2.0

    @property
    def state_space(self) -> StateSpace:
        return VISIBLE, HIDDEN

    def initial_state(self, data: Tensor, generator: torch.Generator) -> tuple[State, Tensor]:
        kernel = NormalKernel(data.new_zeros(len(data), 2), data.new_ones(1, 2))
        code = leaves(kernel.sample(generator))[0]
        return (data, code), kernel.log_prob(code)

    def visible(self, state: State) -> Tensor:
        return leaves(state)[0]

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        x, code = leaves(state)
        logits = math.log(0.1 / 0.9) + math.log(0.7 / 0.3 * 0.9 / 0.1) * x
        return Pair(
            lambda _: ProductKernel([BernoulliKernel(logits), NormalKernel(0.8 * code, filled(0.36, code))])
        )


def test_tuple_states_with_latent_units() -> None:
    """π = (¼, ¾) of each bit times N(0, I): work of data is -log π(bits), that of cooled s_0 the whole entropy."""
    operator = Mixed()
    prior = ProductPrior(
        (VISIBLE, HIDDEN), [bits(0.25, 3), gaussian(torch.zeros(2).double(), torch.ones(2).double())]
    )
    rows = (normal(100, 3) > 0).double()
    report = measured(model(operator, prior, levels_from([1.0] * 5)), rows, examples=100)
    exact = -(rows * math.log(0.25) + (1 - rows) * math.log(0.75)).sum(1).mean()
    assert report["work_data"].value == pytest.approx(float(exact), abs=1e-9)
    assert report["work_data_per_dimension"].value == pytest.approx(float(exact) / 3, abs=1e-9)
    assert abs(report["hysteresis"].value) < 1e-9
    entropy = 3 * (-0.25 * math.log(0.25) - 0.75 * math.log(0.75)) + math.log(2 * math.pi * math.e)
    assert abs(z(report["free_energy"], entropy)) < LIMIT
    assert report["free_energy_per_dimension"].value == pytest.approx(report["free_energy"].value / 5)


# --- walks with a gap


def work_of_cooling(system: LinearGaussian) -> float:
    """E[W] over cooling paths: s_t has the variance V_t, V_{t-1} = b² V_t + r, Cov(s_{t-1}, s_t) = b V_t."""
    variance, total = system.w, 0.5 * (math.log(2 * math.pi * system.w) + 1)
    for a, q, b, r in list(zip(system.a, system.q, system.b, system.r, strict=True))[::-1]:
        below = b**2 * variance + r
        residual = variance + a**2 * below - 2 * a * b * variance
        total += 0.5 * (math.log(2 * math.pi * r) + 1) - 0.5 * (math.log(2 * math.pi * q) + residual / q)
        variance = below
    return total


LOSSY = LinearGaussian(HEATING.a, HEATING.q, b=[0.75, 0.65, 0.6, 0.3], r=[0.2, 0.25, 0.4, 0.8], w=1.5)


@pytest.fixture(scope="module")
def linear() -> Report:
    return measured(LOSSY.model, normal(800, 1), examples=800, paths=48, batch=400, bennett=True)


def test_free_energy_of_a_linear_walk_is_the_entropy_of_what_it_cools_to(linear: Report) -> None:
    variance = LOSSY.variance_of_cooled()
    entropy = 0.5 * (math.log(2 * math.pi * variance) + 1)
    for name in ("free_energy", "free_energy_above", "free_energy_below", "free_energy_bennett"):
        assert abs(z(linear[name], entropy)) < LIMIT
    assert linear["free_energy_below"].value < linear["free_energy"].value < linear["free_energy_above"].value
    assert z(linear["work_heating"], entropy) > LIMIT
    assert z(linear["work_cooling"], entropy) < -LIMIT


def test_dissipation_of_a_linear_walk_is_the_closed_form(linear: Report) -> None:
    x = math.sqrt(LOSSY.variance_of_cooled())  # all is even and quadratic in s_0
    entropy, heating = -LOSSY.log_likelihood(x), -LOSSY.expected_bound(x)
    cooling = work_of_cooling(LOSSY)
    assert cooling < entropy < heating
    assert abs(z(linear["work_heating"], heating)) < LIMIT
    assert abs(z(linear["work_cooling"], cooling)) < LIMIT
    assert abs(z(linear["hysteresis"], heating - cooling)) < LIMIT
    assert abs(z(linear["dissipated_heating"], heating - entropy)) < LIMIT
    assert abs(z(linear["dissipated_cooling"], entropy - cooling)) < LIMIT
    assert z(linear["hysteresis"], 0) > LIMIT


def test_the_fluctuation_theorem_holds_on_a_walk_with_a_gap(linear: Report) -> None:
    assert abs(z(linear["fluctuation_theorem"], 0)) < LIMIT
    assert not any("Crooks" in warning for warning in linear.warnings)


def test_productions_and_histograms_add_up(linear: Report) -> None:
    series = {one.name: one for one in linear.series}
    assert len(series["production_heating"].y) == 4
    # Chains held at a level are autoregressive in one dimension, but cooled with another noise than they heat with.
    boundary = linear["work_heating"].value - sum(series["production_heating"].y)
    assert boundary == pytest.approx(0.5 * math.log(2 * math.pi * LOSSY.w) + 0.5, rel=0.3)
    for name in ("heating", "cooling", "data"):
        histogram = series[f"histogram_{name}"]
        assert sum(histogram.y) * (histogram.x[1] - histogram.x[0]) == pytest.approx(1)
    centre = np.average(series["histogram_cooling"].x, weights=series["histogram_cooling"].y)
    assert centre == pytest.approx(linear["work_cooling"].value, abs=0.1)


def test_samples_that_do_not_follow_their_density_are_noticed() -> None:
    """A kernel that draws with 20 % more noise than it says breaks Crooks' theorem."""

    @final
    class Louder(NormalKernel):  # type: ignore[misc]
        def sample(self, generator: torch.Generator) -> Tensor:
            return self.mean + 1.2 * self.variance.sqrt() * self.noise(generator)

    right = LOSSY.model.operator

    def conditional(state: Tensor) -> Conditional:
        def louder(kernel: Kernel) -> Kernel:
            assert isinstance(kernel, NormalKernel)
            return Louder(kernel.mean, kernel.variance)

        return Pair(
            lambda level: louder(right(state, level).cooling(level)),
            lambda level: louder(right(state, level).heating(level)),
        )

    candidate = replace(LOSSY.model, operator=Toy(conditional))
    report = measured(candidate, normal(900, 1), examples=900, stationary_steps=0)
    assert any("Crooks" in warning for warning in report.warnings)


@pytest.mark.parametrize("angle", [0.15, 0.4])
def test_a_rotating_chain_owes_its_gap_to_irreversibility(angle: float) -> None:
    """4 a² sin² / (1 - a²) nats a step, in either direction; there is no excess heat."""
    a, steps = 0.7, 4
    plane = torch.ones(2, dtype=torch.float64)
    candidate = model(rotation(a, angle), gaussian(0 * plane, plane), levels_from([1.0] * steps))
    report = measured(candidate, normal(800, 2), examples=800, paths=64)
    gap = steps * 4 * a**2 * math.sin(angle) ** 2 / (1 - a**2)
    assert abs(z(report["irreversibility"], gap)) < LIMIT
    assert abs(z(report["work_heating"], gap + math.log(2 * math.pi * math.e))) < LIMIT
    assert abs(z(report["hysteresis"], 2 * gap)) < LIMIT
    assert abs(z(report["excess_heat"], 0)) < LIMIT
    assert z(report["irreversibility"], 0) > 2 * LIMIT
    heating, cooling, held = (
        next(one for one in report.series if one.name == f"production_{kind}")
        for kind in ("heating", "cooling", "stationary")
    )
    for level in range(steps):
        for one, sign in ((heating, 1), (cooling, -1), (held, 1)):
            error = (one.error or ())[level]
            assert abs(one.y[level] - sign * gap / steps) < LIMIT * error


def test_a_reversible_chain_from_the_wrong_prior_has_excess_heat_only() -> None:
    plane = torch.ones(2, dtype=torch.float64)
    candidate = model(
        autoregressive(0.7, 0 * plane, plane), gaussian(0 * plane, 4 * plane), levels_from([1.0] * 2)
    )
    report = measured(candidate, normal(800, 2), examples=800, burn_in=30, stationary_steps=40)
    assert abs(report["irreversibility"].value) < LIMIT * (report["irreversibility"].error or 0) + 1e-9
    assert (report["excess_heat"].interval or (0.0,))[
        0
    ] > 0  # weights of infinite variance: only bounded from both sides


def enumerated(up: float, down: float, start: float, temperatures: list[float]) -> tuple[float, float, float]:
    """E[W_heat], E[-log p(s_0)] and E[W_cool] of one bit, over all paths."""

    def matrix(temperature: float) -> np.ndarray:
        rise, fall = _rates(up, down, temperature)
        return np.array([[1 - rise, rise], [fall, 1 - fall]])

    kernels, prior = [matrix(t) for t in temperatures], np.array([1 - start, start])
    paths = list(itertools.product((0, 1), repeat=len(temperatures) + 1))
    cooled, heated = [], []
    for path in paths:
        steps = list(zip(kernels, path, path[1:], strict=False))
        cooled.append(prior[path[-1]] * math.prod(k[after, before] for k, before, after in steps))
        heated.append(math.prod(k[before, after] for k, before, after in steps))
    marginal = np.zeros(2)
    for path, mass in zip(paths, cooled, strict=True):
        marginal[path[0]] += mass
    works = np.log(np.array(heated) / np.array(cooled))
    of_heating = sum(marginal[p[0]] * h * w for p, h, w in zip(paths, heated, works, strict=True))
    return (
        float(of_heating),
        float(-(marginal * np.log(marginal)).sum()),
        float((np.array(cooled) * works).sum()),
    )


def test_a_bit_between_levels_is_what_all_its_paths_say() -> None:
    temperatures = [1.0, 1.5, 3.0]
    candidate = model(flips(0.1, 0.3), bits(0.6, 1), levels_from(temperatures))
    rows = (normal(2000, 1) > 0).double()
    report = measured(candidate, rows, examples=2000, paths=32, batch=500, burn_in=20)
    heating, entropy, cooling = enumerated(0.1, 0.3, 0.6, temperatures)
    assert abs(z(report["work_heating"], heating)) < LIMIT
    assert abs(z(report["work_cooling"], cooling)) < LIMIT
    assert abs(z(report["hysteresis"], heating - cooling)) < LIMIT
    assert abs(z(report["free_energy"], entropy)) < LIMIT
    assert abs(z(report["dissipated_heating"], heating - entropy)) < LIMIT
    assert abs(z(report["dissipated_cooling"], entropy - cooling)) < LIMIT
    assert abs(z(report["irreversibility"], 0)) < LIMIT  # a bit by itself is reversible at every temperature


def test_both_ends_of_the_bracket_are_what_all_pairs_of_paths_say() -> None:
    """E[-log ½ (exp(-W) + exp(-W'))] over two heating paths, and over a cooling and a heating path, of one bit."""
    temperatures = [1.0, 3.0]
    kernels = [np.array([[1 - r, r], [f, 1 - f]]) for r, f in (_rates(0.1, 0.3, t) for t in temperatures)]
    above = below = 0.0
    for s in (0, 1):
        tails = list(itertools.product((0, 1), repeat=2))
        heated = np.array([kernels[0][s, i] * kernels[1][i, j] for i, j in tails])
        cooled = np.array([(0.4, 0.6)[j] * kernels[1][j, i] * kernels[0][i, s] for i, j in tails])
        pair = -np.log((cooled / heated + (cooled / heated)[:, None]) / 2)
        above += cooled.sum() * float(heated @ pair @ heated)
        below += float(cooled @ pair @ heated)
    candidate = model(flips(0.1, 0.3), bits(0.6, 1), levels_from(temperatures))
    rows = (normal(10, 1) > 0).double()
    report = measured(candidate, rows, examples=40_000, batch=40_000, paths=2, stationary_steps=0, data=False)
    assert abs(z(report["free_energy_above"], above)) < LIMIT
    assert abs(z(report["free_energy_below"], below)) < LIMIT
    assert above - below > 20 * (report["free_energy_below"].error or 0)


def _rates(up: float, down: float, temperature: float) -> tuple[float, float]:
    rise, fall = (1 / (1 + ((1 - p) / p) ** (1 / temperature)) for p in (up, down))
    return rise, fall


# --- refusals, data, cache


def test_dominated_weights_are_counted() -> None:
    plane = torch.ones(2, dtype=torch.float64)
    candidate = model(rotation(0.95, 0.8), gaussian(0 * plane, plane), levels_from([1.0] * 8))
    report = measured(candidate, normal(50, 2), examples=50, paths=4, stationary_steps=0)
    assert any("of 50 cooled states" in warning for warning in report.warnings)
    assert any("of 50 held-out data" in warning for warning in report.warnings)


def around(kernel: Callable[[Tensor], NormalKernel]) -> Model:
    return model(
        Toy(lambda state: Pair(lambda _: kernel(state))),
        gaussian(torch.zeros(2).double(), torch.ones(2).double()),
        levels_from([1.0] * 3),
    )


@pytest.mark.parametrize("kernel", ["deterministic", "nan"])
def test_kernels_without_a_density_are_refused(kernel: str) -> None:
    broken = around(
        lambda state: NormalKernel(
            0.9 * state if kernel == "deterministic" else state * math.nan, filled(0.0, state)
        )
    )
    with pytest.raises(WalkbackError, match=r"not\s*finite|same extreme value"):
        measured(broken, normal(50, 2), examples=50)


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="Got 3 examples"):
        Thermodynamics(examples=3)
    with pytest.raises(ConfigurationError, match="Got 3 chains"):
        Thermodynamics(chains=3)
    assert Thermodynamics(chains=3, stationary_steps=0)
    diverging = around(lambda state: NormalKernel(state * math.nan, filled(1.0, state)))
    with pytest.raises(ConfigurationError, match="Got 3 held-out examples"):
        measured(diverging, normal(3, 2))  # before a path is computed


def test_data_are_heated_as_far_as_they_go() -> None:
    candidate = around(lambda state: NormalKernel(0.5 * state, filled(0.75, state)))
    assert measured(candidate, normal(7, 2)).protocol["data_examples"] == 7
    without = measured(candidate, normal(7, 2), data=False)
    assert without.protocol["data_examples"] == 0
    assert not any(figure.name == "work_data" for figure in without.figures)

    def missing() -> Dataset:
        raise DataError("Got no data.")

    lost = replace(subject(candidate, normal(7, 2)), data=missing)
    report = Thermodynamics(examples=50, chains=4).measure(lost)
    assert report.warnings == ("Held-out data are left out: Got no data.",)


def test_a_measurement_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = normal(60, 1)
    diagnostic = Thermodynamics(examples=60, batch=20, paths=4, chains=10, stationary_steps=5)
    whole = diagnostic.measure(subject(LOSSY.model, rows))
    calls = 0

    def interrupted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return right(*arguments)  # type: ignore[arg-type]

    right = thermodynamics.cooling_work
    monkeypatch.setattr(thermodynamics, "cooling_work", interrupted)
    with pytest.raises(KeyboardInterrupt):
        diagnostic.measure(subject(LOSSY.model, rows, WorkCache(tmp_path)))
    assert diagnostic.measure(subject(LOSSY.model, rows, WorkCache(tmp_path))) == whole
    assert calls == 4
    assert diagnostic.measure(subject(LOSSY.model, rows, WorkCache(tmp_path))) == whole
    assert calls == 4
    (tmp_path / "data-1.safetensors").unlink()
    (tmp_path / "chains-at-level-2.safetensors").unlink()
    assert diagnostic.measure(subject(LOSSY.model, rows, WorkCache(tmp_path))) == whole
    assert diagnostic.measure(subject(LOSSY.model, rows, seed=1)) != whole
