"""`metrics.jsonl`: one whole JSON object a line, and a resumed run without a seam."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from walkback.errors import WalkbackError
from walkback.training.metrics_file import FILE_NAME, MetricsFile


def records(directory: Path) -> list[dict[str, Any]]:
    """The lines of the file, by a parser that refuses NaN."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    lines = (directory / FILE_NAME).read_text(encoding="utf-8").splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def log_steps(directory: Path, *steps: int, resume_step: int | None = None) -> None:
    logger = MetricsFile(directory, resume_step=resume_step)
    for step in steps:
        logger.log(step, {"loss": step / 10})
    logger.close()


def test_a_record_is_one_line_of_json(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path)
    logger.log(5, {"loss": 0.25, "σ": 1.0, "count": 3})
    logger.close()
    logger.close()
    assert (tmp_path / FILE_NAME).read_text(
        encoding="utf-8"
    ) == '{"step": 5, "loss": 0.25, "σ": 1.0, "count": 3}\n'


def test_a_line_is_in_the_file_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path)
    logger.log(5, {"loss": 0.25})
    assert records(tmp_path) == [{"step": 5, "loss": 0.25}]
    logger.close()


def test_what_json_cannot_say_is_null_and_named(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path)
    logger.log(1, {"a": math.nan, "b": -math.inf, "c": 1.0})
    logger.close()
    expected = {"step": 1, "a": None, "b": None, "c": 1.0, "nonfinite": {"a": "nan", "b": "-inf"}}
    assert records(tmp_path) == [expected]


@pytest.mark.parametrize("name", ["step", "nonfinite"])
def test_reserved_names_are_refused(tmp_path: Path, name: str) -> None:
    logger = MetricsFile(tmp_path)
    with pytest.raises(WalkbackError, match=f"'{name}' is reserved"):
        logger.log(1, {name: 2.0})
    logger.close()


def test_a_new_run_never_writes_into_an_old_file(tmp_path: Path) -> None:
    log_steps(tmp_path, 1)
    with pytest.raises(WalkbackError, match="there is a file of that name"):
        MetricsFile(tmp_path)
    assert len(records(tmp_path)) == 1


def test_a_resumed_run_leaves_the_file_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    log_steps(whole, 10, 20, 20, 30, 40)
    log_steps(resumed, 10, 20, 20, 30)
    log_steps(resumed, 30, 40, resume_step=20)
    assert (resumed / FILE_NAME).read_bytes() == (whole / FILE_NAME).read_bytes()


@pytest.mark.parametrize(
    "torn", [b'{"step": 30, "lo', b"\xff\xfe", b'{"step": 15}', b"[15]\n", b'{"step": "1"}\n']
)
def test_a_torn_line_is_dropped(tmp_path: Path, torn: bytes) -> None:
    log_steps(tmp_path, 10, 20)
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(torn)
    log_steps(tmp_path, 30, resume_step=20)
    assert [record["step"] for record in records(tmp_path)] == [10, 20, 30]


def test_resuming_without_a_file_starts_one(tmp_path: Path) -> None:
    log_steps(tmp_path, 30, resume_step=20)
    assert [record["step"] for record in records(tmp_path)] == [30]


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from walkback.errors import WalkbackError; from walkback.training.metrics_file import MetricsFile\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "logger = MetricsFile(Path(sys.argv[1]))\n"
        "try: [logger.log(n, {'loss': 1.0}) for n in range(10)]\n"
        "except WalkbackError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(f"Could not write {tmp_path / FILE_NAME}: ")
