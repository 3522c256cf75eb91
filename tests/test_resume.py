"""Stopped in any way and resumed, a run ends with the very files of one that was never stopped.

Kills and signals at random moments are in `tests/reliability/test_kills.py`.
"""

from __future__ import annotations

import re
import shutil
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.program import (
    TINY,
    digest,
    elsewhere,
    figures,
    finish,
    run,
    running,
    tree,
    wait_until,
    walkback,
)

Install = Callable[..., Path]

STEPS = 48
WALKS = (*TINY, "--steps", str(STEPS))
SAVED = (
    *("--set", "training.checkpoint_every=4", "--set", "training.log_every=1"),
    *("--set", "training.validate_every=20", "--set", "training.sample_every=30"),
)
GATE = """
    import time
    from pathlib import Path

    from walkback.loggers import Logger

    class Gate(Logger):
        def open(self, directory, config):
            self.reached = Path(directory) / "reached"

        def log_picture(self, step, name, png): ...

        def log(self, step, figures):
            if step == 6:
                self.reached.touch()
                while self.reached.exists():
                    time.sleep(0.01)

        def close(self): ...

    @hookimpl
    def walkback_loggers():
        yield Component("gate", "gate_main:Gate", "Waits in walk 6 until somebody has seen it")
"""

SAME = (
    "final.safetensors",
    "config.toml",
    "samples/annealed.png",
    "samples/chain.png",
    "samples/walk.png",
    "samples/step-30.png",
)
"""Files that do not depend on how often a run was stopped."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped, in a process of its own."""
    directory = tmp_path_factory.mktemp("whole") / "a"
    done = elsewhere("run", *WALKS, *SAVED, "--out", directory)
    assert done.code == 0, done.err
    return directory


def assert_equal_runs(resumed: Path, whole: Path) -> None:
    """The same files, and the same metrics: no step twice, none missing."""
    found, expected = tree(resumed), tree(whole)
    assert {name: found.get(name) for name in SAME} == {name: expected[name] for name in SAME}
    assert figures(resumed) == figures(whole)
    # Stopping leaves a checkpoint at a step of its own: of those before the last, it may be another one.
    last = re.compile(rf"(?!checkpoints/step-)|checkpoints/step-{STEPS}\.")
    assert sorted(filter(last.match, found)) == sorted(filter(last.match, expected))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_walk_with_a_checkpoint_and_a_way_to_go_on(
    install: Install, whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    directory, site = tmp_path / "a", install("gate", GATE)
    options = ("--logger", "gate", "--out", directory)
    with running("run", *WALKS, *SAVED, *options, PYTHONPATH=str(site)) as process:
        wait_until((directory / "reached").exists, process)
        process.send_signal(number)
        (directory / "reached").unlink()
        done = finish(process)
    assert (done.code, done.out) == (128 + number, ""), done.err
    assert "warning: stopping after this walk; once more to abort." in done.err
    assert f"Stopped after 6 walks; go on with walkback run --resume {directory}\n" in done.err
    names = [path.name for path in sorted((directory / "checkpoints").glob("step-6*"))]
    assert names == ["step-6.json", "step-6.safetensors", "step-6.state.safetensors"]
    assert not (directory / "final.safetensors").exists()
    assert walkback("run", "--resume", directory, "--set", "loggers.gate=false").code == 0
    assert_equal_runs(directory, whole)


# --- going on


@pytest.fixture
def halfway(tmp_path: Path) -> Path:
    """A run of 12 walks whose files after walk 6 are gone, as after a kill; the whole one is beside it."""
    saved = (
        *("--set", "training.checkpoint_every=3", "--set", "training.keep_checkpoints=4"),
        *("--set", "training.log_every=6"),
    )
    assert run(tmp_path / "whole", *saved, steps=12).code == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    for path in [
        *(tmp_path / "half" / "checkpoints").glob("step-9.*"),
        tmp_path / "half" / "final.safetensors",
    ]:
        path.unlink()
    for path in (tmp_path / "half" / "checkpoints").glob("step-12.*"):
        path.unlink()
    return tmp_path / "half"


@pytest.mark.parametrize("end", [".safetensors", ".state.safetensors", ".json"])
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(halfway: Path, end: str) -> None:
    damaged = halfway / "checkpoints" / f"step-6{end}"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    done = walkback("run", "--resume", halfway)
    assert done.code == 0
    assert "Passed over the checkpoint of step 6" in done.err
    assert digest(halfway / "final.safetensors") == digest(halfway.parent / "whole" / "final.safetensors")


def test_without_any_whole_checkpoint_a_run_is_refused_and_untouched(halfway: Path) -> None:
    for path in (halfway / "checkpoints").glob("*.json"):
        path.write_text("{}")
    before = tree(halfway)
    done = walkback("run", "--resume", halfway)
    assert done.code == 2
    assert "without a whole checkpoint" in done.err
    assert tree(halfway) == before


def test_a_run_resumed_in_this_process_equals_the_whole(halfway: Path) -> None:
    assert walkback("run", "--resume", halfway).code == 0
    assert_equal_runs_of_twelve(halfway)


def assert_equal_runs_of_twelve(directory: Path) -> None:
    """The directory equals the whole run beside it."""
    whole = directory.parent / "whole"
    assert digest(directory / "final.safetensors") == digest(whole / "final.safetensors")
    assert figures(directory) == figures(whole)


def test_a_finished_run_resumed_stays_as_it_is(halfway: Path) -> None:
    whole = halfway.parent / "whole"
    before = tree(whole)
    del before[".lock"]  # names the process
    assert walkback("run", "--resume", whole).code == 0
    assert before.items() <= tree(whole).items()


def test_more_steps_go_on_from_the_last(halfway: Path) -> None:
    whole = halfway.parent / "whole"
    done = walkback("run", "--resume", whole, "--steps", "15", "--json")
    assert (done.code, done.document()["walks"]) == (0, 15)
    steps = [line["step"] for line in figures(whole) if "loss" in line]
    assert steps == [1, 6, 12, 15]


def test_fewer_steps_than_were_taken_are_refused(halfway: Path) -> None:
    whole = halfway.parent / "whole"
    before = tree(whole)
    done = walkback("run", "--resume", whole, "--steps", "11")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1] == (
        f"error: The run in {whole} has already taken 12 walks, more than the 11 asked for: ask for 12."
    )
    assert {**before, ".lock": ""} == {**tree(whole), ".lock": ""}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--set", "operator.network.hidden=32"), ["operator.network.hidden = 32", "trained with 16"]),
        (("--set", "operator.sigma=0.5"), ["operator.sigma = 0.5"]),
        (("--operator", "bernoulli-mlp"), ["operator.name = 'bernoulli-mlp'", "trained with 'gaussian-mlp'"]),
        (("--data", "mog"), ["data.name = 'mog'", "trained with 'digits'"]),
        (("--set", "schedule.n1=1"), ["schedule.n1 = 1", "trained with 3"]),
        (("--seed", "9"), ["run.seed = 9", "trained with 0"]),
    ],
)
def test_what_the_weights_depend_on_cannot_be_changed(
    halfway: Path, change: tuple[str, ...], words: list[str]
) -> None:
    before = tree(halfway)
    done = walkback("run", "--resume", halfway, *change)
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(r"error: Got [^\n]+ start another run with --out\.\n", done.err)
    assert [word for word in words if word not in done.err] == []
    assert tree(halfway) == before


