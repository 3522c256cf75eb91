"""What the default run of a table reaches: minutes each, `pytest -m slow tests/test_tables_learned.py`.

Laws are known, so that bounds on the rows held out are compared with the densities of the same rows. A bound's error
over 1,000 × 16 paths is about 0.005 nats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import walkback as wb
from walkback.data.tensors import TableData

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SCALE = np.array([3.0, 14, 176, 0.23, 0.013, 728])
LAW = stats.multivariate_normal(cov=0.6 * np.eye(6) + 0.4, seed=0)


def held_out(frame: pd.DataFrame) -> np.ndarray:
    data = TableData(frame)
    return data.info.values(data.examples("test")).numpy()


def test_a_gaussian_table_is_sampled_as_it_is(tmp_path: Path) -> None:
    frame = pd.DataFrame((LAW.rvs(10_000) + 5) * SCALE, columns=list("abcdef"))
    frame.to_csv(tmp_path / "t.csv", index=False)
    trained = wb.train(data=tmp_path / "t.csv", progress=False)
    bound = wb.evaluate(trained, paths=16, progress=False)["bound"].value
    exact = np.log(SCALE).sum() - LAW.logpdf(held_out(frame) / SCALE - 5).mean()
    assert abs(bound - exact) < 0.1
    states = wb.sample(trained, 100_000, progress=False).states.numpy()
    # The 8,000 rows of training know deviations to 0.8 % and correlations of 0.4 to 2.3 % themselves.
    train = TableData(frame)
    known = train.info.values(train.examples("train")).numpy()
    assert np.abs((states.mean(0) - known.mean(0)) / SCALE).max() < 0.05
    assert np.abs(states.std(0) / known.std(0) - 1).max() < 0.05
    upper = np.triu_indices(6, 1)
    assert np.abs(np.corrcoef(states.T)[upper] / np.corrcoef(known.T)[upper] - 1).max() < 0.05


def test_a_table_of_two_modes_and_a_heavy_tail_is_near_its_law() -> None:
    rng = np.random.default_rng(0)
    mode = rng.random(10_000) < 0.6
    first = np.where(mode, 35.0, 20.0) + 1.5 * rng.standard_normal(10_000)
    second = 0.02 * (first - 20) + 0.05 * rng.standard_normal(10_000) - 0.35 * mode
    frame = pd.DataFrame({"a": first, "b": second, "c": 100 + 2 * first + 12 * rng.standard_t(4, 10_000)})
    a, b, c = held_out(frame).T
    normal = stats.norm.logpdf
    hot = np.log(0.6) + normal(a, 35, 1.5) + normal(b, 0.02 * (a - 20) - 0.35, 0.05)
    cold = np.log(0.4) + normal(a, 20, 1.5) + normal(b, 0.02 * (a - 20), 0.05)
    exact = -(np.logaddexp(hot, cold) + stats.t.logpdf(c, 4, 100 + 2 * a, 12)).mean()
    trained = wb.train(data=frame, progress=False)
    report = wb.evaluate(trained, paths=16, baselines=True, progress=False)
    assert report["bound"].value < exact + 0.15
    assert report["bound"].value < report["baseline_gaussian"].value - 1
    states = wb.sample(trained, 20_000, progress=False).states.numpy()
    assert (states[:, 0] > 27.5).mean() == pytest.approx(mode.mean(), abs=0.05)
    assert ((states[:, 0] > 25) & (states[:, 0] < 30)).mean() < 0.02  # the law: 0.0005
