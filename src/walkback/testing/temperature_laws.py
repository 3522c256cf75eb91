"""Laws of temperature laws: T = 1 changes nothing, hotter is wider, and the variance is largest at T_max."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from walkback.schedules import Level
from walkback.temperature import TemperatureLaw
from walkback.testing.cases import Case, ConformanceError, Suite
from walkback.testing.probes import require_close, untouched

TEMPERATURE_LAWS = Suite()

_TEMPERATURES = (1.0, 1.5, 4.0, 100.0)
_RATIOS = (1.0, 2.0, 50.0, 1e4)


def _built(case: Case) -> TemperatureLaw:
    law: TemperatureLaw = case.build("temperature_law")
    return law


def _variances() -> Iterator[Tensor]:
    """Yield variances as operators have them: a single one, one per row, one per dimension."""
    yield torch.full((1, 1), 0.04)
    yield torch.tensor([[0.01], [0.5], [3.0]])
    yield torch.tensor([[0.01, 0.2], [0.5, 1.0], [3.0, 7.0]])


@TEMPERATURE_LAWS.check("builds", "it is a temperature law, built from its options")
def _builds(case: Case) -> None:
    _built(case)


@TEMPERATURE_LAWS.check(
    "shapes", "variances are finite and positive, with the shape and dtype of the variance at T = 1"
)
def _shapes(case: Case) -> None:
    law = _built(case)
    for given in _variances():
        for dtype in (torch.float32, torch.float64):
            variance = given.to(dtype)
            for temperature in _TEMPERATURES:
                found = law.variance(variance, Level(1, temperature))
                if not isinstance(found, Tensor) or (found.shape, found.dtype) != (variance.shape, dtype):
                    raise ConformanceError(
                        f"Got {_described(found)}, expected {_described(variance)}: read the temperature through "
                        "level.temperature_like(variance)."
                    )
                if not bool((found.isfinite() & (found > 0)).all()):
                    raise ConformanceError("Got a variance that is not a positive finite number.")


@TEMPERATURE_LAWS.check("one", "at T = 1 the variance is unchanged")
def _one(case: Case) -> None:
    law = _built(case)
    for variance in _variances():
        require_close(
            law.variance(variance, Level(1, 1.0)), variance, "the variance at T = 1 must be unchanged"
        )


@TEMPERATURE_LAWS.check("hotter", "a hotter level has a larger variance")
def _hotter(case: Case) -> None:
    law = _built(case)
    for variance in _variances():
        found = [law.variance(variance, Level(1, temperature)) for temperature in _TEMPERATURES]
        if not all(bool((b > a).all()) for a, b in pairwise(found)):
            raise ConformanceError("Got a variance that does not grow with temperature, expected it to.")


@TEMPERATURE_LAWS.check(
    "row-levels", "rows at different temperatures have the same variances as on their own"
)
def _row_levels(case: Case) -> None:
    law = _built(case)
    rows = torch.tensor([1.0, 2.5, 9.0])
    for variance in _variances():
        together = law.variance(variance, Level(torch.arange(3), rows)).expand(3, -1)
        for row, temperature in enumerate(rows.tolist()):
            alone = law.variance(variance, Level(row, temperature)).expand(3, -1)
            require_close(
                together[row], alone[row], "the variance of a row must depend on its own temperature only"
            )


@TEMPERATURE_LAWS.check(
    "max-temperature",
    "at T_max the variance is the largest one; T_max is 1 if that equals the variance at T = 1",
)
def _max_temperature(case: Case) -> None:
    law = _built(case)
    for at_1 in (1e-4, 0.04, 1.0):
        for ratio in _RATIOS:
            hottest = law.max_temperature(ratio * at_1, at_1)
            if not (isinstance(hottest, float) and math.isfinite(hottest) and hottest > 0):
                raise ConformanceError(f"Got T_max = {hottest!r}, expected a positive finite float.")
            found = law.variance(torch.tensor([[at_1]], dtype=torch.float64), Level(1, hottest))
            require_close(
                found / at_1,
                torch.full_like(found, ratio),
                f"at T_max = {hottest:g} the variance {at_1:g} must have grown by a factor of {ratio:g}",
            )


@TEMPERATURE_LAWS.check("gradient", "its gradient reaches the variance at T = 1, which operators may learn")
def _gradient(case: Case) -> None:
    variance = torch.tensor([[0.3]], requires_grad=True)
    found = _built(case).variance(variance, Level(1, 4.0))
    if not found.requires_grad:
        raise ConformanceError(
            "Got a variance without gradient, expected one with respect to the variance at T = 1."
        )
    torch.autograd.backward(found.sum())
    if variance.grad is None or not bool((variance.grad.isfinite() & (variance.grad != 0)).all()):
        raise ConformanceError(f"Got the gradient {variance.grad}, expected a finite number other than 0.")


@TEMPERATURE_LAWS.check("untouched", "no variance is changed in place")
def _untouched(case: Case) -> None:
    law = _built(case)
    for variance in _variances():
        with untouched(variance, "the temperature law"):
            law.variance(variance, Level(1, 4.0))


def _described(found: object) -> str:
    if isinstance(found, Tensor):
        return f"a variance of shape {tuple(found.shape)} and {found.dtype}"
    return type(found).__name__
