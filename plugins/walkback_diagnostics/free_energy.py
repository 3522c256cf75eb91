"""Free energies from work values, for any pair of ensembles 0 and 1.

    forward   x ~ ensemble 0,  W_F = work of taking x to 1            ΔF = F_1 - F_0,  in units of kT (nats)
    reverse   x ~ ensemble 1,  W_R = work of taking x to 0

    Jarzynski   E_0[exp(-W_F)] = exp(-ΔF)
    Bennett     Σ_0 1 / (1 + exp(M + W_F - ΔF)) = Σ_1 1 / (1 + exp(-M + W_R + ΔF)),   M = log(n_0 / n_1)

For walks from and to a state s_0, W_F is the work W of heating paths, W_R = -W of cooling paths that end there, and
ΔF = -log p(s_0).
"""

from __future__ import annotations

import logging
import math
from types import ModuleType
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_expit, logsumexp
from torch import Tensor

from walkback.errors import WalkbackError
from walkback.support.extras import require

Array: TypeAlias = NDArray[np.float64]

_METHODS = ("false-position", "bisection", "self-consistent-iteration")
_TOLERANCE = 1e-6
_EQUAL = 1e-9
"""Relative spread of works attributed to rounding: the process is then reversible, and every work is ΔF."""


def bar(forward: Tensor, reverse: Tensor) -> float:
    """Returns ΔF by Bennett's acceptance ratio, nats.

    No error is given: the asymptotic error is valid only for many works of both directions that overlap, which the
    caller has to ensure; for few works it is too small.

    Args:
        forward: W_F, `(n_0,)`.
        reverse: W_R, `(n_1,)`: of the reverse process as it runs, so of the opposite sign if both are reversible.

    Raises:
        ConfigurationError: pymbar is not installed.
        WalkbackError: A work is missing or not finite, or the two ensembles do not overlap.
    """
    w_f, w_r = _checked(forward).numpy(), _checked(reverse).numpy()
    every = np.concatenate([w_f, -w_r])
    if np.ptp(every) <= _EQUAL * max(1.0, float(np.abs(every).max())):
        return float(every.mean())
    # pymbar's convergence test is relative to ΔF itself. The shift keeps ΔF away from 0, where the test never passes,
    # and from large values, where it passes too early. Adding a constant to W_F and subtracting it from W_R shifts ΔF.
    shift = float(every.min()) - 1.0
    library = _pymbar()
    for method in _METHODS:
        try:
            with np.errstate(all="ignore"):
                found = library.bar(w_f - shift, w_r + shift, compute_uncertainty=False, method=method)
        except (ArithmeticError, ValueError, library.BoundsError, library.ConvergenceError):
            continue
        value = float(found["Delta_f"]) + shift
        log_f, log_r = _log_shares(w_f, w_r, value)
        if abs(logsumexp(log_f) - logsumexp(log_r)) < _TOLERANCE:
            return value
    raise WalkbackError(
        f"Got works from {w_f.min():.4g} to {w_f.max():.4g} nats forward and {-w_r.max():.4g} to "
        f"{-w_r.min():.4g} in reverse that do not overlap, expected that they do: Bennett's ratio has no solution."
    )


def _log_shares(w_f: Array, w_r: Array, value: float) -> tuple[Array, Array]:
    """Returns the logarithms of the terms of both sides of Bennett's equation."""
    m = math.log(len(w_f) / len(w_r))
    return log_expit(value - m - w_f), log_expit(m - w_r - value)


def _pymbar() -> ModuleType:
    # On import, pymbar logs that JAX is missing, which does not concern the user.
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    return require("pymbar.other_estimators", "eval")


def _checked(work: Tensor) -> Tensor:
    values = work.detach().double().cpu().flatten()
    if not len(values) or not bool(torch.isfinite(values).all()):
        raise WalkbackError(
            f"Got {len(values)} works, {int((~values.isfinite()).sum())} of them not finite, expected at least "
            "1 and all finite."
        )
    return values
