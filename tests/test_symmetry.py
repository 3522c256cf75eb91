"""Asymmetry of Jacobians against closed forms and against the exact Jacobian; mirrored layers against tied weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

import pytest
import torch
from tests.toy.data import InMemory
from tests.toy.exact import CycleKernel, Pair, Toy, filled, gaussian, model
from tests.toy.paper import gaussian_conv, gaussian_mlp, gaussian_unet
from tests.toy.statistics import LIMIT, normal, rng, z_score
from torch import Tensor, nn

from walkback.diagnostics import Subject
from walkback.errors import ConfigurationError, WalkbackError
from walkback.kernels import BernoulliKernel, Kernel, NormalKernel, ProductKernel
from walkback.operators import Conditional, TransitionOperator
from walkback.report import Report
from walkback.schedules import Level, levels_from
from walkback.state import Context, Space, State, leaves
from walkback.storage.work_cache import WorkCache
from walkback.walk import Start
from walkback_diagnostics import symmetry
from walkback_diagnostics.mirrored import linear_maps, mirrored_layers
from walkback_diagnostics.symmetry import Symmetry, natural_parameters, squared_norms

Map = Callable[[Tensor], Tensor]
COLD = Level(1, 1.0)


def mean_map(function: Map) -> Toy:
    """Normal kernels around any function of the state."""
    return Toy(lambda state: Pair(lambda _: NormalKernel(function(state), filled(0.1, state))))


def subject(operator: TransitionOperator, rows: Tensor, cache: WorkCache | None = None) -> Subject:
    shape = tuple(rows.shape[1:])
    prior = gaussian(torch.zeros(shape).double(), torch.ones(shape).double())
    data = InMemory(rows)
    return Subject(
        model(operator, prior, levels_from([1.0, 2.0])), data.info, lambda: data, cache=cache or WorkCache()
    )


def measured(operator: TransitionOperator, rows: Tensor | None = None, **options: object) -> Report:
    rows = normal(20, 4) if rows is None else rows
    return Symmetry(examples=len(rows), **options).measure(subject(operator, rows))  # type: ignore[arg-type]


def linear(matrix: Tensor) -> Toy:
    return mean_map(lambda state: state @ matrix.T)


def exact_norms(function: Map, state: Tensor) -> Tensor:
    """‖J - Jᵀ‖², ‖J + Jᵀ‖², ‖J + Jᵀ - 2 I‖² from all of J, row by row."""
    rows = []
    for row in state:
        j = torch.autograd.functional.jacobian(lambda x: function(x[None])[0].flatten(), row)
        j = j.reshape(row.numel(), row.numel())
        eye = torch.eye(len(j), dtype=j.dtype)
        rows.append(torch.stack([(j - j.T).norm(), (j + j.T).norm(), (j + j.T - 2 * eye).norm()]).square())
    return torch.stack(rows)


def network(seed: int, *, tied: bool) -> Map:
    """Vᵀ tanh(W s) with V = W (the gradient of Σ log cosh(W s)) or V of its own."""
    w = normal(7, 4, seed=seed)
    v = w if tied else normal(7, 4, seed=seed + 1)
    return lambda state: (state @ w.T).tanh() @ v


# --- closed forms


def test_a_symmetric_map_has_no_asymmetry() -> None:
    root = normal(4, 4)
    report = measured(linear(root + root.T))
    assert report["asymmetry"].value < 1e-12
    assert report["drift_asymmetry"].value < 1e-12
    assert report.headline == "drift_asymmetry"


@pytest.mark.parametrize("angle", [0.3, 1.0, 2.0])
def test_a_rotation_has_the_tangent_of_its_angle(angle: float) -> None:
    """J = a R: J - Jᵀ = 2 a sin(θ) Ω, J + Jᵀ = 2 a cos(θ) I; all directions see the same, so probes add no noise."""
    a, c, s = 0.8, math.cos(angle), math.sin(angle)
    turn = a * torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    report = measured(linear(turn), normal(10, 2), probes=1)
    assert report["asymmetry"].value == pytest.approx(abs(math.tan(angle)), rel=1e-12)
    assert report["drift_asymmetry"].value == pytest.approx(abs(a * s / (a * c - 1)), rel=1e-12)
    assert report["asymmetry"].error == pytest.approx(0, abs=1e-6)


def test_an_antisymmetric_map_has_a_drift_to_judge_but_no_ratio() -> None:
    """m = A s: the drift's J is A - I, of asymmetry ‖A‖ / ‖I‖ = a for a quarter turn; that of J itself is infinite."""
    quarter = torch.tensor([[0.0, -0.5], [0.5, 0.0]], dtype=torch.float64)
    report = measured(linear(quarter), normal(10, 2))
    assert report["drift_asymmetry"].value == pytest.approx(0.5, rel=1e-12)
    assert [figure.name for figure in report.figures] == ["drift_asymmetry"]
    assert any("infinite" in warning for warning in report.warnings)


