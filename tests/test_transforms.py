"""Columns with bounds or heavy tails: transforms, their Jacobian in every figure, and refusals by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from tests.program import walkback
from tests.toy.statistics import LIMIT

import walkback as wb
from walkback.data import DataInfo
from walkback.data.tensors import TableData, TensorData
from walkback.data.transforms import Transform
from walkback.errors import ConfigurationError, DataError
from walkback.support.seeding import generator

SMALL = {"operator.network.hidden": 4, "operator.network.depth": 1}


def rows(num: int = 2000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    first, second = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], num).T
    return pd.DataFrame({"mass": 3 * np.exp(0.8 * first), "share": 100 / (1 + np.exp(-1 - 2 * second))})


TRANSFORMS = {"mass": "log", "share": "logit(0, 100)"}


@pytest.mark.parametrize("text", ["none", "log", "log(-3)", "logit", "logit(-1, 5)", "asinh(2, 0.5)"])
def test_transforms_invert_and_their_slopes_are_the_derivatives(text: str) -> None:
    transform = Transform.parsed(text)
    straight = torch.linspace(-6, 6, 50, dtype=torch.float64, requires_grad=True)
    values = transform.inverse(straight)
    torch.testing.assert_close(transform.forward(values), straight)
    (slope,) = torch.autograd.grad(values.sum(), straight)
    torch.testing.assert_close(transform.log_slope(straight), slope.log())


def test_asinh_alone_takes_its_numbers_from_the_data() -> None:
    heavy = torch.from_numpy(7 + 5 * np.random.default_rng(0).standard_t(2, 5000))
    fitted = Transform.parsed("asinh").fitted(heavy)
    assert fitted.numbers[0] == pytest.approx(7, abs=0.5)
    assert fitted.numbers[1] < 15
    assert stats.kurtosis(fitted.forward(heavy).numpy()) < 1
    normal = torch.randn(5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert abs(stats.kurtosis(Transform.parsed("asinh").fitted(normal).forward(normal).numpy())) < 0.3


@pytest.mark.parametrize("text", ["log(", "sqrt", "logit(3, 1)", "logit(1)", "asinh(0, 0)", "log(nan)"])
def test_what_is_no_transform_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected 'log', 'log\(a\)'"):
        Transform.parsed(text)


def test_values_outside_the_bounds_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"'share' of table .* transform logit: .* such as logit\(0, 1\d\d"):
        TableData(rows(), transform={"share": "logit"})
    with pytest.raises(DataError, match=r"± ½, as whole numbers.*log\(-1.5\)"):
        TableData(pd.DataFrame({"n": np.arange(100)}), transform="log")
    with pytest.raises(DataError, match="no column 'weight'"):
        TableData(rows(), transform={"weight": "log"})


def test_the_bound_counts_the_jacobian_of_each_row() -> None:
    """Of a log-normal and a logit-normal column the untrained operator has the exact density, if slopes are right."""
    frame = rows()
    trained = wb.train(data=TableData(frame, transform=TRANSFORMS), steps=1, settings=SMALL, progress=False)
    report = wb.evaluate(trained, paths=4, limit=200, simulated=50, baselines=True, progress=False)
    data = TableData(frame)
    mass, share = data.info.values(data.examples("test")).numpy().T
    normal = np.stack([np.log(mass / 3) / 0.8, (np.log(share / (100 - share)) - 1) / 2], 1)
    slopes = np.log(0.8 * mass) + np.log(2 * share * (100 - share) / 100)
    exact = slopes - stats.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]]).logpdf(normal)
    # The moments of 1,600 rows cost 5 parameters / 3,200 = 0.002 nats; on these rows they may gain or lose 0.05.
    assert report["bound"].value == pytest.approx(exact.mean(), abs=0.06)
    assert report["baseline_gaussian"].value == pytest.approx(exact.mean(), abs=0.06)
    assert report["simulated_above"].value - report["simulated_below"].value < 0.2
    entropy = stats.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]]).entropy() + slopes.mean()
    error = np.hypot(report["simulated_above"].error, slopes.std() / len(slopes) ** 0.5)
    assert abs(report["simulated_above"].value - entropy) < LIMIT * error


def test_samples_stay_inside_the_bounds_and_files_know_their_transforms(tmp_path: Path) -> None:
    rows().to_csv(tmp_path / "t.csv", index=False)
    settings = [f"--set=data.transform.{name}={text}" for name, text in TRANSFORMS.items()]
    walkback(
        *("run", "--data", str(tmp_path / "t.csv"), "--steps", "1", "--out", str(tmp_path / "run")),
        *("--set", "operator.network.hidden=4", "--set", "evaluation.limit=100", *settings),
    )
    walkback("sample", str(tmp_path / "run"), "--num", "1000", "--out", str(tmp_path / "s.csv"))
    drawn = pd.read_csv(tmp_path / "s.csv")
    assert drawn["mass"].min() > 0
    assert drawn["share"].between(0, 100).all()
    assert np.log(drawn["mass"]).std() == pytest.approx(0.8, rel=0.1)
    rows().assign(mass=lambda frame: frame["mass"] - 1).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(DataError, match=r"'mass' of bad"):
        wb.evaluate(tmp_path / "run", data=tmp_path / "bad.csv", progress=False)


def test_whole_numbers_are_dequantized_before_their_transform() -> None:
    counts = pd.DataFrame({"n": np.random.default_rng(0).poisson(3, 4000)})
    data = TableData(counts, transform="log(-1)")
    examples = data.examples("train")
    states = data.states(examples, generator("cpu", 0, "states"))
    assert torch.equal(data.info.values(states), data.info.values(examples))
    assert (float(states.mean()), float(states.std())) == pytest.approx((0, 1), abs=0.05)


def test_arrays_have_one_transform_and_descriptions_survive_json() -> None:
    data = TensorData(torch.rand(50, 1, 4, 4).double() + 0.1)
    assert data.info.standardized is not None
    assert data.info.standardized.transforms == ()
    info = TableData(rows(), transform=TRANSFORMS).info
    record = json.loads(json.dumps(info.to_dict()))
    assert DataInfo.from_dict(record) == info
    broken = {
        **record,
        "standardized": {**record["standardized"], "transforms": [["log", 0], ["logit", 3, 1]]},
    }
    with pytest.raises(DataError, match="standardization"):
        DataInfo.from_dict(broken)
