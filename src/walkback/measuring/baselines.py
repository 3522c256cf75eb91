"""Likelihood models to compare with: fitted to training states, judged on the held-out ones.

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
"""Numbers in the training states that PCA and mixtures are fitted to, half of what the others are; 256 MiB.

Of more states evenly spaced ones are taken. MNIST's mixture gains much up to here: 4.8 bits/dim from a quarter of it,
4.5 from half of it, 4.3 from all of it, in half a minute of one core.
"""

_STEPS = 200  # of EM, until it gains less than
_REST = 1e-5  # nats a state and dimension
_STATES_A_PART = 10
_STATES_A_DIMENSION = 5

Rows = npt.NDArray[np.float64]

_Judged: TypeAlias = tuple[str, Tensor, str]
"""A model's name, -log p of held-out states `(M,)` in nats, and what it is."""


def baseline_figures(
    train: Tensor, test: Tensor, info: DataInfo, seed: int, *, components: int = 10
) -> tuple[Figure, ...]:
    """Negative log-likelihood of held-out states under simple models, by name of the model.

    Figures are called `baseline_uniform` (nats) and `baseline_uniform_bits` (bits/dim, where the data have them), and
    so on; errors are those of the mean over held-out states.

    Args:
        train: Training states `(N, *E)`.
        test: Held-out states `(M, *E)`, those that the model is judged on.
        info: The data.
        seed: Of the mixture's start and of randomized PCA.
        components: Parts of the mixture; fewer where a part would have less than ten training states, or less
            than five for each dimension of a full covariance.

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
    for name, nats, meaning in models:
        figures += nll_figures(f"baseline_{name}", nats, info, meaning)
    return tuple(figures)


def moment_models(train: Tensor, test: Tensor, info: DataInfo, seed: int) -> list[_Judged]:
    """The uniform law and the models of means and covariances: name, `(M,)` nats of held-out states, and meaning.

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
            f"Got training states with {constant} constant coordinates, which have no density, expected "
            "dequantized data: leave the baselines out, or train on data.dequantize = true."
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
    """`(M,)`, nats."""
    mean, variance = train.mean(0), train.var(0, correction=0)
    return 0.5 * ((test - mean) ** 2 / variance + (2 * math.pi * variance).log()).sum(1)


def _box_nll(train: Tensor, test: Tensor) -> Tensor:
    """`(M,)`, nats; see the module's text for states outside of the box."""
    low, high = train.amin(0), train.amax(0)
    inside = ((test >= low) & (test <= high)).all(1)
    box = torch.where(inside, -(high - low).log().sum(), -math.inf)
    share = len(train) / (len(train) + 1)
    return -torch.logaddexp(box + math.log(share), math.log1p(-share) - _diagonal_nll(train, test))


