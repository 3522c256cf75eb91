"""`benchmarks/gpu`: packed in one folder, everything runs to its end on a bare machine that has no network."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement
from PIL import Image
from sklearn.datasets import load_digits
from tests.program import ENVIRONMENT

ROOT = Path(__file__).parents[1]
GPU = ROOT / "benchmarks" / "gpu"
USUAL = ("torch", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "pillow", "pip")
"""What the bare machine has, with what that needs."""

NO_NETWORK = {
    "PIP_NO_INDEX": "1",
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
}
PATIENCE = 1500
"""Seconds; an idle core needs little more than one minute."""


pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror whose MNIST and CIFAR-10 are digits of scikit-learn, 100 to train on."""
    place = tmp_path_factory.mktemp("mirror")
    for path, column, side, mode in (
        ("ylecun/mnist/mnist", "image", 28, "L"),
        ("uoft-cs/cifar10/plain_text", "img", 32, "RGB"),
    ):
        for split, rows in (("train", slice(0, 100)), ("test", slice(100, 180))):
            write(place / path / f"{split}-00000-of-00001.parquet", column, side, mode, rows)
    return place


def write(target: Path, column: str, side: int, mode: str, rows: slice) -> None:
    """One file of images as the hub has them, twenty a row group."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    images = []
    for pixels in digits.images[rows]:
        buffer = io.BytesIO()
        picture = Image.fromarray((pixels * 15.9).astype(np.uint8)).resize((side, side)).convert(mode)
        picture.save(buffer, "png")
        images.append({"bytes": buffer.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    labels = pa.array(digits.target[rows].tolist(), pa.int64())
    table = pa.table({column: pa.array(images, kind), "label": labels})
    pq.write_table(table, target, row_group_size=20)


def run_pack(*options: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Call `pack.sh`."""
    return subprocess.run(
        ["sh", str(GPU / "pack.sh"), *map(str, options)],
        env={**ENVIRONMENT, **NO_NETWORK, "PYTHON": sys.executable, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.fixture(scope="module")
def packed(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed folder for this Python, made from what is installed here."""
    if not GPU.is_dir():
        pytest.skip("there are no benchmarks here")
    place = tmp_path_factory.mktemp("packed") / "gpu"
    done = run_pack("--installed", "--out", place, "--data", mirror)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a machine that has the usual scientific packages and nothing else."""
    place = tmp_path_factory.mktemp("bare")
    venv.create(place / "env", with_pip=False, symlinks=True)
    (site,) = (place / "env" / "lib").glob("python*/site-packages")
    for name in sorted(closure(USUAL)):
        found = distribution(name)
        tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))))
    return place / "env" / "bin" / "python"


