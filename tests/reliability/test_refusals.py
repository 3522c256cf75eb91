"""What cannot work is refused before any work: one sentence, the option by name, exit code 2, nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.program import TINY, run, walkback

import walkback as wb
from walkback.errors import ConfigurationError

Install = Callable[..., Path]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "a"
    assert run(directory, steps=2).code == 0
    return directory / "final.safetensors"


def refused(*arguments: str | Path, words: str, code: int = 2) -> None:
    done = walkback(*arguments)
    assert done.code == code, (done.code, done.err)
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.err
    assert words in errors[0]
    assert "Traceback" not in done.err
    assert len(errors[0]) < 400
    assert done.out == ""


SETTINGS = [
    ("operator.network.hidden=" + "9" * 23, "expected an integer of at most 64 bits"),
    (
        "operator.network.hidden=9999999999",
        "operator.network.hidden: got 1e+10, expected an integer of at most",
    ),
    ("schedule.max_temperature=1e300", "schedule.max_temperature: got 1e+300, expected a number of at most"),
    ("prior.scale=1e300", "prior.scale: got 1e+300"),
    ("operator.sigma=1e300", "operator.sigma: got 1e+300"),
    ("operator.sigma=1e-300", "operator.sigma: got 1e-300, expected 0 or a number of at least 1e-18"),
    ("data.noise=1e300", "data.noise: got 1e+300"),
    ("training.lr=1e300", "training.lr: got 1e+300"),
    ("training.betas=[1e-300, 0.9]", "training.betas[0]: got 1e-300"),
    (
        "training.batch_size=10000000000",
        "training.batch_size: got 1e+10, expected an integer of at most 1,000,000,000",
    ),
    ("training.batch_size=1000000000", "training.batch_size = 1000000000, whose states alone need 256 GB"),
    ("samples.num=10000000000", "samples.num: got 1e+10"),
    ("samples.num=1000000000", "samples.num = 1000000000, whose states alone need 256 GB"),
    ("run.threads=99999999999", "run.threads: got 99999999999, expected a number less than or equal to 1024"),
    ("run.nproc=100000", "run.nproc = 100000, expected at most"),
    ("data.bins=0", "data.bins"),
]


@pytest.mark.parametrize(("setting", "words"), SETTINGS, ids=[setting for setting, _ in SETTINGS])
def test_absurd_numbers(setting: str, words: str, tmp_path: Path) -> None:
    refused("run", *TINY, "--set", setting, "--out", tmp_path / "a", words=words)
    assert list(tmp_path.iterdir()) == []
    done = walkback("run", *TINY, "--set", setting, "--dry-run")
    assert done.code == 2


def test_a_large_seed_is_a_seed(tmp_path: Path) -> None:
    assert run(tmp_path / "a", "--seed", str(2**62), steps=0).code == 0


def test_a_network_without_end_is_refused(tmp_path: Path) -> None:
    """Of a billion layers the first ones take no memory to speak of; no checkpoint holds as many."""
    sizes = ("--set", "operator.network.depth=1000000000", "--set", "operator.network.hidden=1")
    refused(*("run", *TINY, *sizes, "--out", tmp_path / "a"), words="Got a model of more than 65,536 layers")
    assert list(tmp_path.iterdir()) == []


def test_an_operator_that_does_not_fit_is_not_the_fault_of_a_plugin(tmp_path: Path) -> None:
    refused(
        *("run", *TINY, "--set", "operator.network.hidden=900000", "--out", tmp_path / "a"),
        words="Got too little memory",
        code=1,
    )
    assert list(tmp_path.iterdir()) == []


def test_batches_of_one_example_and_norms_of_batches(tmp_path: Path) -> None:
    options = ("--data", "digits", "--steps", "1", "--batch-size", "1")
    refused(
        *("run", "--operator", "gaussian-conv", *options, "--out", tmp_path / "a"),
        words="Got training.batch_size = 1, which the operator 'gaussian-conv' cannot be trained with",
    )
    assert list(tmp_path.iterdir()) == []
    assert run(tmp_path / "a", "--batch-size", "1", steps=1).code == 0  # no such norm


WEIGHTLESS = """
    import torch
    from walkback.kernels import NormalKernel
    from walkback.operators import Conditional, TransitionOperator

    class Step(Conditional):
        def __init__(self, kernel): self.kernel = kernel
        def cooling(self, level): return self.kernel
        heating = cooling

    class Weightless(TransitionOperator):
        max_temperature = 4.0
        def __init__(self, space): super().__init__()
        def forward(self, state, level, context=None):
            return Step(NormalKernel(state, torch.ones_like(state)))

    @hookimpl
    def walkback_operators():
        parts = {"prior": "gaussian", "schedule": "geometric", "process": "tied", "objective": "walkback"}
        yield Component("weightless", "weightless_main:Weightless", "", {k: {"name": v} for k, v in parts.items()})