def _gaussian(train: Tensor, test: Tensor, seed: int) -> tuple[Tensor, str]:
    num, dim = train.shape
    if dim <= LARGEST_FULL and num > dim:
        factor, info = torch.linalg.cholesky_ex(train.T.cov(correction=0).reshape(dim, dim))
        if int(info) == 0:
            white = torch.linalg.solve_triangular(factor, (test - train.mean(0)).T, upper=False)
            log_volume = factor.diagonal().log().sum() + 0.5 * dim * math.log(2 * math.pi)
            return 0.5 * white.square().sum(0) + log_volume, "Gaussian with the full covariance"
    few = _at_most(train, LARGEST_FIT)
    directions = max(1, min(100, dim - 1, len(few) // 2))
    if dim == 1 or len(few) < 4:
        return _diagonal_nll(train, test), "Gaussian with independent coordinates: too few states for more"
    return _ppca_nll(few, test, directions, seed), f"probabilistic PCA of {directions} directions"


def _ppca_nll(train: Tensor, test: Tensor, directions: int, seed: int) -> Tensor:
    """`(M,)`, nats: `PCA.score_samples` without the D × D precision, by Woodbury's identity."""
    state, dim = derive_seed(seed, "baseline-pca") % 2**32, train.shape[1]
    pca = PCA(directions, random_state=state).fit(train.numpy())
    # scikit-learn divides by N - 1, where the likelihood is largest with N; and it takes the mean of the other
    # variances over as many as there are states, where these are fewer than dimensions.
    variances = torch.from_numpy(pca.explained_variance_) * ((len(train) - 1) / len(train))
    rest = float(train.var(0, correction=0).sum() - variances.sum()) / (dim - directions)
    centred = test - torch.from_numpy(pca.mean_)
    along = (centred @ torch.from_numpy(pca.components_).T).square()
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
        # Relative to the data: an absolute one would drown the noise of a grey level.
        reg_covar=1e-6 * float(train.var(0, correction=0).min()),
        max_iter=_STEPS,
        tol=_REST * train.shape[1],
        random_state=derive_seed(seed, "baseline-mixture") % 2**32,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told in `meaning` instead
        model.fit(few.numpy())
    nats = -torch.from_numpy(np.asarray(model.score_samples(test.numpy()), dtype=np.float64))
    shape = "full" if kind == "full" else "diagonal"
    note = "" if model.converged_ else f"; not converged after {_STEPS} steps of EM"
    return "mixture", nats, f"mixture of {components} Gaussians of {shape} covariance{note}"


def _of_symbols(train: Tensor, test: Tensor, num: int) -> list[_Judged]:
    """Of flat one-hot states of `num` symbols a place."""
    counts = train.sum(0).reshape(-1, num)
    log_p = ((counts + 0.5) / (len(train) + num / 2)).log()
    places = train.shape[1] // num
    return [
        ("uniform", test.new_full((len(test),), places * math.log(num)), f"each of {num} symbols alike"),
        ("symbols", -(test @ log_p.flatten()), "symbols with the training frequencies of their places"),
    ]


def _mixture_of_bits(train: Tensor, test: Tensor, seed: int, components: int) -> _Judged:
    mixed, converged = _bit_mixture_nll(_at_most(train, LARGEST_FIT), test, seed, components)
    note = "" if converged else f"; not converged after {_STEPS} steps of EM"
    return "mixture", mixed, f"mixture of {components} sets of coins{note}"


def _bits_log_prob(bits: Tensor, logits: Tensor) -> Tensor:
    """log Π_d p_kd^x_d (1 - p_kd)^(1 - x_d), `(N, K)`, for bits `(N, D)` and logits `(K, D)`."""
    return bits @ logits.T + torch.nn.functional.logsigmoid(-logits).sum(1)


def _bit_mixture_nll(train: Tensor, test: Tensor, seed: int, components: int) -> tuple[Tensor, bool]:
    """`(M,)`, nats, and whether EM came to rest."""
    num, dim = train.shape
    rng = generator("cpu", seed, "baseline-bits")
    # Each part starts halfway between an example and the mean: equal parts would stay equal.
    examples = train[torch.randperm(num, generator=rng)[:components]]
    logits = (0.05 + 0.45 * examples + 0.45 * train.mean(0)).logit()
    weights = train.new_full((components,), -math.log(components))
    before, converged = -math.inf, False
    for _ in range(_STEPS):
        joint = weights + _bits_log_prob(train, logits)
        shares, now = joint.softmax(1), joint.logsumexp(1).mean().item()
        counts = shares.sum(0)
        weights = ((counts + 0.5) / (num + 0.5 * components)).log()
        logits = ((shares.T @ train + 0.5) / (counts[:, None] + 1)).logit()
        if abs(now - before) < _REST * dim:
            converged = True
            break
        before = now
    return -(weights + _bits_log_prob(test, logits)).logsumexp(1), converged


def _at_most(rows: Tensor, numbers: int) -> Tensor:
    """All rows, or evenly spaced ones with so many numbers."""
    most = max(1, numbers // max(1, rows[:1].numel()))
    return rows if len(rows) <= most else rows[torch.arange(most) * len(rows) // most]
