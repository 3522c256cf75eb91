"""walkback from Python: the same weights, states and figures as the program, by names and by instances."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final, final

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from tests.program import ENVIRONMENT, FEW, TINY_BATCH, TINY_SETTINGS, digest, run, tree, walkback
from tests.toy.paper import bernoulli_mlp, gaussian_mlp
from tests.toy.statistics import normal
from torch import Tensor

import walkback as wb
from walkback.configuration.overrides import assignments, parse_overrides
from walkback.data import Dataset
from walkback.data.tensors import TensorData
from walkback.diagnostics import Diagnostic, Subject
from walkback.errors import CheckpointError, ConfigurationError, DataError, PluginError
from walkback.kernels import Kernel, NormalKernel
from walkback.operators import Conditional, TransitionOperator
from walkback.report import Figure, Report
from walkback.schedules import Level
from walkback.state import Context, Space, State
from walkback.storage.tensorfile import read_tensors
from walkback.support.seeding import derive_seed
from walkback_diagnostics.reversibility import Reversibility
from walkback_paper.gaussian import Gaussian
from walkback_paper.objectives import WalkbackLoss
from walkback_paper.priors import BernoulliPrior, GaussianPrior
from walkback_paper.schedules import DoublingSchedule
from walkback_toys.digits import Digits

SCHEMA: Final = json.loads((Path(__file__).parent.parent / "docs/schemas/report.schema.json").read_text())
OWN: Final = {"operator.network.hidden": 8, "operator.network.depth": 1, "evaluation.limit": 20}


def tiny(*arguments: Any, **options: Any) -> wb.Trained:
    """A run of `tests.program.run` from Python."""
    settings = {**TINY_SETTINGS, **options.pop("settings", {})}
    chosen = {"steps": 6, "batch_size": TINY_BATCH, "progress": False, **options}
    return wb.train(*arguments, settings=settings, **chosen)


def on_rows(rows: Tensor, operator: Any = "gaussian-mlp", **options: Any) -> wb.Trained:
    """A few walks on a tensor."""
    given = (
        {} if not isinstance(operator, str) else {"operator.network.hidden": 8, "operator.network.depth": 1}
    )
    settings = {**given, "training.validation_examples": 5, **options.pop("settings", {})}
    chosen = {"steps": 3, "batch_size": 8, "progress": False, **options}
    return wb.train(operator, data=rows, settings=settings, **chosen)


def same_weights(first: wb.Trained, second: wb.Trained) -> bool:
    ours, theirs = first.checkpoint.tensors, second.checkpoint.tensors
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the program."""
    place = tmp_path_factory.mktemp("api") / "run"
    assert run(place).code == 0
    return place


@pytest.fixture(scope="module")
def trained() -> wb.Trained:
    """The same run from Python."""
    return tiny()


# --- importing


def test_importing_walkback_is_light() -> None:
    code = "import sys, walkback; print(sorted(sys.modules)); print(dir(walkback))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    loaded, names = done.stdout.splitlines()
    assert [name for name in eval_list(loaded) if name.startswith("walkback")] == ["walkback"]
    assert not {"torch", "numpy", "pydantic", "rich"} & set(eval_list(loaded))
    assert set(wb.__all__) <= set(eval_list(names))


def eval_list(text: str) -> list[str]:
    found: list[str] = json.loads(text.replace("'", '"'))
    return found


