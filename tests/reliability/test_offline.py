"""Without a network: what is cached is used, and what is not fails at once and says the way out."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from tests.program import ENVIRONMENT, PATIENCE

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def without_network(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The program in a process whose network namespace is empty: no host can be reached, whatever is tried."""
    line = ["unshare", "--map-root-user", "--net", sys.executable, "-m", "walkback", *arguments]
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in OFFLINE}
    return subprocess.run(
        line,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    """Skip where the system does not let its users make namespaces."""
    probe = ["unshare", "--map-root-user", "--net", "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot make a network namespace (unshare --map-root-user --net)")


def _encoded(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), number, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """What a download of some/thing leaves behind, from what `datasets` makes of a local file."""
    rows = [{"bytes": _encoded(number), "path": None} for number in range(80)]
    made = datasets.Dataset.from_dict({"image": rows}, datasets.Features({"image": datasets.Image()}))
    made.to_parquet(tmp_path / "train.parquet")
    datasets.load_dataset(
        "parquet", data_files={"train": str(tmp_path / "train.parquet")}, cache_dir=str(tmp_path / "build")
    )
    (info,) = (tmp_path / "build" / "parquet").glob("*/*/*/dataset_info.json")
    target = tmp_path / "hf" / "some___thing" / "default" / "0.0.0" / "abc"
    shutil.copytree(info.parent, target)
    (target / "parquet-train.arrow").rename(target / "thing-train.arrow")
    record = json.loads((target / "dataset_info.json").read_text())
    record.update(dataset_name="thing", config_name="default", builder_name="parquet")
    (target / "dataset_info.json").write_text(json.dumps(record))
    return tmp_path / "hf"


def test_cached_data_are_used_and_others_fail_at_once(cache: Path, tmp_path: Path) -> None:
    places = {"HF_DATASETS_CACHE": str(cache), "WALKBACK_CACHE": str(tmp_path / "walkback")}
    options = ("--set", "data.size=8", "--dry-run", "--json")
    done = without_network("run", "--data", "some/thing", *options, **places)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["data"]["id"] == "some/thing"
    missing = without_network("run", "--data", "some/other", *options, **places)
    assert (missing.returncode, missing.stdout) == (2, "")
    (error,) = [line for line in missing.stderr.splitlines() if line.startswith("error: ")]
    assert "'some/other'" in error
    assert "out of reach" in error
    assert "WALKBACK_DATA" in error
