"""`walkback compare`: alike runs and measurements, refusals before any work, resuming, and its table in every form."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
from tests.conftest import Install
from tests.program import Done, digest, records, tree, walkback

import walkback as wb
from walkback.comparing.fairness import expected_calls, network_of
from walkback.comparing.notes import Footnotes
from walkback.comparing.published import published_figures
from walkback.comparing.request import read_comparison
from walkback.comparing.table import Cell, Column, Measured
from walkback.errors import ConfigurationError
from walkback.extensions.registry import Registry
from walkback.jobs.configuration import Choices
from walkback.jobs.train import TrainJob
from walkback.report import Figure
from walkback.storage.tensorfile import read_tensors
from walkback.support.interrupts import Stopped
from walkback.support.watch import Silent

SCHEMA: Final = json.loads(
    (Path(__file__).parents[1] / "docs/schemas/comparison.schema.json").read_text("utf-8")
)

HEAD: Final = """
title = "Tiny <b>"
seeds = [0, 1]
"""

BASE: Final = """
[base.data]
name = "swiss-roll"
num = 300
[base.operator]
name = "gaussian-mlp"
network = { hidden = 16, depth = 1 }
[base.schedule]
n1 = 2
max_temperature = 64
[base.training]
steps = 4
batch_size = 8
validation_examples = 20
[base.evaluation]
limit = 20
"""

MEASURE: Final = """
[measure]
examples = 20
paths = 3
simulated = 4
samples = 40
chain = [0, 3]
"""

METHODS: Final = """
[[methods]]
name = "walkback"
label = "VW, [bold] <i>rule</i>"
[[methods]]
name = "conditional"
objective.name = "conditional"
"""


def written(place: Path, text: str) -> Path:
    file = place / "tiny.toml"
    file.write_text(text, "utf-8")
    return file


def cells(document: dict[str, Any], key: str) -> dict[str, Any]:
    (row,) = [row for row in document["rows"] if row["key"] == key]
    found: dict[str, Any] = row["cells"]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def again(place: Path) -> Callable[..., Done]:
    """The command, which has already been called once."""
    file = written(place, HEAD + BASE + MEASURE + METHODS)

    def call(*options: str) -> Done:
        return walkback("compare", file, "--out", place / "out", *options)

    assert call("--json").code == 0
    return call


# --- the table


def test_figures_are_means_over_seeds_of_what_was_measured(place: Path, again: Callable[..., Done]) -> None:
    document = again("--json").document()
    jsonschema.validate(document, SCHEMA)
    assert document == json.loads((place / "out" / "comparison.json").read_text("utf-8"))
    assert [method["seeds"] for method in document["methods"]] == [[0, 1], [0, 1]]
    for method in ("walkback", "conditional"):
        values = []
        for seed in (0, 1):
            (file,) = (place / "out" / "measured" / method / f"seed={seed}").glob("likelihood-*/reports.json")
            report = json.loads(file.read_text("utf-8"))["reports"]["likelihood"]
            values += [each["value"] for each in report["figures"] if each["name"] == "bound"]
        cell = cells(document, "likelihood.bound")[method]
        assert cell["value"] == pytest.approx(statistics.fmean(values))
        assert cell["error"] == pytest.approx(abs(values[0] - values[1]) / 2)
        assert (cell["error_of"], cell["seeds"], cell["reason"]) == ("seeds", 2, "")
        logged = [
            max(line.get("calls", 0) for line in records(place / "out" / "runs" / method / f"seed={seed}"))
            for seed in (0, 1)
        ]
        assert cells(document, "training.calls")[method]["value"] == statistics.fmean(logged)
    levels = cells(document, "chain-0.calls_per_sample")["walkback"]["value"]
    assert levels == 8
    assert {row["key"].partition(".")[0] for row in document["rows"]} == {
        *("training", "likelihood", "chain-0", "chain-3"),
    }


def test_figures_of_training_data_are_the_same_for_all_steps(again: Callable[..., Done]) -> None:
    rows = {row["key"]: row for row in again("--json").document()["rows"]}
    first, later = (rows[f"chain-{steps}.coverage"]["training_data"] for steps in (0, 3))
    assert first == later
    assert first["value"] is not None


def test_the_same_command_changes_nothing(place: Path, again: Callable[..., Done]) -> None:
    before = tree(place / "out")
    (damaged,) = place.glob("out/measured/walkback/seed=0/chain-*/reports.json")
    damaged.write_text('{"reports": [3]}', "utf-8")  # made again, from its parts
    done = again()
    assert done.code == 0
    assert done.err.count("has ended before") == 4
    assert tree(place / "out") == before


def test_other_measurements_of_the_same_runs(place: Path, again: Callable[..., Done]) -> None:
    kept = tree(place / "out" / "runs")
    file = written(place, HEAD + BASE + MEASURE.replace("paths = 3", "paths = 4") + METHODS)
    done = walkback("compare", file, "--out", place / "out", "--json")
    assert done.code == 0
    assert tree(place / "out" / "runs") == kept
    likelihoods = list((place / "out" / "measured" / "walkback" / "seed=0").glob("likelihood-*"))
    assert len(likelihoods) == 2
    assert len(list((place / "out" / "measured" / "walkback" / "seed=0").glob("chain-*"))) == 1
    written(place, HEAD + BASE + MEASURE + METHODS)


def test_other_runs_are_refused(place: Path, again: Callable[..., Done], tmp_path: Path) -> None:
    file = written(tmp_path, HEAD + BASE.replace("batch_size = 8", "batch_size = 9") + MEASURE + METHODS)
    done = walkback("compare", file, "--out", place / "out")
    assert (done.code, done.out) == (2, "")
    assert "training.batch_size = 8" in done.err
    assert "Method 'walkback'" in done.err


def test_csv_has_a_line_per_method_and_figure(place: Path, again: Callable[..., Done]) -> None:
    text = again("--csv").out
    assert text == (place / "out" / "comparison.csv").read_text("utf-8")
    lines = list(csv.DictReader(io.StringIO(text)))
    document = again("--json").document()
    assert len(lines) == 2 * len(document["rows"])
    (line,) = [
        line for line in lines if (line["method"], line["figure"]) == ("conditional", "likelihood.is_nll")
    ]
    assert float(line["value"]) == cells(document, "likelihood.is_nll")["conditional"]["value"]
    assert (line["unit"], line["error_of"], line["seeds"]) == ("nats", "seeds", "2")


def test_the_page_escapes_text_and_shows_samples_side_by_side(
    place: Path, again: Callable[..., Done]
) -> None:
    again()
    page = (place / "out" / "comparison.html").read_text("utf-8")
    assert "Tiny &lt;b&gt;" in page
    assert "<i>rule" not in page
    assert page.count("data:image/png") == 4
    assert "After 3 steps at T = 1" in page
    assert "standard error over up to 2 seeds" in page


@pytest.mark.parametrize("width", [80, 200])
def test_text_fits_the_terminal(
    again: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = again("--published").out
    assert max(map(len, out.splitlines())) <= width
    assert out.count("network calls  ") == 1
    assert out.count("  coverage ") == (4 if width == 80 else 2)
    assert "VW, [bold] <i>rule</i>" in out
    ours, theirs = out.split("Published figures")
    assert "NET" not in ours
    assert "5.40" in theirs


def test_python_returns_the_same_table(place: Path, again: Callable[..., Done]) -> None:
    document = again("--json").document()
    found = wb.compare(place / "tiny.toml", out=place / "out", progress=False)
    assert json.loads(json.dumps(found.to_dict())) == document
    assert "&lt;b&gt;" in found._repr_html_()
    assert "bound on -log p (nats)" in str(found)
    assert len(found.records()) == 2 * len(document["rows"])


# --- methods that are finished, or fail


def test_checkpoints_are_measured_without_training(
    place: Path, again: Callable[..., Done], tmp_path: Path
) -> None:
    runs = place / "out" / "runs" / "walkback"
    text = f"""
    [[methods]]
    name = "old"
    checkpoint = ["{runs}/seed=0", "{runs}/seed=1/final.safetensors"]
    """
    file = written(tmp_path, HEAD + BASE + MEASURE + text + METHODS.partition('[[methods]]\nname = "cond')[0])
    done = walkback("compare", file, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    document = done.document()
    assert [method["seeds"] for method in document["methods"]] == [[0, 1], [0, 1]]
    for key in ("likelihood.bound", "chain-3.coverage", "training.calls"):
        found = cells(document, key)
        assert found["old"] == found["walkback"]
    assert digest(tmp_path / "out/runs/walkback/seed=0/final.safetensors") == digest(
        runs / "seed=0" / "final.safetensors"
    )
    assert not (tmp_path / "out" / "runs" / "old").exists()


FAILING = """
@hookimpl
def walkback_diagnostics():
    yield Component("failing", "failing_code:Failing", "Fails")