"""


def test_an_operator_without_weights(install: Install, tmp_path: Path) -> None:
    install("weightless", WEIGHTLESS)
    refused(
        *("run", "--operator", "weightless", "--data", "swiss-roll", "--out", tmp_path / "a"),
        words="the operator 'weightless' without trainable weights",
    )
    assert not (tmp_path / "a").exists()


LINES: list[tuple[tuple[str, ...], str]] = [
    (
        ("sample", "CKPT", "--num", "10000000000", "--out", "OUT"),
        "--num 10000000000, expected at most 1,000,000,000",
    ),
    (
        ("sample", "CKPT", "--num", "1000000000", "--out", "OUT"),
        "--num 1000000000, whose states alone need 256 GB",
    ),
    (
        ("sample", "CKPT", "--levels", "1000000000", "--out", "OUT"),
        "1,000,000,000 annealing levels, expected at most 100,000",
    ),
    (("sample", "CKPT", "--chain", "10000000000", "--out", "OUT"), "--chain 10000000000, expected at most"),
    (
        ("evaluate", "CKPT", "--levels", "1000000000"),
        "1,000,000,000 annealing levels, expected at most 100,000",
    ),
    (("evaluate", "CKPT", "--paths", "1000000000"), "--paths 1000000000, whose states alone need"),
    (("evaluate", "CKPT", "--limit", "1"), "--limit"),
    (("evaluate", "CKPT", "--simulated", "2"), "--simulated 2"),
    (("evaluate", "CKPT", "--plot", "NOPE/x.png"), "whose directory does not exist"),
    (("diagnose", "reversibility", "CKPT", "--set", "chains=1"), "chains"),
    (("diagnose", "mixing", "CKPT", "--set", "chains=1"), "chains"),
    (("diagnose", "stationarity", "CKPT", "--set", "chains=1"), "chains"),
    (("diagnose", "thermodynamics", "CKPT", "--set", "examples=1"), "examples"),
    (("diagnose", "thermodynamics", "CKPT", "--set", "paths=1000000000"), "--set paths=1000000000, whose"),
    (("diagnose", "reversibility", "CKPT", "--set", "chains=99999999999"), "diagnostic.chains: got 1e+11"),
    (
        ("inpaint", "CKPT", "--keep", "top", "--num", "99999999999", "--out", "OUT"),
        "--num 99999999999, expected at most",
    ),
    (("inpaint", "CKPT", "--keep", "top", "--extra", "99999999999", "--out", "OUT"), "--extra 99999999999"),
]


@pytest.mark.parametrize(("line", "words"), LINES, ids=[" ".join(line[:4]) for line, _ in LINES])
def test_numbers_of_other_commands(
    line: tuple[str, ...], words: str, checkpoint: Path, tmp_path: Path
) -> None:
    places = {
        "CKPT": str(checkpoint),
        "OUT": str(tmp_path / "out.npz"),
        "NOPE/x.png": str(tmp_path / "nope/x.png"),
    }
    if line[0] == "inpaint":
        places["OUT"] = str(tmp_path / "out.png")
    refused(*(places.get(word, word) for word in line), words=words)
    assert list(tmp_path.iterdir()) == []


WRITERS: list[tuple[str, ...]] = [
    ("run", *TINY, "--steps", "0", "--out", "PATH"),
    ("sample", "CKPT", "--out", "PATH.png"),
    ("inpaint", "CKPT", "--keep", "top", "--out", "PATH.png"),
    ("evaluate", "CKPT", "--plot", "PATH.png"),
    ("diagnose", "mixing", "CKPT", "--plot", "PATH.png"),
]


@pytest.mark.parametrize("line", WRITERS, ids=lambda line: line[0])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("long", "its name is too long"),
        ("dangling", "is a link to"),
        ("circle", "a link that leads to itself"),
    ],
)
def test_paths_that_cannot_be_written_to(
    line: tuple[str, ...], path: str, words: str, checkpoint: Path, tmp_path: Path
) -> None:
    for suffix in ("", ".png"):
        (tmp_path / f"dangling{suffix}").symlink_to(tmp_path / "nowhere")
        (tmp_path / f"circle{suffix}").symlink_to(tmp_path / f"circle{suffix}")
    before = sorted(entry.name for entry in tmp_path.iterdir())
    place = tmp_path / ("x" * 300 if path == "long" else path)
    refused(*(str(checkpoint) if w == "CKPT" else w.replace("PATH", str(place)) for w in line), words=words)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="the superuser alone can become another user")
@pytest.mark.parametrize("line", WRITERS, ids=lambda line: line[0])
def test_directories_of_another_user(line: tuple[str, ...], checkpoint: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for parent in (tmp_path, *tmp_path.parents):
        parent.chmod(parent.stat().st_mode | 0o055)
    for parent in checkpoint.parents:
        parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        refused(
            *(str(checkpoint) if w == "CKPT" else w.replace("PATH", str(private / "a")) for w in line),
            words="there is no permission to write there",
        )
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    "line",
    [
        ("run", "--out", ""),
        ("run", "--out="),
        ("run", "--resume", ""),
        ("run", "--recipe", ""),
        ("run", "--data", ""),
        ("sample", "CKPT", "--out", ""),
        ("sample", ""),
        ("evaluate", "CKPT", "--cache", ""),
        ("evaluate", "CKPT", "--plot="),
        ("info", ""),
        ("data", "prepare", ""),
    ],
    ids=" ".join,
)
def test_an_empty_argument_is_not_the_current_directory(
    line: tuple[str, ...], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(
        *(str(checkpoint) if word == "CKPT" else word for word in line),
        words="(an empty text), expected a value",
    )
    assert list(tmp_path.iterdir()) == []


def test_an_empty_path_in_python(checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match="an empty path"):
        wb.train(steps=0, out="")
    with pytest.raises(ConfigurationError, match="an empty path"):
        wb.evaluate(wb.load(checkpoint), cache="", limit=10)
