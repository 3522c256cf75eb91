"""Baselines against closed forms, scipy's densities, and sums over all states."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from tests.toy.statistics import LIMIT, normal, rng
from torch import Tensor

from walkback.data import DataInfo
from walkback.errors import WalkbackError
from walkback.measuring import baselines
from walkback.measuring.baselines import baseline_figures
from walkback.report import Figure


def by_name(
    train: Tensor, test: Tensor, info: DataInfo, seed: int = 0, components: int = 10
) -> dict[str, Figure]:
    figures = baseline_figures(train, test, info, seed, components=components)
    assert len({figure.name for figure in figures}) == len(figures)
    return {figure.name.removeprefix("baseline_"): figure for figure in figures}


def correlated(num: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """States `(num, dim)` and their true covariance."""
    factor = normal(dim, dim, seed=100) / math.sqrt(dim) + torch.eye(dim, dtype=torch.float64)
    return normal(num, dim, seed=seed) @ factor.T + 3, factor @ factor.T


def real(dim: int) -> DataInfo:
    return DataInfo("x", (dim,))


# --- real states


def test_a_gaussian_fitted_to_gaussian_data_has_their_entropy() -> None:
    train, covariance = correlated(40_000, 3)
    figure = by_name(train, correlated(4_000, 3, seed=1)[0], real(3))["gaussian"]
    entropy = 0.5 * float(torch.logdet(2 * math.pi * math.e * covariance))
    assert figure.error is not None
    # log p of a Gaussian has the variance D / 2.
    assert figure.error == pytest.approx(math.sqrt(3 / 2 / 4_000), rel=0.1)
    assert abs(figure.value - entropy) < LIMIT * figure.error
    assert "full covariance" in figure.meaning


def test_gaussians_are_scipys() -> None:
    train, test = correlated(200, 4)[0], correlated(50, 4, seed=1)[0]
    figures = by_name(train.reshape(200, 2, 2), test.reshape(50, 2, 2), DataInfo("x", (2, 2)))
    mean, covariance = train.mean(0).numpy(), np.cov(train.numpy().T, bias=True)
    full = -stats.multivariate_normal(mean, covariance).logpdf(test.numpy())
    assert figures["gaussian"].value == pytest.approx(full.mean(), rel=1e-12)
    assert figures["gaussian"].error == pytest.approx(stats.sem(full), rel=1e-12)
    alone = -stats.norm(mean, np.sqrt(np.diag(covariance))).logpdf(test.numpy()).sum(1)
    assert figures["diagonal_gaussian"].value == pytest.approx(alone.mean(), rel=1e-12)


def test_images_without_a_model_cost_eight_bits_exactly() -> None:
    images = torch.rand(64, 1, 4, 4, generator=rng())
    figures = by_name(images, images[:20], DataInfo("x", (1, 4, 4), bins=256))
    assert (figures["uniform"].value, figures["uniform"].error) == (0.0, 0.0)
    assert (figures["uniform_bits"].value, figures["uniform_bits"].error) == (8.0, 0.0)


def test_bits_are_nats_by_the_rule_of_the_data() -> None:
    info = DataInfo("x", (6,), bins=17)
    train, test = (0.5 + 0.1 * normal(300, 6, seed=seed) for seed in (0, 1))
    figures = by_name(train, test, info)
    for name in ("uniform", "diagonal_gaussian", "gaussian", "mixture"):
        assert figures[f"{name}_bits"].value == pytest.approx(info.bits_per_dimension(figures[name].value))
        assert figures[f"{name}_bits"].error == pytest.approx(figures[name].error / 6 / math.log(2))
        assert (figures[name].unit, figures[f"{name}_bits"].unit) == ("nats", "bits/dim")


def test_the_uniform_density_in_the_plane_is_one_over_the_box_and_stays_finite() -> None:
    train = torch.tensor([[0.0, 0.0], [2.0, 4.0], [1.0, 1.0], [1.0, 3.0]])
    inside = torch.full((4, 2), 0.7)
    gauss = stats.norm([1, 2], [math.sqrt(0.5), math.sqrt(2.5)])
    low = 0.2 * gauss.pdf(inside.double().numpy()).prod(1)
    expected = -np.log(0.8 / 8 + low).mean()
    assert by_name(train, inside, real(2))["uniform"].value == pytest.approx(expected, rel=1e-6)
    far = by_name(train, inside + 100, real(2))["uniform"].value
    expected = math.log(5) - gauss.logpdf((inside + 100).double().numpy()).sum(1).mean()
    assert far == pytest.approx(expected, rel=1e-6)
    assert "uniform_bits" not in by_name(train, inside, real(2))


def test_the_uniform_density_is_normalized() -> None:
    train = torch.tensor([[0.0], [2.0], [0.5], [1.0]])
    grid = torch.linspace(-20, 20, 400_001, dtype=torch.float64)[:, None]
    density = (-baselines._box_nll(train.double(), grid)).exp()
    assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1, abs=1e-4)


def test_many_dimensions_and_few_states_are_met_by_ppca(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = correlated(60, 8)[0], correlated(40, 8, seed=1)[0]
    monkeypatch.setattr(baselines, "LARGEST_FULL", 4)
    figure = by_name(train, test, real(8))["gaussian"]
    assert "probabilistic PCA of 7 directions" in figure.meaning
    # scikit-learn has the same density up to N / (N - 1): ask it for states stretched by that.
    stretch = math.sqrt(60 / 59)
    reference = PCA(7).fit(train.numpy())
    moved = (test - train.mean(0)) * stretch + train.mean(0)
    expected = -reference.score_samples(moved.numpy()) - 8 * math.log(stretch)
    assert figure.value == pytest.approx(expected.mean(), rel=1e-10)


def test_fewer_states_than_dimensions_have_the_density_of_ppca() -> None:
    train, test = correlated(12, 30)[0], correlated(8, 30, seed=1)[0]
    figure = by_name(train, test, real(30))["gaussian"]
    values, vectors = np.linalg.eigh(np.cov(train.numpy().T, bias=True))
    values[:-6] = values[:-6].mean()
    covariance = (vectors * values) @ vectors.T
    expected = -stats.multivariate_normal(train.mean(0).numpy(), covariance).logpdf(test.numpy())
    assert "6 directions" in figure.meaning
    assert figure.value == pytest.approx(expected.mean(), rel=1e-8)


def test_a_mixture_finds_the_modes() -> None:
    """Four far modes of 2-D Gaussians: entropy log 4 + log(2πe σ²), which no single Gaussian reaches."""
    centres = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]], dtype=torch.float64)
    train, test = (
        centres[torch.randint(4, (num,), generator=rng(num))] + 0.1 * normal(num, 2, seed=num)
        for num in (20_000, 2_000)
    )
    figures = by_name(train, test, real(2), components=4)
    entropy = math.log(4) + math.log(2 * math.pi * math.e * 0.01)
    error = figures["mixture"].error
    assert error is not None
    assert abs(figures["mixture"].value - entropy) < LIMIT * error
    assert figures["gaussian"].value > entropy + 3
    again = by_name(train, test, real(2), components=4)
    assert again["mixture"].value == figures["mixture"].value


def test_em_that_does_not_come_to_rest_is_told_and_warns_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "_STEPS", 1)
    train = normal(300, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "not converged after 1 steps" in by_name(train, train[:50], real(2))["mixture"].meaning
        bits = (train > 0).float()
        info = DataInfo("x", (2,), "binary")
        assert "not converged after 1 steps" in by_name(bits, bits[:50], info)["mixture"].meaning


def test_large_mixtures_are_diagonal_and_the_fit_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "LARGEST_FULL_MIXTURE", 2)
    train, test = correlated(400, 3)[0], correlated(50, 3, seed=1)[0]
    figure = by_name(train, test, real(3), components=1)["mixture"]
    # One part with independent coordinates is the diagonal Gaussian, up to the regularization.
    alone = by_name(train, test, real(3), components=1)["diagonal_gaussian"]
    assert figure.value == pytest.approx(alone.value, rel=1e-3)
    assert "diagonal" in figure.meaning
    assert torch.equal(baselines._at_most(train, 300), train[::4])
    monkeypatch.setattr(baselines, "LARGEST_FIT", 300)
    half = by_name(train[::2], test, real(3))
    assert by_name(train, test, real(3)) == half


def test_data_without_density_are_refused() -> None:
    train = normal(50, 3)
    train[:, 1] = 2
    with pytest.raises(WalkbackError, match="1 coordinates of the training states are constant"):
        by_name(train, train, real(3))
    train[0, 1] = math.nan
    with pytest.raises(WalkbackError, match="all finite"):
        by_name(train, train, real(3))


# --- bits


def bits(num: int, dim: int, seed: int) -> Tensor:
    """Two kinds of bits, mirrored."""
    kind = torch.randint(2, (num, 1), generator=rng(seed))
    chance = torch.linspace(0.05, 0.3, dim)
    chance = torch.where(kind == 1, chance, 1 - chance)
    return (torch.rand(num, dim, generator=rng(1000 + seed)) < chance).float()


def test_bit_models_are_probabilities() -> None:
    """Over all 2^5 states they sum to 1, which needs no sampling."""
    train = bits(300, 5, 0)
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=5)), dtype=torch.float64)
    found = [
        *baselines.moment_models(train.double(), every, DataInfo("x", (5,), "binary"), 0),
        baselines._mixture_of_bits(train.double(), every, 0, 3),
    ]
    assert [name for name, _, _ in found] == ["uniform", "bernoulli", "mixture"]
    for _, nats, _ in found:
        assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_independent_bits_are_counted_by_hand() -> None:
    train = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    figures = by_name(train, torch.tensor([[1.0, 1.0]] * 4), DataInfo("x", (2,), "binary"))
    assert figures["bernoulli"].value == pytest.approx(-math.log(3.5 / 4) - math.log(1.5 / 4))
    assert figures["uniform"].value == pytest.approx(2 * math.log(2))
    assert figures["uniform_bits"].value == pytest.approx(1)


def test_a_mixture_of_bits_finds_the_entropy_of_two_kinds() -> None:
    train, test = bits(20_000, 12, 1), bits(2_000, 12, 2)
    figures = by_name(train, test, DataInfo("x", (12,), "binary"), components=2)
    chance = torch.linspace(0.05, 0.3, 12, dtype=torch.float64)
    kinds = torch.stack([stats_of(test, chance), stats_of(test, 1 - chance)])
    expected = -(kinds.logsumexp(0) - math.log(2))
    # The same examples under the truth: only the error of fitting 25 numbers to 20,000 examples is left.
    assert figures["mixture"].value == pytest.approx(float(expected.mean()), abs=0.01)
    assert figures["bernoulli"].value > figures["mixture"].value + 2
    assert "not converged" not in figures["mixture"].meaning


def stats_of(states: Tensor, chance: Tensor) -> Tensor:
    return torch.distributions.Bernoulli(chance).log_prob(states.double()).sum(1)


def test_scikit_learns_mixture_is_asked_as_told() -> None:
    train, test = correlated(500, 2)[0], correlated(60, 2, seed=1)[0]
    value = by_name(train, test, real(2), components=2)["mixture"].value
    scores = [
        -GaussianMixture(2, random_state=seed, tol=1e-3, max_iter=500).fit(train.numpy()).score(test.numpy())
        for seed in range(3)
    ]
    assert min(scores) - 0.05 < value < max(scores) + 0.05
