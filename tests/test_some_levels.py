"""The bound from some levels of each path has the expectation of the bound from all of them."""

from __future__ import annotations

import math

import pytest
from tests.program import FEW
from tests.test_noising import LEVELS, diffusing, starts
from tests.toy.statistics import LIMIT, rng

import walkback as wb
from walkback.errors import ConfigurationError
from walkback.measuring.some_levels import bound_of_some_levels, require_some_levels
from walkback.measuring.work import heating_work
from walkback.model import Model
from walkback.processes import TiedProcess


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("form", ["exploding", "preserving"])
def test_every_term_has_the_expectation_of_whole_paths(form: str, number: int) -> None:
    # Four levels and the end of the path: 5 z-scores below 4.5, which fails with probability 4e-5.
    model, x = diffusing(form, 1.5), starts(20000)
    whole = heating_work(model, x, LEVELS, rng(1)).bound
    some = bound_of_some_levels(model, x, LEVELS, number, rng(2))
    visited = (some.production != 0).sum(1)
    assert visited.max() == number
    for of_whole, of_some in [
        *zip(whole.production.T, some.production.T, strict=True),
        (whole.boundary, some.boundary),
    ]:
        difference = of_some - of_whole  # of the same examples
        assert abs(difference.mean()) < LIMIT * difference.std() / math.sqrt(len(difference))


def test_processes_that_cannot_jump_and_numbers_of_levels_that_make_no_sense_are_refused() -> None:
    model = diffusing("exploding")
    tied = Model(model.operator, model.schedule, TiedProcess(), model.prior)
    with pytest.raises(ConfigurationError, match="TiedProcess, which cannot jump"):
        require_some_levels(tied, LEVELS, 2)
    for number in (1, 4):
        with pytest.raises(ConfigurationError, match=f"Got {number} of the 4 levels"):
            require_some_levels(model, LEVELS, number)


def test_an_evaluation_of_some_levels_reports_the_bound_alone() -> None:
    settings = {"operator.network.hidden": 8, "training.validation_examples": 10, "evaluation.limit": 10}
    model = wb.train(
        "gaussian", data="digits", process="diffusion", steps=2, settings=settings, progress=False
    )
    chosen = {**FEW, "simulated": 0}
    report = wb.evaluate(model, levels_per_path=3, **chosen, progress=False)
    assert report.protocol["levels_per_path"] == 3
    assert {figure.name for figure in report.figures} == {"bound", "bound_bits", "bound_error_of_paths"}
    assert {series.name for series in report.series} == {
        "production_by_level",
        "temperature",
        "bound_of_examples",
    }
    with pytest.raises(ConfigurationError, match=r"simulated = 8 needs whole paths, which levels_per_path"):
        wb.evaluate(model, levels_per_path=3, **FEW, progress=False)
