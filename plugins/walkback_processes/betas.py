"""The noise schedules of DDPM and its descendants, as temperatures.

    β_t = 1 - q²,  q = A_t / A_{t-1}      the share of the variance that step t of preserving noise replaces
    T_t = log(1 - β_t) / log(1 - β_1)     so T_1 = 1, if the noise has σ² = -log(1 - β_1) σ_d²

    linear        β_t from β_1 to β_K                                  Ho et al. (2020)
    sqrt-linear   √β_t from √β_1 to √β_K                               "scaled_linear" of latent diffusion
    sigmoid       β_t = β_1 + (β_K - β_1) sigmoid(u), u from -6 to 6
    cosine        A_t² ∝ cos²((t/K + 0.008) / 1.008 · π/2), β_t ≤ 0.999     Nichol and Dhariwal (2021)

`first` and `last` are β_1 and β_K of 1,000 steps. For K steps both are multiplied by 1000/K, so the noise adds up to
about as much, as in the code of Nichol and Dhariwal.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias, final

import numpy as np
from pydantic import Field

from walkback.errors import ConfigurationError
from walkback.noising.gaussian import FORGOTTEN
from walkback.schedules import MOST_LEVELS, Levels, Schedule, levels_from

Form: TypeAlias = Literal["linear", "sqrt-linear", "sigmoid", "cosine"]
Beta: TypeAlias = Annotated[float, Field(gt=0.0, lt=1.0)]
_Steps: TypeAlias = Annotated[int, Field(ge=1, le=MOST_LEVELS)]

_TOLERANCE = 1e-3
_LARGEST = 0.999


@final
class BetasSchedule(Schedule):
    """Temperatures of variance-preserving noise, given by β_t; the equations are in the module's docstring.

    `operator.sigma_share` must be √(-log(1 - β_1)), which is 0.01 for the linear schedule of 1,000 steps.

    Args:
        form: How β_t grows.
        num_steps: K.
        first: β_1 of 1,000 steps; not used by "cosine".
        last: β_K of 1,000 steps; not used by "cosine".
        betas: β_1 … β_K in full, in place of all of these.

    Raises:
        ConfigurationError: A β_t is 1 or more.
    """

    def __init__(
        self,
        *,
        form: Form = "linear",
        num_steps: _Steps = 1000,
        first: Beta = 1e-4,
        last: Beta = 0.02,
        betas: Annotated[tuple[Beta, ...], Field(min_length=1, max_length=MOST_LEVELS)] | None = None,
    ) -> None:
        if betas is None:
            scale = 1000 / num_steps
            found = _betas(form, num_steps, first * scale, last * scale)
        else:
            found = np.array(betas)
        if not 0 < found.min() <= found.max() < 1:
            raise ConfigurationError(
                f"Got β from {found.min():.4g} to {found.max():.4g} with schedule.num_steps = {num_steps}, expected "
                "numbers between 0 and 1: choose more steps, or schedule.form = 'cosine'."
            )
        self._times = -np.log1p(-found)
        """-log(1 - β_t), the time of a step in units of σ_d²/σ²."""

    def levels(self, max_temperature: float, generator: object = None) -> Levels:
        """The same levels always: nothing is left to chance."""
        return self._levels(max_temperature, self._times)

    def levels_of_length(self, max_temperature: float, num_steps: int) -> Levels:
        """Joins neighboring levels, beginning with the first alone, to `num_steps` groups of about equal numbers.

        A step of several levels has their total temperature: β = 1 - (A_b / A_a)² from level a to b.
        """
        total = len(self._times)
        if num_steps > total:
            raise ConfigurationError(
                f"Got {num_steps} annealing steps, expected at most {total}: the steps of a betas schedule can be "
                "joined and not divided."
            )
        last = np.array([total - 1]) if num_steps == 1 else np.linspace(0, total - 1, num_steps).round()
        starts = np.concatenate([[0], last[:-1] + 1]).astype(int)
        return self._levels(max_temperature, np.add.reduceat(self._times, starts))

    def _levels(self, max_temperature: float, times: np.ndarray) -> Levels:
        """Returns levels that take these times.

        Raises:
            ConfigurationError: A step at T = 1 is not of the time of the first level.
        """
        share, wanted = FORGOTTEN / max_temperature, float(self._times[0])
        if not math.isclose(share, wanted, rel_tol=_TOLERANCE):
            raise ConfigurationError(
                f"Got T_max = {max_temperature:.6g}, expected {FORGOTTEN / wanted:.6g} for β_1 = "
                f"{-math.expm1(-wanted):.6g}: use noise that is preserving, with operator.sigma_share = "
                f"{math.sqrt(wanted):.6g} if operator.mean is 'epsilon', 'x' or 'v', or with "
                f"{math.sqrt(wanted / share):.6g} times the present σ."
            )
        return levels_from((times / wanted).tolist())


def _betas(form: Form, num_steps: int, first: float, last: float) -> np.ndarray:
    """Returns β_1 … β_K."""
    if form == "linear":
        return np.linspace(first, last, num_steps)
    if form == "sqrt-linear":
        return np.linspace(math.sqrt(first), math.sqrt(last), num_steps) ** 2
    if form == "sigmoid":
        return first + (last - first) / (1 + np.exp(-np.linspace(-6, 6, num_steps)))
    signal: np.ndarray = np.cos((np.linspace(0, 1, num_steps + 1) + 0.008) / 1.008 * math.pi / 2) ** 2
    betas: np.ndarray = np.minimum(1 - signal[1:] / signal[:-1], _LARGEST)
    return betas
