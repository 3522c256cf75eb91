"""Every verb both ways, by the program and from Python: equal results, equal provenance, equal refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from PIL import Image
from tests.program import (
    FEW,
    QUICK,
    TINY_BATCH,
    TINY_SETTINGS,
    Done,
    digest,
    options,
    records,
    run,
    tree,
    walkback,
)

import walkback as wb
from walkback.building import restoring
from walkback.errors import CheckpointError, ConfigurationError, WalkbackError
from walkback.storage.description import read_description
from walkback.storage.tensorfile import read_tensors, save_tensors
from walkback_toys.digits import Digits


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a tiny model of digits."""
    place = tmp_path_factory.mktemp("jobs") / "run"
    assert run(place, "--set", "training.checkpoint_every=3").code == 0
    return place


@pytest.fixture(scope="module")
def checkpoint(directory: Path) -> Path:
    return directory / "final.safetensors"


@pytest.fixture
def altered(checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes checkpoints whose data are described otherwise."""

    def alter(**changes: Any) -> Path:
        tensors, description = read_tensors(checkpoint)
        description["data"] |= changes
        save_tensors(tmp_path / "altered.safetensors", tensors, description)
        return tmp_path / "altered.safetensors"

    return alter


def plain(document: Any) -> Any:
    return json.loads(json.dumps(document))


# --- results and provenance


@pytest.mark.parametrize(
    "request_",
    [
        {"num": 5, "extra": 3, "chain": 6, "every": 2, "seed": 4},
        {"num": 3, "chain": 50},
        {"num": 3, "levels": 12, "readout": "mean@2"},
        {"num": 3, "start": "data", "split": "validation", "chain": 4, "every": 4},
        {"start": "FILE", "num": 2, "chain": 2, "every": 1, "batch_size": 1},
    ],
)
def test_samples(checkpoint: Path, tmp_path: Path, request_: dict[str, Any]) -> None:
    if request_.get("start") == "FILE":
        request_ = {**request_, "start": str(tmp_path / "first.npz")}
        assert walkback("sample", checkpoint, "--num=4", "--out", request_["start"]).code == 0
    out = tmp_path / "theirs.safetensors"
    done = walkback("sample", checkpoint, *options(**request_), "--out", out, "--json")
    assert done.code == 0, done.err
    drawn = wb.sample(checkpoint, **request_, progress=False)
    with_file = {"file": str(out), "num": len(drawn), "frames": len(drawn.steps)}
    assert done.document() == {**with_file, **plain(drawn.protocol)}
    drawn.save(tmp_path / "mine.safetensors")
    assert digest(tmp_path / "mine.safetensors") == digest(out)
    assert read_tensors(out)[1]["protocol"] == plain(drawn.protocol)


@pytest.mark.parametrize(
    "request_",
    [
        {"num": 3, "extra": 4, "seed": 2},
        {"num": 2, "extra": 2, "anneal": False, "readout": "mean", "split": "validation"},
        {"num": 2, "extra": 1, "data": "digits", "settings": {"noise": 0.1}},
    ],
)
def test_inpainting(checkpoint: Path, tmp_path: Path, request_: dict[str, Any]) -> None:
    out = tmp_path / "theirs.safetensors"
    done = walkback("inpaint", checkpoint, "--keep=left", *options(**request_), "--out", out, "--json")
    assert done.code == 0, done.err
    made = wb.inpaint(checkpoint, "left", **request_, progress=False)
    assert done.document() == {"file": str(out), "num": request_["num"], **plain(made.protocol)}
    assert made.states.equal(read_tensors(out)[0]["filled"])
    assert (made.protocol["keep"], made.protocol["data"]) == ("left", "digits")


def test_evaluation(checkpoint: Path, tmp_path: Path) -> None:
    request = {**FEW, "samples": 60, "levels": 12, "split": "validation", "data": "digits"}
    expected = walkback("evaluate", checkpoint, *options(**request), "--json").document()
    report = wb.evaluate(checkpoint, **request, progress=False)
    assert plain(report.to_dict()) == expected
    assert report.protocol["levels"] == 12


def test_diagnosis(checkpoint: Path) -> None:
    words = [f"--set={name}={value}" for name, value in QUICK.items()]
    expected = walkback("diagnose", "reversibility", checkpoint, *words, "--json").document()
    report = wb.diagnose("reversibility", checkpoint, progress=False, **QUICK)
    assert {**plain(report.to_dict()), "beyond": []} == expected


def test_pieces_of_the_program_are_gone_on_with_from_python(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from walkback.measuring import bound

    work = tmp_path / "work"
    expected = walkback("evaluate", checkpoint, *options(**FEW), "--cache", work, "--json").document()
    monkeypatch.setattr(bound, "heating_work", None)  # nothing is heated again
    assert plain(wb.evaluate(checkpoint, **FEW, cache=work, progress=False).to_dict()) == expected


def without_time(directory: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records(directory)]


def test_training(tmp_path: Path) -> None:
    flags = {"data": "swiss-roll", "seed": 3, "lr": 0.002}
    done = run(tmp_path / "theirs", *options(**flags), "--json")
    assert done.code == 0, done.err
    mine = wb.train(
        **flags, steps=6, batch_size=TINY_BATCH, out=tmp_path / "mine", settings=TINY_SETTINGS, progress=False
    )
    left = {path.relative_to(tmp_path / "theirs") for path in (tmp_path / "theirs").rglob("*")}
    assert {path.relative_to(tmp_path / "mine") for path in (tmp_path / "mine").rglob("*")} == left
    for name in left:  # pictures with their provenance, weights, training states, the configuration
        ours, theirs = tmp_path / "mine" / name, tmp_path / "theirs" / name
        if ours.is_file() and ours.suffix in (".png", ".toml", ".safetensors") and "state" not in ours.name:
            assert digest(ours) == digest(theirs), name
    assert without_time(tmp_path / "mine") == without_time(tmp_path / "theirs")
    document = done.document()
    assert mine.bound is not None
    assert document["bound"] == plain(mine.bound.to_dict())
    with Image.open(tmp_path / "mine" / "samples" / "annealed.png") as picture:
        drawn = json.loads(picture.info["walkback"])
    assert document["protocol"] == {name: fact for name, fact in drawn.items() if name != "readout"}


def test_going_on(tmp_path: Path) -> None:
    for name in ("theirs", "mine"):
        assert run(tmp_path / name, "--set", "training.checkpoint_every=3").code == 0
    assert walkback("run", "--resume", tmp_path / "theirs", "--steps", "9").code == 0
    again = wb.train(resume=tmp_path / "mine", steps=9, progress=False)
    assert again.checkpoint.description.progress["walks"] == 9
    for name in ("final.safetensors", "samples/annealed.png", "config.toml"):
        assert digest(tmp_path / "mine" / name) == digest(tmp_path / "theirs" / name)
    assert again.directory == tmp_path / "mine"
    with pytest.raises(ConfigurationError, match="leave out recipe or resume"):
        wb.train(resume=tmp_path / "mine", recipe="digits", progress=False)
    with pytest.raises(ConfigurationError, match="data is an instance"):
        wb.train(data=Digits(), resume=tmp_path / "mine", progress=False)


def test_benchmarks() -> None:
    words = [f"--set={name}={value}" for name, value in TINY_SETTINGS.items()]
    flags = {"batch_size": 8, "steps": 50, "seed": 2}
    done = walkback("bench", *words, *options(**flags), "--repeats", "1", "--no-compare", "--json")
    assert done.code == 0, done.err
    report = wb.bench(**flags, repeats=1, compare=False, settings=TINY_SETTINGS, progress=False)
    found, expected = plain(report.to_dict()), done.document()
    assert found["protocol"] == expected["protocol"]
    assert [(f["name"], f["unit"]) for f in found["figures"]] == [
        (f["name"], f["unit"]) for f in expected["figures"]
    ]
    assert found["warnings"] == expected["warnings"]


# --- refusals


def says(done: Done) -> str:
    """The sentence with which the program refuses."""
    assert done.out == "", done.out
    assert done.err.count("\n") == 1, done.err
    return done.err.removeprefix("error: ").strip()


def as_keywords(sentence: str, request: Mapping[str, Any]) -> str:
    """A sentence of the program as Python says it."""
    for name, value in request.items():
        flag = f"--{ {'start': 'from', 'settings': 'set'}.get(name, name).replace('_', '-') }"
        if value is True:
            sentence = sentence.replace(flag, f"{name} = True", 1)
        elif value is False:
            sentence = sentence.replace(f"--no-{name}", f"{name} = False")
        elif isinstance(value, Mapping):
            first = next(f"{option}={setting}" for option, setting in value.items())
            sentence = sentence.replace(f"{flag} {first}", f"{name} = {first!r}")
        else:
            sentence = sentence.replace(f"{flag} {value}", f"{name} = {value!r}")
    return (
        sentence.replace("--from noise", "start = 'noise'")
        .replace("--from data", "start = 'data'")
        .replace("--", "")
    )


REFUSED: Final[list[tuple[str, dict[str, Any], str]]] = [
    ("sample", {"every": 6, "chain": 5}, "is longer than the chain"),
    ("sample", {"start": "data", "levels": 20}, "without annealing"),
    ("sample", {"split": "train"}, "has no effect"),
    ("sample", {"start": "data", "num": 100000}, "test split of digits"),
    ("sample", {"start": "dta"}, "noise, data"),
    ("sample", {"levels": 6}, "6 annealing steps"),
    ("sample", {"readout": "median"}, "'median'"),
    ("sample", {"device": "tpu"}, "'tpu'"),
    ("sample", {"label": "7"}, "needs a class-conditional model"),
    ("sample", {"guidance": 2.0}, "needs a class-conditional model"),
    ("inpaint", {"keep": "top", "label": "7"}, "needs a class-conditional model"),
    ("evaluate", {"data": "digits", "settings": {"condition": "label"}}, "data.condition to 'none'"),
    ("inpaint", {"keep": "middle"}, "'middle'"),
    ("inpaint", {"keep": "top", "anneal": False, "extra": 0}, "steps to take"),
    ("inpaint", {"keep": "top", "data": "mog"}, "shape (2,)"),
    ("inpaint", {"keep": "top", "settings": {"noise": 1}}, "data given by name"),
    ("inpaint", {"keep": "top", "num": 100000}, "test split of digits"),
    ("evaluate", {"classifier": True}, "samples to compare"),
    ("evaluate", {"readout": "mean"}, "samples to compare"),
    ("evaluate", {"samples": 20}, "at least 40 for a standard error"),
    ("evaluate", {"samples": 100000}, "cannot be compared with"),
    ("evaluate", {"simulated": 3}, "at least 4 for a standard error"),
    ("evaluate", {"limit": 3}, "at least 4 examples for a standard error"),
    ("evaluate", {"levels": 6}, "6 annealing steps"),
    ("evaluate", {"data": "mog"}, "shape (2,)"),
    ("evaluate", {"data": "nowhere/at/all.npz"}, "No such path"),
    ("evaluate", {"settings": {"noise": 1}}, "data given by name"),
    ("evaluate", {"cache": __file__}, "a file of that name"),
    ("diagnose", {"diagnostic": "reversibilty"}, "did you mean"),
    ("diagnose", {"diagnostic": "reversibility", "data": "mog"}, "shape (2,)"),
    ("diagnose", {"diagnostic": "reversibility", "device": "cuda:x"}, "'cuda:x'"),
]


@pytest.mark.parametrize(("verb", "request_", "words"), REFUSED)
def test_refusals(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    request_: dict[str, Any],
    words: str,
) -> None:
    """One sentence, the same but for how options are written, and nothing is left."""
    monkeypatch.chdir(tmp_path)
    first = [request_["diagnostic"]] if "diagnostic" in request_ else []
    given = {name: value for name, value in request_.items() if name != "diagnostic"}
    done = walkback(verb, *first, checkpoint, *options(**given))
    assert words in says(done)
    with pytest.raises(WalkbackError) as refusal:
        getattr(wb, verb)(*first, model=checkpoint, **given, progress=False)
    assert str(refusal.value) == as_keywords(says(done), given)
    assert refusal.value.exit_code == done.code
    assert list(tmp_path.iterdir()) == []


TRAINING: Final[list[tuple[dict[str, Any], str]]] = [
    ({"operator": "gausian-mlp"}, "did you mean 'gaussian-mlp'"),
    ({"operator": "bernoulli-mlp", "data": "swiss-roll"}, "binary"),
    ({"data": "./nowhere"}, "No such path"),
    ({"steps": -1}, "training.steps"),
    ({"device": "tpu"}, "run.device"),
    ({"objective": "elbo", "settings": {"training.updates": "online"}}, "expected 'batch'"),
    ({"settings": {"evaluation.limit": 1}}, "at least 4 examples"),
    ({"settings": {"samples.readout": "mean@0"}}, "samples.readout"),
    ({"settings": {"trainning.steps": 1}}, "did you mean 'training'"),
    ({"recipe": "nope"}, "'nope'"),
]


@pytest.mark.parametrize("verb", ["run", "bench"])
@pytest.mark.parametrize(("request_", "words"), TRAINING)
def test_refusals_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, request_: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = walkback(verb, *options(**request_))
    assert words in says(done)
    with pytest.raises(WalkbackError) as refusal:
        {"run": wb.train, "bench": wb.bench}[verb](**request_, progress=False)
    assert str(refusal.value) == says(done)
    assert refusal.value.exit_code == done.code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["evaluate", "diagnose"])
@pytest.mark.parametrize(
    ("plot", "words"),
    [
        ("no/such/place.png", "directory does not exist"),
        ("plot.jpg", "ends in .png"),
        ("taken.png", "exists"),
    ],
)
def test_a_plot_that_cannot_be_written_is_refused_before_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, plot: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken.png").write_text("dear")
    before = tree(tmp_path)
    monkeypatch.setattr(restoring, "load_checkpoint", None)  # it is not even read
    first = ["reversibility"] if verb == "diagnose" else []
    done = walkback(verb, *first, checkpoint, "--plot", plot)
    assert (done.code, words in says(done)) == (2, True)
    assert tree(tmp_path) == before


def test_a_threshold_that_nothing_exceeds_is_refused_before_work(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "load_checkpoint", None)
    done = walkback("diagnose", "reversibility", checkpoint, "--threshold", "nan")
    assert (done.code, "expected a number" in says(done)) == (2, True)


def test_a_report_is_not_lost_by_a_wrong_threshold(checkpoint: Path) -> None:
    words = [f"--set={name}={value}" for name, value in QUICK.items()]
    done = walkback("diagnose", "reversibility", checkpoint, *words, "--threshold", "entropy=1", "--json")
    assert done.code == 2
    assert "it has entropy_production" in done.err
    assert done.document()["headline"] == "entropy_production"


# --- data that have changed since training


def test_changed_data_are_warned_of_where_states_are_drawn_and_refused_where_they_are_measured(
    altered: Callable[..., Path], tmp_path: Path
) -> None:
    model = altered(fingerprint="0" * 16)
    for verb, flags in (("sample", ["--from=data"]), ("inpaint", ["--keep=top", "--extra=1"])):
        done = walkback(verb, model, *flags, "--num=2", "--out", tmp_path / f"{verb}.png")
        assert done.code == 0
        assert "warning: digits has changed since training" in done.err
    with pytest.warns(UserWarning, match="digits has changed since training"):
        drawn = wb.sample(model, 2, start="data", progress=False)
    with pytest.warns(UserWarning, match="digits has changed since training"):
        made = wb.inpaint(model, "top", num=2, extra=1, progress=False)
    assert drawn.protocol["fingerprint"] == made.protocol["fingerprint"] != "0" * 16
    done = walkback("evaluate", model, *options(**FEW))
    with pytest.raises(ConfigurationError, match="other content") as refusal:
        wb.evaluate(model, **FEW, progress=False)
    assert str(refusal.value) == says(done)
    # Data that somebody names are meant.
    done = walkback("inpaint", model, "--keep=top", "--data=digits", "--extra=1", "--out", tmp_path / "b.png")
    assert (done.code, "has changed" in done.err) == (0, False)
    assert wb.evaluate(model, data="digits", **FEW, progress=False).protocol["data"] == "digits"


# --- directories of runs


@pytest.fixture
def unfinished(directory: Path, tmp_path: Path) -> Path:
    """A run that has not ended: its newest checkpoint is torn, the one before is whole."""
    place = tmp_path / "unfinished"
    shutil.copytree(directory, place)
    (place / "final.safetensors").unlink()
    torn = place / "checkpoints" / "step-6.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    return place


def both_ways(model: Path, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What each verb says of the checkpoint that it took: name, and walks; by the program and from Python."""
    found: list[tuple[Any, ...]] = []
    words = [f"--set={name}={value}" for name, value in QUICK.items()]
    for arguments in (
        ("sample", model, "--num=1", "--out", tmp_path / "a.npz", "--force"),
        ("inpaint", model, "--keep=top", "--num=1", "--extra=1", "--out", tmp_path / "b.npz", "--force"),
        ("evaluate", model, *options(**FEW)),
        ("diagnose", "reversibility", model, *words),
    ):
        done = walkback(*arguments, "--json")
        assert done.code == 0, done.err
        document = done.document()
        protocol = document.get("protocol", document)
        found.append((protocol["checkpoint"], protocol["progress"]["walks"]))
    for protocol in (
        wb.sample(model, 1, progress=False).protocol,
        wb.inpaint(model, "top", num=1, extra=1, progress=False).protocol,
        wb.evaluate(model, **FEW, progress=False).protocol,
        wb.diagnose("reversibility", model, progress=False, **QUICK).protocol,
    ):
        found.append((protocol["checkpoint"], protocol["progress"]["walks"]))
    loaded = wb.load(model)
    found.append((loaded.name, loaded.checkpoint.description.progress["walks"]))
    found.append((loaded.name, walkback("info", model, "--json").document()["progress"]["walks"]))
    return found


def test_the_directory_of_a_run_stands_for_its_model(directory: Path, tmp_path: Path) -> None:
    assert set(both_ways(directory, tmp_path)) == {("final.safetensors", 6)}
    assert wb.load(directory).directory == directory
    for arguments in (("info", directory), ("sample", directory, "--num=1", "--out", tmp_path / "c.npz")):
        assert f"Taking {directory / 'final.safetensors'}." in walkback(*arguments).err


def test_a_run_that_has_not_ended_gives_its_newest_whole_checkpoint(unfinished: Path, tmp_path: Path) -> None:
    assert set(both_ways(unfinished, tmp_path)) == {("step-3.safetensors", 3)}
    done = walkback("sample", unfinished, "--num=1", "--out", tmp_path / "c.npz")
    assert f"Taking {unfinished / 'checkpoints' / 'step-3.safetensors'}." in done.err


def test_a_directory_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    for verb in ("sample", "info", "evaluate"):
        done = walkback(verb, tmp_path)
        assert (done.code, "without a whole checkpoint" in says(done)) == (2, True)
    with pytest.raises(CheckpointError, match="without a whole checkpoint"):
        wb.load(tmp_path)


# --- old names


def test_old_names_mean_what_they_meant(checkpoint: Path, tmp_path: Path) -> None:
    done = walkback("sample", checkpoint, "--num=1", "--steps=12", "--out", tmp_path / "a.npz", "--json")
    assert (done.code, done.document()["annealing_steps"]) == (0, 12)
    assert done.err.splitlines()[0] == "warning: --steps has been renamed to --levels and will be removed."
    kept = tmp_path / "kept"
    done = walkback("evaluate", checkpoint, *options(**FEW), "--steps=12", "--keep", kept, "--json")
    assert done.document()["protocol"]["levels"] == 12
    assert {line for line in done.err.splitlines() if "warning: --" in line} == {
        "warning: --steps has been renamed to --levels and will be removed.",
        "warning: --keep has been renamed to --cache and will be removed.",
    }
    assert (kept / "protocol.json").exists()
    with pytest.warns(DeprecationWarning, match="steps has been renamed to levels"):
        assert wb.sample(checkpoint, 1, steps=12, progress=False).protocol["annealing_steps"] == 12
    with pytest.warns(DeprecationWarning, match="will be removed") as told:
        wb.evaluate(checkpoint, **FEW, steps=12, keep=kept, progress=False)
    assert {str(warning.message).partition(" ")[0] for warning in told} == {"steps", "keep"}
    with pytest.warns(DeprecationWarning, match="keep has been renamed to cache"):
        wb.diagnose("reversibility", checkpoint, keep=tmp_path / "pieces", progress=False, **QUICK)
    assert (tmp_path / "pieces" / "protocol.json").exists()


def test_an_old_name_beside_the_new_one_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    done = walkback("sample", checkpoint, "--steps=12", "--levels=12", "--out", tmp_path / "a.npz")
    assert (done.code, "is the old name of" in says(done)) == (2, True)
    with pytest.raises(ConfigurationError, match="is the old name of"):
        wb.evaluate(checkpoint, cache=tmp_path / "a", keep=tmp_path / "b")


@pytest.mark.parametrize("command", ["sample", "evaluate", "diagnose"])
def test_old_names_are_not_shown(command: str) -> None:
    text = walkback(command, "--help").out
    assert not {"--steps", "--keep"} & set(text.split())


# --- what only Python can give


def test_states_and_masks_that_callers_give_are_said_to_be_theirs(checkpoint: Path) -> None:
    states = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = wb.sample(checkpoint, 2, start=states, progress=False)
    assert (len(drawn), drawn.protocol["from"]) == (2, "states")
    assert drawn.states.equal(states[:2])
    with pytest.raises(ConfigurationError, match="num = 4 is more than the 3 states"):
        wb.sample(checkpoint, 4, start=states, progress=False)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    made = wb.inpaint(checkpoint, mask, known=states, extra=1, progress=False)
    assert (made.protocol["keep"], made.protocol["from"]) == ("mask", "states")
    assert "data" not in made.protocol
    own = wb.inpaint(checkpoint, "top", data=torch.rand(40, 1, 8, 8), num=2, extra=1, progress=False)
    assert own.protocol["data"] == "tensor"


def test_a_picture_says_by_the_program_what_it_says_from_python(checkpoint: Path, tmp_path: Path) -> None:
    drawn = wb.sample(checkpoint, 4, progress=False)
    drawn.save(tmp_path / "mine.png")
    assert walkback("sample", checkpoint, "--num=4", "--out", tmp_path / "theirs.png").code == 0
    texts = []
    for name in ("mine", "theirs"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            texts.append(json.loads(picture.info["walkback"]))
    assert texts[0] == texts[1] == plain(drawn.protocol)
    assert texts[0]["progress"] == dict(read_description(checkpoint).progress)
