"""Likelihood models to compare with: fitted to training states, evaluated on held-out ones.

    uniform               p(x) = 1 on [0, 1]^D for images; 2^-D for bits
                          elsewhere n/(n+1) U(box of the n training states) + 1/(n+1) diagonal Gaussian
    diagonal-gaussian     N(x; mean, diag(variance))                      maximum likelihood
    gaussian              N(x; mean, covariance)                          maximum likelihood
                          or probabilistic PCA, N(x; mean, W Wᵀ + σ² I)   (Tipping and Bishop, 1999)
    mixture               Σ_k π_k N(x; mean_k, covariance_k)              EM, by scikit-learn
    bernoulli             Π_d p_d^x_d (1 - p_d)^(1 - x_d)                 p_d = (ones + ½) / (n + 1)
    mixture (of bits)     Σ_k π_k Π_d p_kd^x_d (1 - p_kd)^(1 - x_d)       EM with the same half counts
    symbols (one-hot)     Π_l p_l(x_l)                                    p_l = (count + ½) / (n + S/2), S symbols

The box alone would assign density 0 to held-out states outside it, and the figure would be infinite. The Gaussian part
stands for one unseen state (a Laplace estimate), so the density is proper and positive everywhere.
"""

from __future__ import annotations

import math
import warnings
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from walkback.data import DataInfo
from walkback.errors import WalkbackError
from walkback.measuring.estimates import nll_figures
from walkback.report import Figure
from walkback.support.seeding import derive_seed, generator

LARGEST_FULL = 1024
"""Dimensions up to which a full covariance is estimated."""

LARGEST_FULL_MIXTURE = 100
"""Dimensions up to which the parts of a mixture have full covariances."""

LARGEST_FIT = 2**25
"""Largest number of values in the training states that PCA and mixtures are fitted to, 256 MiB; others get twice that.

If there are more states, evenly spaced ones are taken. The mixture on MNIST improves up to this size: 4.8 bits/dim with
a quarter of it, 4.5 with half of it and 4.3 with all of it, in half a minute on one core.
"""

_STEPS = 200  # largest number of EM steps
_REST = 1e-5  # EM has converged when a step gains less, in nats per state and dimension
_STATES_A_PART = 10
_STATES_A_DIMENSION = 5

Rows = npt.NDArray[np.float64]

_Judged: TypeAlias = tuple[str, Tensor, str]
"""A model's name, -log p of held-out states `(M,)` in nats, and its description."""