def test_independent_entries_have_asymmetry_one() -> None:
    """E(J_ij - J_ji)² = E(J_ij + J_ji)² off the diagonal, which alone the sum has: √((D - 1) / (D + 1))."""
    size = 300
    j = normal(size, size)
    report = measured(linear(j), normal(4, size), probes=2)
    expected = math.sqrt((size - 1) / (size + 1))
    assert report["asymmetry"].value == pytest.approx(expected, rel=0.03)


def test_the_gradient_of_an_energy_is_told_from_another_map() -> None:
    energy, free = (measured(mean_map(network(0, tied=tied))) for tied in (True, False))
    assert energy["asymmetry"].value < 1e-12
    assert energy["drift_asymmetry"].value < 1e-12
    assert free["asymmetry"].value > 0.3
    assert free["asymmetry"].value > 10 * (free["asymmetry"].error or 0)


def test_the_identity_hides_a_turning_drift() -> None:
    """m = s + ε A s with A antisymmetric but for a small symmetric part: J looks symmetric, the drift does not."""
    turn = torch.tensor([[0.1, -1.0], [1.0, 0.1]], dtype=torch.float64)
    report = measured(linear(torch.eye(2, dtype=torch.float64) + 0.01 * turn), normal(10, 2))
    assert report["asymmetry"].value < 0.011
    assert report["drift_asymmetry"].value == pytest.approx(10, rel=1e-9)


# --- the estimator


def worst_z(function: Map, state: Tensor, which: tuple[int, ...]) -> float:
    """Largest |z| of the estimates of 400 single probes against all of J."""
    found = torch.stack(
        [squared_norms(mean_map(function), Start(state), COLD, 1, rng(seed)) for seed in range(400)]
    )
    exact = exact_norms(function, state)
    return max(
        abs(z_score(found[:, row, column], float(exact[row, column])))
        for row in range(len(state))
        for column in which
    )


def test_probes_agree_with_the_exact_jacobian() -> None:
    assert worst_z(network(2, tied=False), normal(5, 4), (0, 1, 2)) < LIMIT
    assert worst_z(network(2, tied=True), normal(5, 4), (1, 2)) < LIMIT


def test_a_forgotten_transposition_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    right = symmetry._products

    def wrong(*arguments: Any) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for forward, _, v in right(*arguments):
            yield forward, forward, v

    monkeypatch.setattr(symmetry, "_products", wrong)
    assert worst_z(network(2, tied=False), normal(5, 4), (1, 2)) > 2 * LIMIT


def test_the_reported_ratio_is_within_its_error_of_the_exact_one() -> None:
    function, rows = network(2, tied=False), normal(60, 4)
    report = measured(mean_map(function), rows, batch=17)
    exact = exact_norms(function, rows).mean(0)
    for name, below in (("asymmetry", 1), ("drift_asymmetry", 2)):
        figure = report[name]
        # The states are given: of the error over states, what the probes add is a part.
        assert abs(figure.value - math.sqrt(float(exact[0] / exact[below]))) < LIMIT * (figure.error or 0)


def test_errors_cover_repeated_measurements() -> None:
    """Of 100 measurements on states of their own, the scatter is what each gives as its error (χ² within 4.5 σ)."""
    function = network(4, tied=False)
    found = [measured(mean_map(function), normal(40, 4, seed=seed))["asymmetry"] for seed in range(100)]
    values = torch.tensor([figure.value for figure in found])
    claimed = torch.tensor([figure.error for figure in found]).square().mean().sqrt()
    assert abs(float(values.std() / claimed) - 1) < LIMIT / math.sqrt(2 * 99) + 0.05


# --- kernels