def test_every_name_is_there() -> None:
    assert all(getattr(wb, name).__name__ == name for name in wb.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'walkback' has no attribute 'trian'"):
        _ = wb.trian  # type: ignore[attr-defined]


# --- training by names


def test_weights_are_those_of_the_program(trained: wb.Trained, directory: Path, tmp_path: Path) -> None:
    assert digest(trained.save(tmp_path / "mine.safetensors")) == digest(directory / "final.safetensors")


def test_the_history_is_what_the_program_logs(trained: wb.Trained, directory: Path) -> None:
    logged = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert len(logged) == 3
    assert [dict(record, seconds=0) if "seconds" in record else record for record in trained.history] == [
        dict(record, seconds=0) if "seconds" in record else record for record in logged
    ]


def test_out_keeps_the_directory_of_a_run(directory: Path, tmp_path: Path) -> None:
    kept = tiny(out=tmp_path / "run")
    assert kept.directory == tmp_path / "run"
    volatile = {"metrics.jsonl", ".lock"}
    found, expected = tree(tmp_path / "run"), tree(directory)
    assert {name for name in found if name not in volatile} == {n for n in expected if n not in volatile}
    for name in ("config.toml", "final.safetensors", "samples/annealed.png", "samples/chain.png"):
        assert found[name] == expected[name]
    assert walkback("run", "--resume", tmp_path / "run", "--set", "training.steps=7").code == 0


def test_flags_and_choices_are_those_of_the_program(tmp_path: Path) -> None:
    flags = ("--data", "swiss-roll", "--objective", "walkback", "--lr", "0.003", "--seed", "5")
    assert run(tmp_path / "run", *flags, "--set", "training.ema=0").code == 0
    mine = tiny(data="swiss-roll", objective="walkback", lr=0.003, seed=5, settings={"training.ema": 0})
    assert digest(mine.save(tmp_path / "mine.safetensors")) == digest(tmp_path / "run/final.safetensors")


def test_the_best_model_is_kept_as_by_the_program(tmp_path: Path) -> None:
    early = {"training.patience": 2, "training.validate_every": 1, "training.lr": 1.0}
    assert run(tmp_path / "run", *(f"--set={a}" for a in assignments(early)), steps=30).code == 0
    mine = tiny(steps=30, settings=early)
    assert mine.checkpoint.description.progress["walks"] < 28
    assert digest(mine.save(tmp_path / "mine.safetensors")) == digest(tmp_path / "run/final.safetensors")
    weights = mine.model.operator.state_dict()
    assert all(torch.equal(weights[n], t) for n, t in mine.checkpoint.part("operator.").items())


def test_the_number_of_threads_is_put_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tiny(steps=1, settings={"run.threads": 1})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_settings_survive_the_way_through_text() -> None:
    values = {
        "a.text": 'a "quoted"\n\\ line, π, =',
        "a.flag": True,
        "a.small": 1e-300,
        "a.whole": 3.0,
        "a.many": (1, (2.5, "x"), []),
        "a.table": {"k.ey": [1], "b": {"c": False}},
        "a.path": Path("x/y"),
        "a.far": math.inf,
    }
    found = parse_overrides(assignments(values), ["a"])["a"]
    expected = {
        **{name.removeprefix("a."): value for name, value in values.items()},
        "many": [1, [2.5, "x"], []],
        "path": "x/y",
    }
    assert found == expected
    assert isinstance(found["whole"], float)
    with pytest.raises(ConfigurationError, match=r"NoneType for training\.ema"):
        assignments({"training.ema": None})


# --- training with instances


def test_instances_train_as_their_names_do() -> None:
    named = wb.train("gaussian-mlp", data="digits", steps=3, batch_size=8, settings=OWN, progress=False)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(0, "weights"))
        operator = gaussian_mlp(Space((1, 8, 8)), hidden=8, depth=1)
    before = {name: weight.clone() for name, weight in operator.state_dict().items()}
    parts: dict[str, Any] = {
        "data": Digits(),
        "prior": GaussianPrior(Space((1, 8, 8))),
        "schedule": DoublingSchedule(),
        "objective": WalkbackLoss(),
    }
    settings = {"evaluation.limit": 20}
    built = wb.train(operator, **parts, steps=3, batch_size=8, settings=settings, progress=False)
    assert same_weights(named, built)
    assert named.bound == built.bound
    assert all(torch.equal(weight, before[name]) for name, weight in operator.state_dict().items())
    for name, part in parts.items():
        alone: dict[str, Any] = {"data": "digits", name: part}
        single = wb.train("gaussian-mlp", **alone, steps=3, batch_size=8, settings=OWN, progress=False)
        assert same_weights(named, single), name


