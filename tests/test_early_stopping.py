"""Early stopping: when it stops, which model it keeps, and that interruptions change neither."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.program import TINY, Done, digest, elsewhere, figures, records, run, tree, walkback

from walkback.errors import ConfigurationError
from walkback.storage.checkpoint import Checkpoint, TrainingState, load_checkpoint
from walkback.storage.description import describe
from walkback.storage.store import CheckpointStore
from walkback.training.stopping import EarlyStopping

STEPS = 40
WORSE = (
    # A rate that grows and grows: after some good validations come bad ones, as the tests see from the metrics.
    *("--set", "training.lr=10", "--set", "training.warmup=1000", "--set", "training.lr_schedule=constant"),
    *(
        "--set",
        "training.ema=0.9",
        "--set",
        "training.validate_every=2",
        "--set",
        "training.checkpoint_every=4",
    ),
    *("--set", "training.log_every=100", "--set", "training.patience=3", "--set", "schedule.n1=0"),
)


def validations(directory: Path) -> dict[int, float]:
    """The negative bound at each validation, by step."""
    return {line["step"]: line["validation_nats"] for line in records(directory) if "validation_nats" in line}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A run that stops early, never interrupted."""
    directory = tmp_path_factory.mktemp("whole") / "a"
    done = run(directory, *WORSE, "--json", steps=STEPS)
    assert done.code == 0, done.err
    return directory, done


def test_the_rule_by_hand() -> None:
    rule = EarlyStopping(2)
    seen = []
    for step, nats in enumerate([5.0, 4.0, 4.0, 3.0, 3.5, 3.0], start=1):
        seen.append((rule.observe(step, nats), rule.best_step, rule.exhausted))
    assert seen == [
        (True, 1, False),
        (True, 2, False),
        (False, 2, False),  # equal is no better
        (True, 4, False),
        (False, 4, False),
        (False, 4, True),
    ]


def test_without_patience_nothing_is_kept() -> None:
    rule = EarlyStopping(0)
    assert [rule.observe(step, float(step)) for step in range(5)] == [False] * 5
    assert (rule.best_step, rule.exhausted, rule.state()) == (None, False, {})


def test_a_rule_goes_on_from_its_state() -> None:
    rule, again = EarlyStopping(2), EarlyStopping(2)
    rule.observe(1, 0.1 + 0.2)
    rule.observe(2, 1.0)
    again.restore(json.loads(json.dumps(rule.state())))
    assert again.state() == rule.state()
    assert not again.observe(3, 0.1 + 0.2)
    assert again.exhausted
    with pytest.raises(ConfigurationError, match="early_stopping = 'no'"):
        again.restore({"early_stopping": "no"})


# --- runs


def test_it_stops_after_as_many_validations_without_a_better_bound(whole: tuple[Path, Done]) -> None:
    directory, done = whole
    bounds = validations(directory)
    best, last = min(bounds, key=lambda step: bounds[step]), max(bounds)
    assert last == best + 3 * 2 < STEPS
    assert [line["best_step"] for line in records(directory) if line["step"] == last] == [best]
    assert (done.document()["walks"], done.document()["best_step"]) == (last, best)
    assert f"The validation bound was best after {best} walks" in done.err


def test_the_best_model_is_what_remains(whole: tuple[Path, Done]) -> None:
    """The final file is the checkpoint that a run without patience has at the best step."""
    directory, done = whole
    best = done.document()["best_step"]
    assert load_checkpoint(directory / "final.safetensors").description.progress["walks"] == best
    assert digest(directory / "final.safetensors") == digest(
        directory / "checkpoints" / f"best-{best}.safetensors"
    )
    shorter = directory.parent / "shorter"
    assert run(shorter, *WORSE, "--set", "training.patience=0", steps=best).code == 0
    ours, theirs = (load_checkpoint(path / "final.safetensors").tensors for path in (directory, shorter))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []
    # Evaluated and drawn with it, too.
    assert tree(directory)["samples/annealed.png"] == tree(shorter)["samples/annealed.png"]
    assert tree(directory)["samples/chain.png"] == tree(shorter)["samples/chain.png"]


def test_without_stopping_the_best_of_all_is_kept(tmp_path: Path) -> None:
    done = run(tmp_path / "a", *WORSE, "--set", "training.patience=100", "--json", steps=16)
    bounds = validations(tmp_path / "a")
    best = min(bounds, key=lambda step: bounds[step])
    assert (done.document()["walks"], done.document()["best_step"]) == (16, best)
    assert best < 16
    assert load_checkpoint(tmp_path / "a" / "final.safetensors").description.progress["walks"] == best