def coupled(variance: float, *, transposed: bool = True) -> Toy:
    """Bits and reals that see each other through one matrix: reversible where one sees its transpose, over v."""
    w = normal(3, 2)
    back = w.T if transposed else normal(2, 3, seed=5)

    class Both(Conditional):
        def __init__(self, state: State) -> None:
            self.bits, self.code = leaves(state)

        def cooling(self, level: Level) -> Kernel:
            logits = self.code @ w.T
            return ProductKernel(
                [
                    BernoulliKernel(logits),
                    NormalKernel(variance * self.bits @ back.T, filled(variance, self.code)),
                ]
            )

        def heating(self, level: Level) -> Kernel:
            return self.cooling(level)

    @final
    class Coupled(TransitionOperator):
        @property
        def max_temperature(self) -> float:
            return 2.0

        def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
            return Both(state)

    return Coupled()  # type: ignore[return-value]


@pytest.mark.parametrize("variance", [1.0, 0.04])
def test_bits_and_reals_of_one_energy_are_symmetric(variance: float) -> None:
    state = ((normal(6, 3) > 0).double(), normal(6, 2))
    norms = squared_norms(coupled(variance), Start(state), COLD, 4, rng())
    assert float((norms[:, 0] / norms[:, 1]).max()) < 1e-20
    other = squared_norms(coupled(variance, transposed=False), Start(state), COLD, 4, rng())
    assert float(other[:, 0].mean() / other[:, 1].mean()) > 0.05


def test_logits_of_bits_are_judged_as_a_map_without_drift() -> None:
    root = normal(4, 4)
    operator = Toy(lambda state: Pair(lambda level: BernoulliKernel(state @ (root + root.T))))
    report = measured(operator, (normal(12, 4) > 0).double())
    assert report.headline == "asymmetry"
    assert report["asymmetry"].value < 1e-12
    with pytest.raises(KeyError):
        report["drift_asymmetry"]


def test_other_kernels_are_refused() -> None:
    ring = Toy(lambda state: Pair(lambda _: CycleKernel(state, 0.6)))
    with pytest.raises(ConfigurationError, match="Got an operator with a CycleKernel"):
        measured(ring)


def test_what_cannot_be_judged_is_refused() -> None:
    constant = mean_map(torch.zeros_like)
    with pytest.raises(WalkbackError, match="do not depend on the state"):
        measured(constant)
    with pytest.raises(WalkbackError, match="not finite"):
        measured(mean_map(lambda state: state.square() * math.nan))
    with pytest.raises(WalkbackError, match="at least 4"):
        measured(linear(torch.eye(4).double()), normal(3, 4))


def test_a_map_without_second_derivative_is_refused() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: object, *grads: Tensor) -> Tensor:
            return 2 * grads[0]

    with pytest.raises(WalkbackError, match="has no gradient"):
        measured(mean_map(lambda state: Once.apply(state)))


def test_a_measurement_goes_on_where_it_stopped(tmp_path: Path) -> None:
    operator, rows = mean_map(network(0, tied=False)), normal(30, 4)
    diagnostic = Symmetry(examples=30, batch=10)
    whole = diagnostic.measure(subject(operator, rows))
    diagnostic.measure(subject(operator, rows, WorkCache(tmp_path)))
    (tmp_path / "jacobian-2.safetensors").unlink()
    broken = mean_map(network(8, tied=False))  # whatever is computed anew differs
    assert diagnostic.measure(subject(operator, rows, WorkCache(tmp_path))) == whole
    (tmp_path / "jacobian-0.safetensors").unlink()
    assert diagnostic.measure(subject(broken, rows, WorkCache(tmp_path))) != whole


# --- networks