@final
class Shrink(TransitionOperator):
    """s' ~ N(a s, T), with one weight a; no plugin offers it."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        assert isinstance(state, Tensor)
        return Shrunk(self.rate * state)

    @property
    def max_temperature(self) -> float:
        return 4.0


@final
class Shrunk(Conditional):
    def __init__(self, mean: Tensor) -> None:
        self._mean = mean

    def cooling(self, level: Level) -> Kernel:
        return NormalKernel(self._mean, level.temperature_like(self._mean).expand_as(self._mean))

    def heating(self, level: Level) -> Kernel:
        return self.cooling(level)


def test_an_operator_of_ones_own_trains_on_a_tensor(tmp_path: Path) -> None:
    rows = normal(400, 2).float()
    mine = on_rows(rows, Shrink(), steps=200, lr=0.01, batch_size=50, settings={"training.ema": 0.9})
    assert mine.operator_name == "Shrink"
    rate = mine.checkpoint.tensors["operator.rate"].item()
    assert rate != 0.5
    assert mine.bound is not None
    entropy = math.log(2 * math.pi * math.e)  # of two standard normal numbers: nothing lies below on average
    assert mine.bound.nats > entropy - 4.5 * mine.bound.nats_error
    assert wb.sample(mine, 5, progress=False).states.shape == (5, 2)
    report = wb.evaluate(mine, limit=20, paths=2, simulated=0, baselines=False, progress=False)
    assert (report.protocol["operator"], report.protocol["data"]) == ("Shrink", "tensor")
    with pytest.raises(
        ConfigurationError, match=r"operator of this model was given as an instance.*in a plugin"
    ):
        mine.save(tmp_path / "mine.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_names_on_a_tensor_can_be_saved(tmp_path: Path) -> None:
    mine = on_rows(normal(60, 3).float())
    again = wb.load(mine.save(tmp_path / "mine.safetensors"))
    assert torch.equal(wb.sample(mine, 4, progress=False).states, wb.sample(again, 4, progress=False).states)
    with pytest.raises(ConfigurationError, match="exists"):
        mine.save(tmp_path / "mine.safetensors")
    mine.save(tmp_path / "mine.safetensors", overwrite=True)
    with pytest.raises(ConfigurationError, match=r"ends in \.safetensors"):
        mine.save(tmp_path / "mine.pt")


def test_parts_suit_the_component_that_an_instance_is_of() -> None:
    bits = normal(60, 4) > 0
    mine = on_rows(bits, bernoulli_mlp(Space((4,), "binary"), hidden=8, depth=1))
    assert (
        type(mine.model.prior) is BernoulliPrior
    )  # as its component proposes; the default recipe's is Gaussian
    assert mine.info.support == "binary"
    assert mine.checkpoint.description.components.keys() == {"schedule", "prior", "process", "objective"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operator": Gaussian}, "the class Gaussian as operator"),
        ({"data": 3}, "a int as data"),
        (
            {"settings": {"data.binarize": "threshold"}, "data": Digits()},
            "because data is an instance",
        ),
        ({"data": Digits(), "out": "run"}, "leave out out"),
        ({"settings": {"run.nproc": 2}}, "run.nproc is 2"),
        ({"settings": {"training.stesp": 2}}, "did you mean 'training.steps'"),
        ({"operator": "gaussian-mpl"}, "did you mean 'gaussian-mlp'"),
        ({"operator": Shrink().requires_grad_(False)}, "No weight of the operator requires a gradient"),
        ({"data": torch.zeros(11, 2)}, "N >= 12"),
        ({"data": torch.zeros(19)}, "N >= 12"),
        ({"data": torch.full((19, 2), math.nan)}, "NaN or infinity"),
        ({"data": torch.zeros(19, 2, dtype=torch.complex64)}, "torch.complex64"),
    ],
)
def test_wrong_requests_are_refused(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        wb.train(**arguments, progress=False)
    assert list(tmp_path.iterdir()) == []


# --- tensors as data


def test_the_splits_of_a_tensor_share_it_out() -> None:
    rows = torch.stack([torch.arange(50.0), torch.arange(50.0).square()], 1)
    data: Dataset = TensorData(rows)
    parts = [data.info.values(data.examples(split))[:, 0] for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [40, 5, 5]
    assert sorted(torch.cat(parts).tolist()) == pytest.approx(list(range(50)), abs=1e-4)
    assert data.info.fingerprint == TensorData(rows.clone()).info.fingerprint
    assert data.info.fingerprint != TensorData(rows + 1).info.fingerprint
    assert data.info.splits == {"train": 40, "validation": 5, "test": 5}


def test_the_type_of_a_tensor_says_what_its_states_are() -> None:
    noise = torch.Generator().manual_seed(0)
    grey = TensorData(torch.full((20, 1, 3, 3), 200, dtype=torch.uint8))
    states = grey.states(grey.examples("train"), noise)
    assert (grey.info.bins, grey.info.support) == (256, "real")
    assert bool(((states >= 200 / 256) & (states < 201 / 256)).all())
    bits = TensorData(torch.tensor([[True, False]] * 20))
    assert (bits.info.bins, bits.info.support) == (None, "binary")
    assert bits.states(bits.examples("test"), noise).tolist() == [[1.0, 0.0]] * 4
    wide = TensorData(normal(20, 2).double())
    assert wide.states(wide.examples("test"), noise).dtype is torch.float32


# --- samples


def test_samples_are_those_of_the_program(trained: wb.Trained, directory: Path, tmp_path: Path) -> None:
    checkpoint = directory / "final.safetensors"
    options = ("--num", "5", "--extra", "3", "--chain", "6", "--every", "2", "--seed", "4")
    for ending in ("safetensors", "npz", "png"):
        theirs, mine = tmp_path / f"theirs.{ending}", tmp_path / f"mine.{ending}"
        assert walkback("sample", checkpoint, *options, "--out", theirs).code == 0
        drawn = wb.sample(trained, 5, extra=3, chain=6, every=2, seed=4, progress=False)
        assert digest(drawn.save(mine)) == digest(theirs)
    assert (len(drawn), drawn.steps, tuple(drawn.frames.shape)) == (5, (0, 2, 4, 6), (4, 5, 1, 8, 8))
    assert torch.equal(drawn.states, drawn.frames[-1])
    with pytest.raises(ConfigurationError, match="exists"):
        drawn.save(mine)


def test_equal_seeds_give_equal_samples(trained: wb.Trained, directory: Path) -> None:
    first = wb.sample(trained, 4, progress=False)
    assert torch.equal(first.states, wb.sample(directory / "final.safetensors", 4, progress=False).states)
    assert not torch.equal(first.states, wb.sample(trained, 4, seed=1, progress=False).states)


def test_chains_start_where_they_are_told(trained: wb.Trained) -> None:
    start = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = wb.sample(trained, start=start, chain=2, progress=False)
    assert torch.equal(drawn.frames[0], start)
    assert drawn.protocol["annealing_steps"] == 0
    with pytest.raises(ConfigurationError, match="expected states"):
        wb.sample(trained, start=start[:, 0], chain=2, progress=False)
    with pytest.raises(ConfigurationError, match=r"levels = 3 has no effect with start = 'states'"):
        wb.sample(trained, start=start, levels=3, progress=False)


@pytest.mark.parametrize("options", [{"num": 0}, {"chain": 2, "every": 3}, {"extra": -1}, {"levels": 0}])
def test_samples_that_cannot_be_are_refused(trained: wb.Trained, options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=r"expected at least|longer than the chain"):
        wb.sample(trained, **options, progress=False)  # type: ignore[arg-type]


def test_inpainted_images_are_those_of_the_program(directory: Path, tmp_path: Path) -> None:
    checkpoint, theirs = directory / "final.safetensors", tmp_path / "theirs.safetensors"
    options = ("--keep", "top", "--num", "3", "--extra", "4", "--seed", "2", "--out", theirs)
    assert walkback("inpaint", checkpoint, *options).code == 0
    expected = read_tensors(theirs)[0]
    mine = wb.inpaint(checkpoint, "top", num=3, extra=4, seed=2, progress=False)
    assert torch.equal(mine.states, expected["filled"])
    mask = expected["mask"].bool()
    again = wb.inpaint(checkpoint, mask, known=expected["original"], extra=4, seed=2, progress=False)
    assert torch.equal(again.states, expected["filled"])
    assert torch.equal(mine.states[..., :4, :], expected["original"][..., :4, :])
    for wrong in (mask.float(), mask[:3], mask[None, None, None]):
        with pytest.raises(ConfigurationError, match="Got a mask"):
            wb.inpaint(checkpoint, wrong, num=3, progress=False)


# --- measurements


def test_an_evaluation_is_that_of_the_program(trained: wb.Trained, directory: Path) -> None:
    checkpoint = directory / "final.safetensors"
    flags = ("--limit", "24", "--paths", "4", "--simulated", "8", "--batch-size", "10", "--no-baselines")
    expected = walkback("evaluate", checkpoint, *flags, "--json").document()
    for model in (trained, wb.load(checkpoint), checkpoint):
        report = wb.evaluate(model, **FEW, progress=False)  # type: ignore[arg-type]
        assert json.loads(json.dumps(report.to_dict())) == expected
    jsonschema.validate(expected, SCHEMA)


def test_a_diagnosis_is_that_of_the_program(trained: wb.Trained, directory: Path) -> None:
    checkpoint = directory / "final.safetensors"
    options = {"chains": 6, "steps": 20, "burn_in": 2, "rank_chains": 0}
    sets = [f"--set={a}" for a in assignments(options)]
    expected = walkback("diagnose", "reversibility", checkpoint, *sets, "--seed", "3", "--json").document()
    assert expected.pop("beyond") == []
    for model in (trained, checkpoint):
        report = wb.diagnose("reversibility", model, seed=3, progress=False, **options)
        assert json.loads(json.dumps(report.to_dict())) == expected
    instance = wb.diagnose(Reversibility(**options), trained, seed=3, progress=False)  # type: ignore[arg-type]
    assert instance.figures == report.figures
    assert instance.protocol["diagnostic"] == {"name": "Reversibility"}


def test_other_data_can_be_named_built_or_given(trained: wb.Trained) -> None:
    named = wb.evaluate(trained, data="digits", **FEW, progress=False)  # type: ignore[arg-type]
    built = wb.evaluate(trained, data=Digits(), **FEW, progress=False)  # type: ignore[arg-type]
    assert named == built
    with pytest.raises(ConfigurationError, match="256 gray levels"):
        wb.evaluate(trained, data=torch.full((20, 1, 8, 8), 200, dtype=torch.uint8), progress=False)
    with pytest.raises(ConfigurationError, match="binary"):
        wb.evaluate(trained, data="digits", settings={"binarize": "threshold"}, progress=False)
    with pytest.raises(ConfigurationError, match="data given by name"):
        wb.evaluate(trained, settings={"binarize": "threshold"}, progress=False)


def test_options_of_the_same_name_go_through_settings(trained: wb.Trained) -> None:
    few = {"examples": 10, "paths": 2, "chains": 6, "stationary_steps": 2, "burn_in": 1, "bennett": False}
    report = wb.diagnose("thermodynamics", trained, settings={"data": False}, progress=False, **few)
    assert report.protocol["diagnostic"]["data"] is False
    with pytest.raises(ConfigurationError, match="set it when you create"):
        wb.diagnose(Reversibility(), trained, progress=False, chains=3)


@final
class Nothing(Diagnostic):
    def measure(self, subject: Subject) -> Report:
        return None  # type: ignore[return-value]


def test_wrong_measurements_are_refused(trained: wb.Trained, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="NoneType from the diagnostic 'Nothing'"):
        wb.diagnose(Nothing(), trained, progress=False)
    with pytest.raises(ConfigurationError, match="limit = 0"):
        wb.evaluate(trained, limit=0, progress=False)
    with pytest.raises(ConfigurationError, match="classifier = True needs samples"):
        wb.evaluate(trained, classifier=True, progress=False)
    with pytest.raises(ConfigurationError, match="split = 'tset'"):
        wb.evaluate(trained, split="tset", progress=False)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError):
        wb.load(tmp_path / "missing.safetensors")
    with pytest.raises(DataError, match="N >= 12"):
        wb.evaluate(trained, data=torch.zeros(3, 2), progress=False)


# --- notebooks

EVIL: Final = "<script>alert('&')</script>\x1b[31m"


def test_reports_escape_what_they_show() -> None:
    figure = Figure("bound", 1.5, EVIL, 0.25, meaning=EVIL)
    page = Report(EVIL, "bound", (figure,), warnings=(EVIL,), protocol={EVIL: [EVIL]})._repr_html_()
    assert page.count("&lt;script&gt;") == 6
    assert "<script" not in page
    assert "\x1b" not in page
    assert "1.50 ± 0.25" in page


def test_models_and_samples_escape_what_they_show(trained: wb.Trained) -> None:
    evil = replace(trained, info=replace(trained.info, name=EVIL), name=EVIL)
    page = evil._repr_html_()
    assert (page.count("&lt;script&gt;"), page.count("<script")) == (2, 0)
    drawn = replace(wb.sample(trained, 4, progress=False), protocol={"checkpoint": EVIL})
    assert "<script" not in drawn._repr_html_()
    assert "\x1b" not in page + drawn._repr_html_() + repr(evil)
    assert "nats" in trained._repr_html_()


def test_samples_show_their_picture(trained: wb.Trained, tmp_path: Path) -> None:
    drawn = wb.sample(trained, 9, progress=False)
    drawn.save(tmp_path / "mine.png")
    assert hashlib.sha256(drawn.png()).hexdigest() == digest(tmp_path / "mine.png")
    assert "data:image/png;base64," in drawn._repr_html_()
    long = wb.sample(trained, 12, chain=100, progress=False)
    assert Image.open(BytesIO(long.png())).width < 4096
    assert np.asarray(Image.open(BytesIO(long.png()))).size > 0
    flat = wb.sample(on_rows(normal(60, 3).float()), 4, progress=False)
    assert "4 states of shape (3,)" in flat._repr_html_()


@pytest.mark.parametrize("shown", [True, False])
def test_progress_is_for_terminals(
    trained: wb.Trained, shown: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wb.sample(trained, 2, progress=shown)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    wb.sample(trained, 2, progress=shown)
    out, err = capsys.readouterr()
    assert (out, "Sampling" in err) == ("", shown)


def test_a_model_stays_on_its_device(trained: wb.Trained) -> None:
    elsewhere = replace(trained, device=torch.device("meta"))
    with pytest.raises(ConfigurationError, match="is on meta and cannot be used"):
        wb.sample(elsewhere, 2, device="cpu", progress=False)
    assert wb.sample(trained, 2, device="cpu", progress=False).states.shape[0] == 2