def baseline_figures(
    train: Tensor, test: Tensor, info: DataInfo, seed: int, *, components: int = 10
) -> tuple[Figure, ...]:
    """Return the negative log-likelihood of held-out states under each simple model.

    Figures are named `baseline_uniform` (nats), `baseline_uniform_bits` (bits/dim, if the data are quantized), and so
    on. Errors are those of the mean over held-out states.

    Args:
        train: Training states `(N, *E)`.
        test: Held-out states `(M, *E)`, the same that the model is evaluated on.
        info: Description of the data.
        seed: Seed of the mixture's initialization and of randomized PCA.
        components: Number of components of the mixture; fewer if a component would have fewer than ten training
            states, or fewer than five for each dimension of a full covariance.

    Raises:
        WalkbackError: There are too few states, one is not finite, or a coordinate of real training states is constant.
    """
    first, second = _rows(_at_most(train, 2 * LARGEST_FIT), "training"), _rows(test, "held-out")
    components = max(1, min(components, len(first) // _STATES_A_PART))
    models = _moment_models(first, second, info, seed)
    if info.support != "one-hot":
        mixture = _mixture_of_bits if info.support == "binary" else _mixture
        models.append(mixture(first, second, seed, components))
    figures: list[Figure] = []
    slopes = info.log_slopes(test.detach().cpu())
    for name, nats, meaning in models:
        figures += nll_figures(f"baseline_{name}", nats + slopes, info, meaning)
    return tuple(figures)


def moment_models(train: Tensor, test: Tensor, info: DataInfo, seed: int) -> list[_Judged]:
    """Evaluate the uniform law and the models of means and covariances: name, `(M,)` nats, and meaning of each.

    Raises:
        WalkbackError: As `baseline_figures`.
    """
    return _moment_models(_rows(train, "training"), _rows(test, "held-out"), info, seed)


def _rows(states: Tensor, what: str) -> Tensor:
    rows = states.detach().to("cpu", torch.float64).flatten(1)
    if len(rows) < 2 or not bool(rows.isfinite().all()):
        raise WalkbackError(f"Got {len(rows)} {what} states, expected at least 2, all finite.")
    return rows


def _moment_models(train: Tensor, test: Tensor, info: DataInfo, seed: int) -> list[_Judged]:
    if info.support == "one-hot":
        return _of_symbols(train, test, info.shape[-1])
    if info.support == "binary":
        num, dim = train.shape
        alone = ((train.sum(0) + 0.5) / (num + 1)).logit()
        return [
            ("uniform", test.new_full((len(test),), dim * math.log(2)), "fair coins"),
            ("bernoulli", -_bits_log_prob(test, alone[None])[:, 0], "coins with the training frequencies"),
        ]
    variance = train.var(0, correction=0)
    constant = int((variance == 0).sum())
    if constant:
        raise WalkbackError(
            f"{constant} coordinates of the training states are constant, so the states have no density: leave the "
            "baselines out, or train with data.dequantize = true."
        )
    full, what = _gaussian(train, test, seed)
    uniform = test.new_zeros(len(test)) if info.bins else _box_nll(train, test)
    reach = (
        "uniform on [0, 1]"
        if info.bins
        else "uniform on the box of the training states, see walkback.measuring.baselines"
    )
    return [
        ("uniform", uniform, reach),
        ("diagonal_gaussian", _diagonal_nll(train, test), "Gaussian with independent coordinates"),
        ("gaussian", full, what),
    ]


def _diagonal_nll(train: Tensor, test: Tensor) -> Tensor:
    """Return `(M,)`, nats."""
    mean, variance = train.mean(0), train.var(0, correction=0)
    return 0.5 * ((test - mean) ** 2 / variance + (2 * math.pi * variance).log()).sum(1)


def _box_nll(train: Tensor, test: Tensor) -> Tensor:
    """Return `(M,)`, nats; the module's docstring covers states outside of the box."""
    low, high = train.amin(0), train.amax(0)
    inside = ((test >= low) & (test <= high)).all(1)
    box = torch.where(inside, -(high - low).log().sum(), -math.inf)
    share = len(train) / (len(train) + 1)
    return -torch.logaddexp(box + math.log(share), math.log1p(-share) - _diagonal_nll(train, test))


def _gaussian(train: Tensor, test: Tensor, seed: int) -> tuple[Tensor, str]:
    num, dim = train.shape
    if dim <= LARGEST_FULL and num > dim:
        # `cov` drops the dimensions of a single coordinate, hence the reshape. A covariance that is not positive
        # definite (coordinates that are sums of others) sets `info` instead of raising.
        factor, info = torch.linalg.cholesky_ex(train.T.cov(correction=0).reshape(dim, dim))
        if int(info) == 0:
            # With Σ = L Lᵀ: (x - μ)ᵀ Σ⁻¹ (x - μ) = ‖L⁻¹ (x - μ)‖² and ½ log |Σ| = Σ_d log L_dd.
            white = torch.linalg.solve_triangular(factor, (test - train.mean(0)).T, upper=False)
            log_volume = factor.diagonal().log().sum() + 0.5 * dim * math.log(2 * math.pi)
            return 0.5 * white.square().sum(0) + log_volume, "Gaussian with the full covariance"
    few = _at_most(train, LARGEST_FIT)
    directions = max(1, min(100, dim - 1, len(few) // 2))
    if dim == 1 or len(few) < 4:
        return _diagonal_nll(train, test), "Gaussian with independent coordinates: too few states for more"
    return _ppca_nll(few, test, directions, seed), f"probabilistic PCA of {directions} directions"


def _ppca_nll(train: Tensor, test: Tensor, directions: int, seed: int) -> Tensor:
    """Return `(M,)`, nats: as `PCA.score_samples`, but without the D × D precision, by Woodbury's identity."""
    state, dim = derive_seed(seed, "baseline-pca") % 2**32, train.shape[1]
    pca = PCA(directions, random_state=state).fit(train.numpy())
    # scikit-learn divides by N - 1, but the likelihood is maximal with N. If there are fewer states than dimensions,
    # it also averages the remaining variances over the number of states instead of the remaining dimensions.
    variances = torch.from_numpy(pca.explained_variance_) * ((len(train) - 1) / len(train))
    rest = float(train.var(0, correction=0).sum() - variances.sum()) / (dim - directions)
    centred = test - torch.from_numpy(pca.mean_)
    along = (centred @ torch.from_numpy(pca.components_).T).square()
    # Squared distance from the principal subspace; rounding can make the difference slightly negative.
    across = (centred.square().sum(1) - along.sum(1)).clamp(min=0)
    volume = variances.log().sum() + (dim - directions) * math.log(rest) + dim * math.log(2 * math.pi)
    return 0.5 * ((along / variances).sum(1) + across / rest + volume)


def _mixture(train: Tensor, test: Tensor, seed: int, components: int) -> _Judged:
    few = _at_most(train, LARGEST_FIT)
    most = len(few) // (_STATES_A_DIMENSION * train.shape[1])
    kind = "full" if train.shape[1] <= LARGEST_FULL_MIXTURE and most > 0 else "diag"
    components = min(components, most) if kind == "full" else components
    model = GaussianMixture(
        components,
        covariance_type=kind,
        # Relative to the data: scikit-learn's default, 1e-6, is as large as the variance of dequantization noise.
        reg_covar=1e-6 * float(train.var(0, correction=0).min()),
        max_iter=_STEPS,
        tol=_REST * train.shape[1],
        random_state=derive_seed(seed, "baseline-mixture") % 2**32,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `meaning` says so instead
        model.fit(few.numpy())
    nats = -torch.from_numpy(np.asarray(model.score_samples(test.numpy()), dtype=np.float64))
    shape = "full" if kind == "full" else "diagonal"
    note = "" if model.converged_ else f"; not converged after {_STEPS} steps of EM"
    return "mixture", nats, f"mixture of {components} Gaussians of {shape} covariance{note}"


def _of_symbols(train: Tensor, test: Tensor, num: int) -> list[_Judged]:
    """Evaluate models of flat one-hot states with `num` symbols per position."""
    counts = train.sum(0).reshape(-1, num)
    log_p = ((counts + 0.5) / (len(train) + num / 2)).log()
    places = train.shape[1] // num
    return [
        ("uniform", test.new_full((len(test),), places * math.log(num)), f"all {num} symbols equally likely"),
        (
            "symbols",
            -(test @ log_p.flatten()),
            "independent symbols with the training frequencies of their positions",
        ),
    ]


def _mixture_of_bits(train: Tensor, test: Tensor, seed: int, components: int) -> _Judged:
    mixed, converged = _bit_mixture_nll(_at_most(train, LARGEST_FIT), test, seed, components)
    note = "" if converged else f"; not converged after {_STEPS} steps of EM"
    return "mixture", mixed, f"mixture of {components} sets of coins{note}"


def _bits_log_prob(bits: Tensor, logits: Tensor) -> Tensor:
    """Return log Π_d p_kd^x_d (1 - p_kd)^(1 - x_d), `(N, K)`, for bits `(N, D)` and logits `(K, D)`."""
    return bits @ logits.T + torch.nn.functional.logsigmoid(-logits).sum(1)


def _bit_mixture_nll(train: Tensor, test: Tensor, seed: int, components: int) -> tuple[Tensor, bool]:
    """Return `(M,)`, nats, and whether EM converged."""
    num, dim = train.shape
    rng = generator("cpu", seed, "baseline-bits")
    # Each component starts halfway between an example and the mean: EM would keep equal components equal.
    examples = train[torch.randperm(num, generator=rng)[:components]]
    logits = (0.05 + 0.45 * examples + 0.45 * train.mean(0)).logit()
    weights = train.new_full((components,), -math.log(components))
    before, converged = -math.inf, False
    for _ in range(_STEPS):
        joint = weights + _bits_log_prob(train, logits)
        shares, now = joint.softmax(1), joint.logsumexp(1).mean().item()
        counts = shares.sum(0)
        # Half counts, as for a single set of coins: a frequency of exactly 0 would give a held-out bit density 0.
        weights = ((counts + 0.5) / (num + 0.5 * components)).log()
        logits = ((shares.T @ train + 0.5) / (counts[:, None] + 1)).logit()
        if abs(now - before) < _REST * dim:
            converged = True
            break
        before = now
    return -(weights + _bits_log_prob(test, logits)).logsumexp(1), converged


def _at_most(rows: Tensor, numbers: int) -> Tensor:
    """Return all rows, or evenly spaced ones with at most `numbers` values in total."""
    most = max(1, numbers // max(1, rows[:1].numel()))
    return rows if len(rows) <= most else rows[torch.arange(most) * len(rows) // most]