@pytest.mark.parametrize(
    ("operator", "shape"),
    [
        (lambda shape: gaussian_mlp(Space(shape), hidden=16, depth=2), (5,)),
        (lambda shape: gaussian_conv(Space(shape), channels=(4,), hidden=8), (1, 6, 6)),
        (lambda shape: gaussian_unet(Space(shape), channels=(8, 16), blocks=1), (1, 8, 8)),
    ],
)
def test_networks_are_judged_with_their_weights_frozen(
    operator: Callable[[tuple[int, ...]], nn.Module], shape: tuple[int, ...]
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = operator(shape).double()
        for parameter in built.parameters():
            nn.init.normal_(parameter, std=0.2)
    built.eval().requires_grad_(False)
    assert isinstance(built, TransitionOperator)
    rows = normal(4, *shape)
    report = measured(built, rows, probes=64)

    def function(state: Tensor) -> Tensor:
        return natural_parameters(built(state, COLD).cooling(COLD))

    exact = exact_norms(function, rows).mean(0)
    assert report["asymmetry"].value == pytest.approx(math.sqrt(float(exact[0] / exact[1])), rel=0.2)
    assert not any(parameter.requires_grad for parameter in built.parameters())
    assert report["mirrored_layers"].error is None  # the cosine of given weights is exact


class Autoencoder(TransitionOperator):
    """W₁ᵀ-like layers around a bottleneck, a second head for the variance and a layer for T alone."""

    def __init__(self, encoder: list[nn.Module], decoder: list[nn.Module]) -> None:
        super().__init__()
        self.decoder = nn.ModuleList(decoder)  # registered before the encoder: the order is that of running
        self.encoder = nn.ModuleList(encoder)
        self.variance = nn.Sequential(nn.Flatten(), nn.LazyLinear(1))
        self.told = nn.Linear(1, 1)

    @property
    def max_temperature(self) -> float:
        return 2.0

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        (features,) = leaves(state)
        shift = self.told(level.temperature_like(features).reshape(-1, 1).float()).sum()
        for layer in (*self.encoder, *self.decoder):
            features = layer(features + shift)
        spread = self.variance(features).exp().reshape(-1, *(1,) * (features.dim() - 1))
        return Pair(lambda _: NormalKernel(features, spread))


def autoencoder(encoder: list[nn.Module], decoder: list[nn.Module], state: Tensor) -> Autoencoder:
    built = Autoencoder(encoder, decoder)
    built(state, COLD)
    return built


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_tied_layers_have_cosine_one() -> None:
    state = normal(4, 6).float()
    encoder: list[nn.Module] = [nn.Linear(6, 5), nn.Linear(5, 3)]
    decoder: list[nn.Module] = [nn.Linear(3, 5), nn.Linear(5, 6)]
    built = autoencoder(encoder, decoder, state)
    with torch.no_grad():
        built.decoder[0].weight.copy_(built.encoder[1].weight.T)
        built.decoder[1].weight.copy_(-2 * built.encoder[0].weight.T)
    figure, series, warnings = mirrored_layers(built, Start(state), COLD, natural_parameters)
    assert linear_maps(built, Start(state), COLD, natural_parameters) == [*encoder, *decoder]
    assert series is not None
    assert series.y == pytest.approx((-1, 1))
    assert series.x == (1, 2)
    assert series.error == pytest.approx((1 / math.sqrt(30), 1 / math.sqrt(15)))
    assert figure is not None
    assert figure.value == pytest.approx(0, abs=1e-12)
    assert figure.error is None
    assert "unrelated weights have 0 ± 0.16" in figure.meaning  # √(1/30 + 1/15) / 2
    assert warnings == ()


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("kind", ["transposed", "plain"])
def test_a_tied_convolution_is_the_transpose_of_the_other(kind: str) -> None:
    """The layer with mirrored weights has the transposed Jacobian, and cosine 1."""
    state = normal(4, 2, 6, 6).float()
    first = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    last: nn.Conv2d | nn.ConvTranspose2d
    last = (nn.ConvTranspose2d if kind == "transposed" else nn.Conv2d)(3, 2, 3, padding=1, bias=False)
    with torch.no_grad():
        last.weight.copy_(first.weight if kind == "transposed" else first.weight.transpose(0, 1).flip(2, 3))
    built = autoencoder([first], [last], state)
    j = torch.autograd.functional.jacobian(lambda x: first(x[None])[0], state[0]).reshape(108, 72)
    back = torch.autograd.functional.jacobian(lambda x: last(x[None])[0], first(state[:1])[0]).reshape(
        72, 108
    )
    torch.testing.assert_close(back, j.T)
    figure, _, _ = mirrored_layers(built, Start(state), COLD, natural_parameters)
    assert figure is not None
    assert figure.value == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_unrelated_layers_scatter_as_the_error_says() -> None:
    state, found = normal(4, 6).float(), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(200):
            built = autoencoder([nn.Linear(6, 5)], [nn.Linear(5, 6)], state)
            figure, series, _ = mirrored_layers(built, Start(state), COLD, natural_parameters)
            assert figure is not None
            assert series is not None
            assert series.error == pytest.approx((1 / math.sqrt(30),))
            found.append(figure.value)
    scatter = torch.tensor(found).square().mean().sqrt()
    assert abs(float(scatter) * math.sqrt(30) - 1) < LIMIT / math.sqrt(2 * 200)


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_layers_that_mirror_nothing_are_left_out_with_a_warning() -> None:
    state = normal(4, 6).float()
    built = autoencoder([nn.Linear(6, 5)], [nn.Linear(5, 4), nn.Linear(4, 6)], state)
    figure, series, warnings = mirrored_layers(built, Start(state), COLD, natural_parameters)
    assert figure is None
    assert series is None
    assert len(warnings) == 1