"""

FAILING_CODE = '''
from walkback.diagnostics import Diagnostic
from walkback.errors import WalkbackError

class Failing(Diagnostic):
    """Fails."""

    def measure(self, subject):
        raise WalkbackError("There is nothing to measure.")
'''


def test_a_measurement_that_fails_is_a_footnote(install: Install, tmp_path: Path) -> None:
    site = install("failing", FAILING)
    (site / "failing_code.py").write_text(FAILING_CODE)
    excursions = MEASURE.replace("chain = [0, 3]", "chain = [0, 9]\nexcursion = 2")
    measure = excursions + "[measure.diagnose.failing]\n"
    file = written(tmp_path, "seeds = [3]\n" + BASE + measure + METHODS)
    done = walkback("compare", file, "--out", tmp_path / "out")
    assert done.code == 0
    assert done.out.count("– [1]") == 2
    assert "[1] There is nothing to measure." in done.out
    assert "It does not cover other seeds" in done.out
    document = json.loads((tmp_path / "out" / "comparison.json").read_text("utf-8"))
    assert cells(document, "likelihood.bound")["walkback"]["error_of"] == "run"
    assert cells(document, "excursion-9.coverage")["walkback"]["seeds"] == 1
    (states,) = tmp_path.glob("out/measured/walkback/seed=3/excursion-*/work/states-9.safetensors")
    # 9 calls are 2 excursions of 4 runs: 2 levels up, and 2 back.
    assert read_tensors(states)[0]["calls"] == 2 * 4 * 40
    assert cells(document, "failing")["walkback"] == {
        "value": None,
        "error": None,
        "error_of": None,
        "seeds": 0,
        "reason": "There is nothing to measure.",
    }


def test_a_run_that_diverges_is_a_footnote(tmp_path: Path) -> None:
    text = METHODS + "training.lr = 1e18\ntraining.clip = 0\n"
    file = written(tmp_path, HEAD + BASE.replace("steps = 4", "steps = 30") + MEASURE + text)
    done = walkback("compare", file, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    found = cells(done.document(), "likelihood.bound")
    assert found["walkback"]["seeds"] == 2
    assert found["conditional"]["value"] is None
    assert "The run with seed 0 is diverged." in found["conditional"]["reason"]


def test_an_interrupted_comparison_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, "seeds = [0]\n" + BASE + MEASURE + METHODS)

    def stop(*_: Any, **__: Any) -> Any:
        raise Stopped(2)

    with monkeypatch.context() as patch:
        patch.setattr("walkback.jobs.compare_measure.chain_quality", stop)
        done = walkback("compare", file, "--out", tmp_path / "out")
    assert done.code == 130
    assert "the same command resumes the comparison" in done.err
    (kept,) = tmp_path.glob("out/measured/walkback/seed=0/likelihood-*/reports.json")
    before, runs = kept.stat().st_mtime_ns, tree(tmp_path / "out" / "runs" / "walkback")
    assert not (tmp_path / "out" / "comparison.json").exists()
    done = walkback("compare", file, "--out", tmp_path / "out", "--json")
    assert done.code == 0
    assert kept.stat().st_mtime_ns == before
    assert tree(tmp_path / "out" / "runs" / "walkback") == runs
    assert cells(done.document(), "chain-3.coverage")["conditional"]["seeds"] == 1


# --- refusals


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no methods"),
        ("sedes = [1]" + METHODS, "sedes"),
        ("seeds = [1, 1]" + METHODS, "different seeds"),
        ("[base.trainign]\nsteps = 1" + METHODS, "trainign"),
        ("[measure]\npathes = 1" + METHODS, "pathes"),
        (METHODS + "\n[[methods]]\nname = 'walkback'", "two methods called 'walkback'"),
        ("[[methods]]\nlabel = 'x'", "of method 1"),
        ("[[methods]]\nname = '../x'", "'../x'"),
        ("[[methods]]\nname = 'x'\nobjectve.name = 'walkback'", "objectve"),
        ("[[methods]]\nname = 'x'\ncheckpoint = 'a'\ntraining.steps = 3", "leave one of them out"),
        ("[[methods]]\nname = 'x'\ncheckpoint = 'missing.safetensors'", "Method 'x'"),
        ("methods = 3", "expected entries [[methods]]"),
        ("title = ", "not valid TOML"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    done = walkback("compare", written(tmp_path, text), "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ("operator.sigma = -1.0", "Method 'other': operator.sigma"),
        ("process.name = 'nothing'", "nothing"),
        ("data.num = 301", "different data"),
        ("operator.network.hidden = 8", "network.hidden = 16 and 8"),
        ("training.steps = 5", "training.steps = 5 of 'walkback' would match"),
        ("training.updates = 'stacked'", "network calls"),
        ("training.minutes = 1.0", "training.minutes"),
        ("training.patience = 1", "training.patience"),
    ],
)
def test_methods_that_are_not_comparable_are_refused(tmp_path: Path, own: str, words: str) -> None:
    other = f"\n[[methods]]\nname = 'other'\n{own}\n"
    text = HEAD + BASE + MEASURE + METHODS.partition('[[methods]]\nname = "cond')[0] + other
    done = walkback("compare", written(tmp_path, text), "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("samples = 40", "samples = 39"), "at least 40"),
        (("samples = 40", "samples = 4000"), "4000"),
        (("samples = 40", "samples = 40\nclassifier = true"), "labels"),
        (("examples = 20", "examples = 1"), "at least"),
        (("[measure]", "[measure.diagnose.nothing]\n[measure]"), "nothing"),
        (("[measure]", "[measure.diagnose.reversibility]\nchians = 3\n[measure]"), "chians"),
    ],
)
def test_measurements_that_cannot_be_made_are_refused(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    text = HEAD + BASE + MEASURE.replace(*change) + METHODS
    done = walkback("compare", written(tmp_path, text), "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_shows_the_plan_and_differences_can_be_allowed(tmp_path: Path) -> None:
    other = "\n[[methods]]\nname = 'other'\noperator.network.hidden = 8\ntraining.updates = 'stacked'\n"
    text = "same_network = false\nsame_calls = false\n" + HEAD + BASE + MEASURE + METHODS + other
    file = written(tmp_path, text)
    done = walkback("compare", file, "--out", tmp_path / "out", "--dry-run")
    assert done.code == 0
    assert done.out.count("new  ") == 6
    assert not (tmp_path / "out").exists()
    planned = walkback("compare", file, "--out", tmp_path / "out", "--dry-run", "--json").document()[
        "methods"
    ]
    assert [entry["method"] for entry in planned] == ["walkback", "conditional", "other"]
    assert [entry["network"]["network.hidden"] for entry in planned] == [16, 16, 8]
    assert not (tmp_path / "out").exists()


# --- the parts


@pytest.mark.parametrize(
    "own", ["training.updates = 'stacked'", "training.chains = { share = 0.5, pool = 8, steps = 3 }", ""]
)
def test_calls_before_training_are_those_of_training(tmp_path: Path, own: str) -> None:
    text = HEAD + BASE.replace("steps = 4", "steps = 12") + METHODS + own
    settings = read_comparison(written(tmp_path, text)).methods[1].settings
    job = TrainJob(Choices(settings=settings), kept=False)
    registry = Registry.discover()
    expected = expected_calls(job.check(registry, Silent()).prepared)
    trained = job.check(registry, Silent()).run(Silent())
    assert trained is not None
    progress = trained.checkpoint.description.progress
    assert expected == (progress["calls"], progress["gradient_calls"])


@pytest.mark.parametrize("name", ["swiss-roll", "digits", "mnist"])
def test_comparisons_of_the_examples_resolve_with_one_network(name: str) -> None:
    file = Path(__file__).parents[1] / "examples" / "compare" / f"{name}.toml"
    comparison, registry = read_comparison(file), Registry.discover()
    configs = [Choices(each.recipe, settings=each.settings).resolve(registry) for each in comparison.methods]
    assert len(configs) == 7
    networks = [network_of(registry, config.operator) for config in configs]
    assert all(network == networks[0] for network in networks)
    assert {config.process.name for config in configs} == {"tied", "diffusion", "dae", "gsn", "infusion"}


def test_paths_of_checkpoints_are_relative_to_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[[methods]]\nname = 'x'\ncheckpoint = ['a.safetensors', '/b/c']\n")
    assert read_comparison(file).methods[0].checkpoints == (tmp_path / "a.safetensors", Path("/b/c"))


def test_cells_have_the_error_over_seeds_or_within_the_run() -> None:
    one = Figure("x", 3.0, "nats", 0.5)
    assert Cell.over([one], "") == Cell(3.0, 0.5, "run", 1)
    several = Cell.over([one, Figure("x", 5.0, "nats", 9.0), Figure("x", 4.0, "nats")], "")
    assert several.value == pytest.approx(4)
    assert several.error == pytest.approx(1 / math.sqrt(3))
    assert (several.error_of, several.seeds) == ("seeds", 3)
    assert Cell.over([], "It failed.") == Cell(reason="It failed.")


def test_footnotes_number_reasons_once() -> None:
    notes = Footnotes()
    assert notes.marked(Cell(reason="a"), "1") == "– [1]"
    assert notes.marked(Cell(2.0, 0.1, "seeds", 2, "b"), "1") == "2.00 ± 0.10 (2) [2]"
    assert notes.marked(Cell(reason="a"), "1") == "– [1]"
    lines = notes.lines([Column("x", "x", (Measured(0), Measured(1), Measured(2)))])
    assert lines[1:] == ["[1] a", "[2] b"]
    assert "3 seeds" in lines[0]


def test_published_figures_have_a_protocol_and_a_source() -> None:
    figures = published_figures()
    assert all(each.protocol and each.source and each.value > 0 for each in figures)
    found = {(each.method, each.figure): each for each in figures}
    assert len(found) == len(figures)
    assert found["VW (30 steps)", "nll"].text == "≤ 4.40"
    assert found["VW (30 steps)", "inception score"].text == "4.39 ± 0.2"


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="There is no file"):
        wb.compare(tmp_path / "none.toml", progress=False)
