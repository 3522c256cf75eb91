"""`walkback evaluate` and `walkback diagnose` as a user meets them: figures, protocol, schema, going on, refusals."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from PIL import Image
from tests import program
from tests.program import options, run, walkback
from torch import Tensor

from walkback.storage.tensorfile import read_tensors, save_tensors

SCHEMA = json.loads((Path(__file__).parent.parent / "docs/schemas/report.schema.json").read_text("utf-8"))
FEW = tuple(options(**program.FEW))
DIGITS_DIMENSIONS = 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 8×8 digits after two walks."""
    directory = tmp_path_factory.mktemp("evaluated") / "run"
    assert run(directory, steps=2).code == 0
    return directory / "final.safetensors"


def document(*arguments: str | Path) -> dict[str, Any]:
    done = walkback(*arguments, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = done.document()
    jsonschema.validate(found, SCHEMA)
    return found


def figures(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {figure["name"]: figure for figure in report["figures"]}


@pytest.fixture(scope="module")
def report(checkpoint: Path) -> dict[str, Any]:
    """One evaluation."""
    return document("evaluate", checkpoint, *FEW)


def test_every_figure_has_its_unit_and_its_error(report: dict[str, Any]) -> None:
    found = figures(report)
    assert {
        "bound",
        "bound_bits",
        "is_nll",
        "is_nll_bits",
        "effective_sample_size",
        "bracket",
    } <= found.keys()
    for name in ("bound", "is_nll", "gap", "simulated_above", "bracket"):
        assert (found[name]["unit"], found[name]["error"] > 0) == ("nats", True)
    nats, bits = found["bound"]["value"], found["bound_bits"]["value"]
    assert bits == pytest.approx((nats / DIGITS_DIMENSIONS + math.log(17)) / math.log(2))


def test_the_protocol_says_how_it_was_made(report: dict[str, Any], checkpoint: Path) -> None:
    protocol = report["protocol"]
    assert protocol["checkpoint"] == checkpoint.name
    assert (protocol["data"], protocol["split"], protocol["examples"]) == ("digits", "test", 24)
    assert (protocol["paths"], protocol["levels"], protocol["seed"]) == (4, 14, 0)
    assert protocol["preprocessing"]
    assert protocol["progress"]["walks"] == 2


def test_gaps_of_the_levels_and_the_prior_make_up_the_bound(report: dict[str, Any]) -> None:
    series = {entry["name"]: entry for entry in report["series"]}
    assert len(series["production_by_level"]["y"]) == 14
    assert series["temperature"]["y"] == sorted(series["temperature"]["y"])
    of_examples = series["bound_of_examples"]["y"]
    assert sum(of_examples) / len(of_examples) == pytest.approx(figures(report)["bound"]["value"])
    assert len(of_examples) == 24


def test_more_paths_lower_the_estimate(report: dict[str, Any]) -> None:
    curve = next(entry for entry in report["series"] if entry["name"] == "is_nll_by_paths")
    assert curve["x"] == [1, 2, 4]
    assert curve["y"][0] > curve["y"][1] > curve["y"][2]


def test_the_same_call_gives_the_same_figures(report: dict[str, Any], checkpoint: Path) -> None:
    assert document("evaluate", checkpoint, *FEW) == report
    assert figures(document("evaluate", checkpoint, *FEW, "--seed", "1"))["bound"] != figures(report)["bound"]


def test_an_interrupted_evaluation_goes_on_to_the_same_figures(
    report: dict[str, Any], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from walkback.measuring import bound as evaluating

    calls: list[int] = []
    real = evaluating.heating_work

    def failing(*arguments: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 7:  # in the second of three batches
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(evaluating, "heating_work", failing)
    assert walkback("evaluate", checkpoint, *FEW, "--cache", tmp_path / "kept").code == 130
    before = len(calls)
    assert document("evaluate", checkpoint, *FEW, "--cache", tmp_path / "kept") == report
    assert len(calls) - before == 8  # four paths of two batches: the first was kept
    assert document("evaluate", checkpoint, *FEW, "--cache", tmp_path / "kept") == report
    assert len(calls) - before == 8


def test_kept_pieces_of_another_measurement_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    document("evaluate", checkpoint, *FEW, "--cache", tmp_path / "kept")
    done = walkback("evaluate", checkpoint, *FEW, "--seed", "3", "--cache", tmp_path / "kept")
    assert done.code == 2
    assert "another measurement" in done.err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    done = walkback("evaluate", checkpoint, *FEW, "--cache", tmp_path / "other")
    assert (done.code, "other files" in done.err) == (2, True)


def test_baselines_stand_beside_the_model(checkpoint: Path) -> None:
    found = figures(document("evaluate", checkpoint, *FEW[:-1]))
    assert found["baseline_uniform_bits"]["value"] == pytest.approx(math.log2(17))


def test_samples_are_compared_with_the_data(checkpoint: Path) -> None:
    found = figures(document("evaluate", checkpoint, *FEW, "--samples", "60", "--classifier"))
    assert len(found) > len(figures(document("evaluate", checkpoint, *FEW)))


def test_the_report_is_readable_and_drawn(checkpoint: Path, tmp_path: Path) -> None:
    done = walkback("evaluate", checkpoint, *FEW, "--plot", tmp_path / "plot.png")
    assert done.code == 0
    assert "bits/dim" in done.out
    assert "±" in done.out
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 800
        assert json.loads(picture.info["walkback"])["paths"] == 4
    again = walkback("evaluate", checkpoint, *FEW, "--plot", tmp_path / "plot.png")
    assert (again.code, "exists" in again.err) == (2, True)


@pytest.fixture
def altered(checkpoint: Path, tmp_path: Path) -> Iterator[Any]:
    """Makes checkpoints with other tensors or another description."""

    def alter(value: float | None = None, **changes: Any) -> Path:
        tensors, description = read_tensors(checkpoint)
        if value is not None:
            name = next(n for n, t in tensors.items() if n.startswith("operator.") and t.dim() == 2)
            tensors[name] = torch.full_like(tensors[name], value)
        description["data"] |= changes
        save_tensors(tmp_path / "altered.safetensors", tensors, description)
        return tmp_path / "altered.safetensors"

    return alter


def test_nan_on_the_way_is_refused(altered: Any) -> None:
    broken = altered(3e38)  # finite weights whose products are not
    done = walkback("evaluate", broken, *FEW)
    assert done.code == 1
    assert "not finite" in done.err


def test_data_that_do_not_match_are_refused(checkpoint: Path, altered: Any) -> None:
    done = walkback("evaluate", checkpoint, *FEW, "--data", "swiss-roll")
    assert (done.code, "expected data like the checkpoint's" in done.err) == (2, True)
    done = walkback("evaluate", altered(fingerprint="0" * 8), *FEW)
    assert (done.code, "other content" in done.err) == (2, True)
    done = walkback("evaluate", altered(bins=256), *FEW, "--data", "digits")
    assert (done.code, "gray levels" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--limit", "1"), "Got --limit = 1, expected at least 4"),
        (("--limit", "3"), "Got --limit = 3, expected at least 4"),
        (("--simulated", "2"), "Got --simulated 2, expected at least 4"),
        (("--samples", "39"), "Got --samples 39, expected at least 40"),
        (("--samples", "100000"), "100000 samples cannot be compared"),
    ],
)
def test_an_error_of_too_few_values_is_refused_before_work(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], words: str
) -> None:
    from walkback.measuring import bound, path_works

    def worked(*_: Any) -> Any:
        raise AssertionError("a path was heated")

    monkeypatch.setattr(bound, "heating_work", worked)
    monkeypatch.setattr(path_works, "cooling_work", worked)
    done = walkback("evaluate", checkpoint, "--paths", "2", "--no-baselines", *options)
    assert (done.code, words in done.err) == (2, True), done.err


def test_wrong_requests_are_refused_before_work(checkpoint: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (("--plot", str(tmp_path / "plot.jpg")), "ends in .png"),
        (("--set", "noise=1"), "add --data"),
        (("--classifier",), "--samples"),
    ):
        done = walkback("evaluate", checkpoint, *FEW, *arguments)
        assert (done.code, words in done.err) == (2, True), done.err


def test_missing_libraries_cost_their_own_figures_only(
    checkpoint: Path, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "arviz_stats", None)
    monkeypatch.setitem(sys.modules, "arviz_stats.base", None)
    monkeypatch.setitem(sys.modules, "geomloss", None)
    many = ("--paths", "25", "--limit", "8", "--simulated", "0", "--no-baselines")
    found = document("evaluate", checkpoint, *many)
    assert "pareto_k" not in figures(found)
    assert any("walkback[eval]" in warning for warning in found["warnings"])
    assert figures(found)["is_nll"]["error"] > 0
    done = walkback("evaluate", checkpoint, *many, "--samples", "60")
    assert (done.code, "pip install 'walkback[eval]'" in done.err) == (2, True)


# --- diagnose

QUICK = tuple(options(settings=program.QUICK))


def test_a_diagnostic_is_reported_with_its_options_and_protocol(checkpoint: Path) -> None:
    found = document("diagnose", "reversibility", checkpoint, *QUICK)
    assert found["headline"] == "entropy_production"
    assert found["protocol"]["diagnostic"]["chains"] == 6
    assert found["beyond"] == []


def test_thresholds_decide_the_exit_code(checkpoint: Path) -> None:
    low = walkback("diagnose", "reversibility", checkpoint, *QUICK, "--threshold", "-1e9", "--json")
    assert low.code == 3
    assert "above the threshold" in low.err
    assert len(low.document()["beyond"]) == 1
    assert walkback("diagnose", "reversibility", checkpoint, *QUICK, "--threshold", "1e9").code == 0
    named = walkback("diagnose", "reversibility", checkpoint, *QUICK, "--threshold", "entropy_rate=-1e9")
    assert named.code == 3
    wrong = walkback("diagnose", "reversibility", checkpoint, *QUICK, "--threshold", "entropy=1")
    assert (wrong.code, "it has entropy_production" in wrong.err) == (2, True)


def test_wrong_names_and_options_are_refused(checkpoint: Path) -> None:
    for arguments, words in (
        (("reversibilty", checkpoint), "reversibility"),
        (("reversibility", checkpoint, "--set", "chain=3"), "chains"),
        (("reversibility", checkpoint, "--set", "chains"), "OPTION=VALUE"),
        (("reversibility", checkpoint, "--threshold", "a"), "expected a number"),
        (("reversibility", checkpoint, "--set", "chains=3"), "at least 4"),
        (("reversibility", checkpoint, "--set", "data.noise=3"), "add --data"),
    ):
        done = walkback("diagnose", *arguments)
        assert (done.code, words in done.err) == (2, True)


def test_series_are_finite_or_null(report: dict[str, Any]) -> None:
    values: list[Tensor | float | None] = [y for entry in report["series"] for y in entry["y"]]
    assert values
    assert all(value is not None for value in values)