def test_repeating_what_the_run_has_is_no_change(halfway: Path) -> None:
    same = ("--operator", "gaussian-mlp", "--data", "digits", "--seed", "0")
    same += ("--set", "operator.network.hidden=16")
    assert walkback("run", "--resume", halfway, *same).code == 0
    assert_equal_runs_of_twelve(halfway)


def test_auto_takes_the_newest_that_fits_or_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    auto = ("run", *TINY, "--resume", "auto")
    places = []
    for options in (
        ("--steps", "2"),
        ("--steps", "4"),
        ("--data", "mog", "--steps", "2"),
        ("--steps", "6", "--out", "named"),
        ("--steps", "7", "--out", "named"),
    ):
        done = walkback(*auto, "--json", *options)
        assert done.code == 0, done.err
        places.append((done.document()["directory"], done.document()["walks"]))
    digits, points = "runs/gaussian-mlp-digits", "runs/gaussian-mlp-mog"
    assert places == [(digits, 2), (digits, 4), (points, 2), ("named", 6), ("named", 7)]


def test_a_run_killed_before_it_wrote_anything_can_be_started_again(tmp_path: Path) -> None:
    for name in ("checkpoints", "samples"):
        (tmp_path / "a" / name).mkdir(parents=True)
    (tmp_path / "a" / ".lock").write_text("1\n")
    (tmp_path / "a" / ".walkback-0123.tmp").write_text("")
    done = run(tmp_path / "a", "--resume", "auto", steps=1)
    assert done.code == 0, done.err
    assert not (tmp_path / "a" / ".walkback-0123.tmp").exists()


def test_the_recipe_that_a_run_came_from_survives_resuming(halfway: Path) -> None:
    assert walkback("run", "--resume", halfway).code == 0
    assert tomllib.loads((halfway / "config.toml").read_text())["recipe"] == "digits"


# --- one trainer at a time


def test_a_second_trainer_is_refused_and_the_lock_of_a_killed_one_is_free(tmp_path: Path) -> None:
    directory = tmp_path / "a"
    options = ("--steps", "1000000", "--set", "training.checkpoint_every=5")
    with running("run", *TINY, *options, "--out", directory) as process:
        wait_until(lambda: list((directory / "checkpoints").glob("*.json")), process)
        before = digest(directory / "config.toml")
        second = walkback("run", "--resume", directory, "--steps", "1")
        assert (second.code, second.out) == (2, "")
        lines = [line for line in second.err.splitlines() if line.startswith("error")]
        assert lines == [
            f"error: Got the run directory {directory}, in which process {process.pid} is working; "
            "wait for it, stop it, or choose another --out."
        ]
        assert process.poll() is None
        assert digest(directory / "config.toml") == before
        process.kill()
    walks = max(int(path.stem.removeprefix("step-")) for path in (directory / "checkpoints").glob("*.json"))
    done = walkback("run", "--resume", directory, "--steps", str(walks + 1), "--json")
    assert (done.code, done.document()["walks"]) == (0, walks + 1), done.err
