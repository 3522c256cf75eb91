"""Recorded chains without an operator: autoregressive traces whose figures are known, files, and ArviZ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.program import walkback

import walkback as wb
from walkback.data import DataInfo
from walkback.errors import ConfigurationError, DataError
from walkback.measuring.recordings import read_recording, recording_of


def autoregression(chains: int, draws: int, *shape: int, memory: float = 0.5, seed: int = 0) -> Any:
    """s' = a s + √(1 - a²) ε from its stationary law, `(chains, draws, …)`; τ = (1 + a) / (1 - a)."""
    noise = np.random.default_rng(seed).standard_normal((draws, chains, *shape))
    states = [noise[0]]
    for step in noise[1:]:
        states.append(memory * states[-1] + np.sqrt(1 - memory**2) * step)
    found: npt.NDArray[np.float64] = np.stack(states, 1)
    return found


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_autocorrelation_time_is_that_of_the_trace(shape: tuple[int, ...]) -> None:
    report = wb.diagnose("mixing", autoregression(50, 1000, *shape), progress=False)
    figures = {figure.name: figure for figure in report.figures}
    assert figures["autocorrelation_time_of_axis_1"].value == pytest.approx(3, rel=0.15)
    # τ of the square: (1 + a²) / (1 - a²) = 5/3.
    if not shape:
        assert figures["autocorrelation_time_of_squared_norm"].value == pytest.approx(5 / 3, rel=0.15)
    assert report.protocol["chains"] == 50
    assert report.protocol["draws"] == 1000
    assert report.protocol["shape"] == list(shape)


def test_drift_is_found_where_there_is_one() -> None:
    """Stationary chains: |z| < 4.5, at another seed with probability 1 - 1.4e-5; with a trend it is far beyond."""
    still = autoregression(40, 500, 2)
    assert wb.diagnose("stationarity", still, progress=False)["drift"].value < 4.5
    drifting = still + np.linspace(0, 1, 500)[None, :, None]
    report = wb.diagnose("stationarity", torch.from_numpy(drifting), progress=False)
    assert report["drift"].value > 6
    assert "The chain drifts: mean" in report.warnings[0]


def test_files_are_read_by_their_stated_keys(tmp_path: Path) -> None:
    trace = autoregression(6, 60, 2)
    np.save(tmp_path / "a.npy", trace)
    np.savez(tmp_path / "one.npz", anything=trace)
    np.savez(tmp_path / "named.npz", trace=trace, other=np.zeros(3))
    np.savez(tmp_path / "samples.npz", states=trace.swapaxes(0, 1), steps=np.arange(60))
    for name in ("a.npy", "one.npz", "named.npz", "samples.npz"):
        assert read_recording(tmp_path / name).values.numpy() == pytest.approx(trace)
    np.savez(tmp_path / "two.npz", a=trace, b=trace + 1)
    assert read_recording(tmp_path / "two.npz", "b").values.numpy() == pytest.approx(trace + 1)
    with pytest.raises(DataError, match=r"Got the arrays a, b in two\.npz, expected one called 'trace'"):
        read_recording(tmp_path / "two.npz")
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    for name in ("text.npz", "objects.npy", "absent.npy"):
        with pytest.raises(DataError, match=r"cannot be read|no file"):
            read_recording(tmp_path / name)


def test_the_command_line_measures_a_trace(tmp_path: Path) -> None:
    file = tmp_path / "trace.npz"
    np.savez(file, first=autoregression(8, 100), second=autoregression(8, 100, 2))
    done = walkback("diagnose", "mixing", file, "--array", "second", "--json")
    assert done.code == 0, done.err
    protocol = done.document()["protocol"]
    assert (protocol["trace"], protocol["chains"], protocol["shape"]) == ("trace.npz", 8, [2])
    assert walkback("diagnose", "stationarity", file, "--array=first", "--threshold", "100").code == 0
    assert walkback("diagnose", "stationarity", file, "--array=first", "--threshold", "-1").code == 3
    for more, words in (
        (("reversibility", file, "--array=first"), "needs an operator"),
        (("mixing", file), "expected one called 'trace'"),
        (("mixing", file, "--data", "mog"), "leave --data out"),
        (("mixing", tmp_path / "x.safetensors", "--array=a"), "leave it out"),
    ):
        refused = walkback("diagnose", *more)
        assert refused.code in (1, 2)
        assert words in refused.err.replace("\n", " ")


def test_what_is_no_trace_is_refused() -> None:
    trace = autoregression(6, 60)
    for wrong in (trace[0], trace[:, :20], trace.astype(str)):
        with pytest.raises(DataError, match="expected numbers"):
            recording_of(wrong)
    trace[0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        recording_of(trace)
    with pytest.raises(ConfigurationError, match="chains"):
        recording_of(trace[1:3])


def test_traces_go_to_arviz_and_come_from_it() -> None:
    """The figures of a posterior are those of its arrays; effective sample sizes are ArviZ's own."""
    pytest.importorskip("arviz_base", reason="arviz-base is an optional extra, walkback[arviz]")
    trace = autoregression(10, 200, 2)
    frames = torch.from_numpy(trace).swapaxes(0, 1)
    samples = wb.Samples(frames, tuple(range(200)), DataInfo("none", (2,)))
    tree = samples.to_arviz()
    assert tree["posterior"]["state"].dims[:2] == ("chain", "draw")
    assert tree["posterior"]["state"].values == pytest.approx(trace)
    assert recording_of(tree).values.numpy() == pytest.approx(trace)
    reports = [str(wb.diagnose("mixing", given, progress=False)) for given in (tree, samples, trace)]
    assert len(set(reports)) == 1
    with pytest.raises(DataError, match="no group 'posterior'"):
        recording_of(tree["posterior"])