def closure(names: Sequence[str]) -> set[str]:
    """These distributions and all that they need."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        lines = [Requirement(line) for line in distribution(name).requires or ()]
        pending += [line.name for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})]
    return found


def without_network() -> list[str]:
    """A command before another one that takes the network away from it, where this system allows that."""
    line = ["unshare", "--net", "--map-root-user"]
    if shutil.which("unshare") is None:
        return []
    return line if subprocess.run([*line, "true"], capture_output=True, check=False).returncode == 0 else []


def run_session(python: Path, packed: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Call `run.sh` without a network."""
    return subprocess.run(
        [*without_network(), "sh", str(GPU / "run.sh"), *map(str, options)],
        env={
            **{name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"},
            **NO_NETWORK,
            "PYTHON": str(python),
            "WALKBACK_PACKED": str(packed),
        },
        cwd=packed,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def test_the_bare_machine_lacks_what_is_packed(bare: Path) -> None:
    code = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    names = "walkback datasets pydantic tomli_w dill multiprocess typer pytest torch"
    done = subprocess.run([bare, "-c", code, *names.split()], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['torch']"


def test_a_tiny_session_runs_to_its_end_from_the_packed_folder(
    bare: Path, packed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before = sorted(ROOT.iterdir())
    done = run_session(bare, packed, out, "--tiny", "--minutes", "0.02", "--budget", "25")
    log = (out / "log.txt").read_text() if (out / "log.txt").is_file() else ""
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log}"
    assert sorted(ROOT.iterdir()) == before
    files = sorted(path.name for path in out.iterdir())
    expected = "cifar10.tar log.txt mnist.tar profile.txt results.json results.md tests.txt"
    assert files == expected.split()
    results = json.loads((out / "results.json").read_text())
    assert results["tests"]["decided"]["passed"] > 100
    assert results["tests"]["failed"] == []
    assert all(value > 0 for value in results["bench"]["ceilings"].values())
    assert [run["choice"] for run in results["bench"]["runs"] if run.get("walk", 0) > 0] == [
        *("unet eager bf16", "mlp eager TF32", "conv eager fp32"),
    ]
    for recipe in ("mnist", "cifar10"):
        assert results["train"][recipe]["walks"] > 0
        assert results["train"][recipe]["evaluation"]["figures"]
        with tarfile.open(out / f"{recipe}.tar") as archive:
            names = {name.removeprefix(f"{recipe}/") for name in archive.getnames()}
        assert names >= {"final.safetensors", "metrics.jsonl", "run.json", "evaluation.json"}
        assert names >= {"samples/annealed.png", "samples/chain.png"}
    table = (out / "results.md").read_text()
    assert table in done.stdout
    assert "What went wrong" not in table


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """The files of the folder as modules, as long as a test lasts."""
    monkeypatch.syspath_prepend(str(GPU))
    own = {path.stem for path in GPU.glob("*.py")}
    yield importlib.import_module
    for name in own & sys.modules.keys():
        del sys.modules[name]


def test_time_is_shared_and_training_gets_the_minutes_it_is_given(
    scripts: Callable[[str], ModuleType],
) -> None:
    plan, train = scripts("plan"), scripts("part_train")
    ends = plan.deadlines(["tests", "bench", "train"], 500.0, None)
    assert list(ends.values()) == pytest.approx([125.0, 290.0, 500.0])
    assert plan.deadlines(["train"], 500.0, None) == {"train": 500.0}
    ends = plan.deadlines(["tests", "bench", "train"], 500.0, 1.0)
    assert ends["train"] == pytest.approx(500.0)
    assert ends["train"] - ends["bench"] == pytest.approx(train.seconds_for(1.0))
    assert plan.deadlines(["tests", "train"], 100.0, 9.0) == {"tests": 0.0, "train": 100.0}


def test_what_time_does_not_reach_is_said_and_is_no_problem(
    scripts: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    session, results = scripts("session"), scripts("results")
    (tmp_path / "out").mkdir()
    made = session.Session(tmp_path / "out", tmp_path, None, tiny=False)
    for part in ("part_tests", "part_bench", "part_train"):
        scripts(part).run(made, time.time() - 1)
    table = results.markdown(made.results)
    assert table.count("not reached: the time was up") == 18
    assert "What went wrong" not in table
    assert json.loads((tmp_path / "out" / "results.json").read_text())["bench"] == made.results["bench"]


def test_a_command_that_takes_too_long_is_ended_with_all_it_started(
    scripts: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    """The child of the child holds a pipe open: it has ended where there is an end of file."""
    made = scripts("session").Session(tmp_path, tmp_path, None, tiny=True)
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        shell = f"exec 3>{tmp_path / 'pipe'}; sleep 600 & echo begun; wait"
        done = made.call(["sh", "-c", shell], 2.0)
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)
    assert (done.code, done.out) == (None, "begun\n")
    assert "its time was up" in (tmp_path / "log.txt").read_text()


def test_options_are_refused_before_anything_is_installed(bare: Path, packed: Path, tmp_path: Path) -> None:
    for options, word in ((("--tiny",), "OUT"), (("out", "--only", "bench,speed"), "tests,bench,train")):
        done = run_session(bare, packed, *options)
        assert (done.returncode, word in done.stderr) == (2, True)
    assert not (packed / "out").exists()


def test_a_folder_for_another_python_is_refused(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"python": "2.7"}')
    done = run_session(bare, tmp_path, tmp_path / "out", "--tiny")
    assert done.returncode == 1
    assert "expected 2.7" in done.stderr


def test_no_folder_and_no_packages_are_named(bare: Path, packed: Path, tmp_path: Path) -> None:
    done = run_session(bare, tmp_path, tmp_path / "out", "--tiny")
    assert (done.returncode, "pack.sh" in done.stderr) == (1, True)
    venv.create(tmp_path / "empty", with_pip=False, symlinks=True)
    done = run_session(tmp_path / "empty" / "bin" / "python", packed, tmp_path / "out", "--tiny")
    assert done.returncode == 1
    assert "without torch, numpy, scipy, scikit-learn, pandas, pyarrow, pillow, pip," in done.stderr


def test_without_a_mirror_packing_says_so(tmp_path: Path) -> None:
    done = run_pack("--installed", "--out", tmp_path / "gpu", "--data", tmp_path / "nowhere")
    assert done.returncode == 0, done.stderr
    assert "no mirror of the data" in done.stdout
    assert not (tmp_path / "gpu" / "data").exists()


def test_packing_takes_as_many_row_groups_as_fit_and_changes_no_pixel(mirror: Path, packed: Path) -> None:
    for path in sorted(mirror.rglob("*.parquet")):
        found = pq.read_table(packed / "data" / path.relative_to(mirror))
        expected = pq.read_table(path)[: len(found)]
        assert found["label"].equals(expected["label"])
        column = expected.column_names[0]
        for first, second in zip(found[column].to_pylist(), expected[column].to_pylist(), strict=True):
            pixels = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in (first, second)]
            assert np.array_equal(*pixels)
    sizes = {path.name: len(pq.read_table(path)) for path in (packed / "data").rglob("*cifar10/**/*.parquet")}
    assert sizes == {"train-00000-of-00001.parquet": 100, "test-00000-of-00001.parquet": 40}


def test_a_folder_that_pack_did_not_make_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    done = run_pack("--installed", "--out", tmp_path)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]
