"""Series (C, L) and volumes (C, D, H, W): operators with a U-Net keep their laws, and are measured and diagnosed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from tests.toy.statistics import LIMIT

import walkback as wb
from walkback.extensions.registry import Registry
from walkback.state import Space
from walkback.testing import Case, checks

UNET = {"name": "unet", "channels": [8, 8], "blocks": 1, "attention": False}
SHAPES = [(2, 8), (1, 2, 4, 4)]


@cache
def registry() -> Registry:
    return Registry.discover(enabled=False)


@pytest.mark.parametrize("name", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("check", list(checks("operator", {})))
def test_operators_of_series_and_volumes_keep_their_laws(name: str, check: Callable[[Case], None]) -> None:
    support = "real" if name == "gaussian" else "binary"
    spaces = tuple(Space(shape, support) for shape in SHAPES)
    check(Case.of(name, {"network": UNET}, spaces=spaces, registry=registry()))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_bound_of_correlated_entries_is_that_of_their_gaussian(shape: tuple[int, ...]) -> None:
    """Random walks along the last axis, in units of 50: untrained, the linear mean knows their covariance."""
    values = 50 * np.random.default_rng(0).standard_normal((1000, *shape)).cumsum(-1) + 7
    trained = wb.train(
        data=values,
        steps=1,
        settings={
            "operator.name": "gaussian-unet",
            "operator.network.channels": [8, 8],
            "operator.network.blocks": 1,
            "operator.mean": "linear",
            "operator.basis": "eigenvectors",
            "operator.sigma_share": 0.2,
            "prior.name": "gaussian",
            "prior.basis": "eigenvectors",
        },
        progress=False,
    )
    report = wb.evaluate(trained, paths=2, limit=100, progress=False)
    entropy = values[0].size * (0.5 * np.log(2 * np.pi * np.e) + np.log(50))
    error = np.hypot(report["bound"].error, 0.02 * values[0].size)  # of the covariance, from 800 examples
    assert abs(report["bound"].value - entropy) < LIMIT * error
    drawn = wb.sample(trained, 500, progress=False)
    assert drawn.states.shape == (500, *shape)
    assert float(drawn.states.std()) == pytest.approx(values.std(), rel=0.1)
    found = wb.diagnose("stationarity", trained, progress=False, chains=16, steps=20, frames=10)
    assert found.figures