def cut(directory: Path, step: int) -> None:
    """Leave what there was right after the checkpoint of `step`, and what a kill soon after may have left."""
    for path in (directory / "checkpoints").iterdir():
        kind, _, rest = path.name.partition("-")
        if kind == "step" and int(rest.partition(".")[0]) > step:
            path.unlink()
    (directory / "final.safetensors").unlink()
    (directory / "checkpoints" / f"best-{step + 1}.safetensors").write_bytes(b"half a file")


@pytest.mark.parametrize("step", [4, 16])
def test_interrupted_and_resumed_it_ends_with_the_same(
    whole: tuple[Path, Done], tmp_path: Path, step: int
) -> None:
    kept = run(tmp_path / "a", *WORSE, "--set", "training.keep_checkpoints=100", steps=STEPS)
    assert kept.code == 0
    cut(tmp_path / "a", step)
    assert walkback("run", "--resume", tmp_path / "a").code == 0
    assert figures(tmp_path / "a") == figures(whole[0])
    ours, theirs = (load_checkpoint(path / "final.safetensors") for path in (tmp_path / "a", whole[0]))
    assert ours.description.progress == theirs.description.progress
    assert [name for name in ours.tensors if not ours.tensors[name].equal(theirs.tensors[name])] == []
    assert not (tmp_path / "a" / "checkpoints" / f"best-{step + 1}.safetensors").exists()


def test_a_run_that_has_stopped_stays_so_until_it_gets_more_patience(
    whole: tuple[Path, Done], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path / "a")
    before = tree(tmp_path / "a")
    del before[".lock"]
    assert walkback("run", "--resume", tmp_path / "a").code == 0
    assert before.items() <= tree(tmp_path / "a").items()
    done = walkback("run", "--resume", tmp_path / "a", "--set", "training.patience=4", "--json")
    assert done.document()["walks"] == whole[1].document()["walks"] + 2


def test_several_processes_agree(tmp_path: Path) -> None:
    done = elsewhere(
        "run", *TINY, *WORSE, "--steps", str(STEPS), "--nproc", "2", "--out", tmp_path / "a", "--json"
    )
    assert done.code == 0, done.err
    bounds = validations(tmp_path / "a")
    assert done.document()["walks"] == max(bounds) < STEPS
    assert done.document()["best_step"] == min(bounds, key=lambda step: bounds[step])


# --- the store


def parts(walks: int) -> tuple[Checkpoint, TrainingState]:
    """A model and a training state that are those of a step."""
    description = describe(config={}, components={}, data={}, progress={"walks": walks}, weights="raw")
    return Checkpoint(description, {"operator.w": torch.full((2,), walks)}), TrainingState({}, {})


def test_the_best_stays_while_a_step_that_is_kept_names_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    left = []
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 5), (6, 5)):
        if step == best:
            store.save_best(step, parts(step)[0])
        store.save(step, *parts(step), best)
        store.prune(2)
        left.append(sorted(int(path.stem.removeprefix("best-")) for path in tmp_path.glob("best-*")))
    assert left == [[1], [1, 2], [2], [2], [2, 5], [5]]


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_a_lost_best_does_not_condemn_its_step(tmp_path: Path, harm: str) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    store.directory.mkdir()
    store.save(1, *parts(1))
    store.save_best(2, parts(2)[0])
    store.save(3, *parts(3), 2)
    saved, warnings = store.latest()
    assert saved is not None
    assert (saved.step, warnings, store.lost_best(saved)) == (3, [], None)
    content = store.best(2).read_bytes()
    if harm == "missing":
        store.best(2).unlink()
    else:
        store.best(2).write_bytes(b"another file")
    assert store.latest() == (saved, [])
    assert "best-2.safetensors" in (store.lost_best(saved) or "")
    (tmp_path / "final.safetensors").write_bytes(content)  # the same model elsewhere is as good
    assert store.lost_best(saved) is None
    assert store.best(2).read_bytes() == content


@pytest.mark.parametrize("text", ["[]", '{"best": "../../x"}', '{"best": true}', "{" * 100_000, "1"])
def test_a_forged_manifest_is_no_whole_step(tmp_path: Path, text: str) -> None:
    store = CheckpointStore(tmp_path)
    saved = store.save(1, *parts(1))
    saved.manifest.write_text(text)
    assert store.latest()[0] is None
    store.prune(1)
