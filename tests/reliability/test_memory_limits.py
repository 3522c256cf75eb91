"""A limit of memory, real and of a real process: one sentence that says what to lower, and exit code 1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.program import ENVIRONMENT, TINY, run

LIMITED = """
import resource, sys
import walkback.jobs.bench, walkback.jobs.diagnose, walkback.jobs.evaluate, walkback.jobs.sample, walkback.jobs.train
from walkback.cli.main import call
import sklearn.datasets, walkback_diagnostics.mixing, walkback_networks.mlp, walkback_paper.gaussian, walkback_toys

pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 250_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(call(sys.argv[1:]))
"""

LINES: dict[str, tuple[tuple[str, ...], str]] = {
    "run": (
        ("run", *TINY, "--batch-size", "900000", "--steps", "1", "--out", "OUT"),
        "lower training.batch_size",
    ),
    "operator": (
        ("run", "--set", "operator.network.hidden=12000", "--steps", "1", "--out", "OUT"),
        "choose smaller sizes among its options",
    ),
    "sample": (
        ("sample", "CKPT", "--num", "900000", "--batch-size", "900000", "--out", "OUT.npz"),
        "fewer samples",
    ),
    "diagnose": (
        ("diagnose", "mixing", "CKPT", "--set", "chains=900000"),
        "ask for fewer chains or examples",
    ),
    "bench": (("bench", *TINY, "--batch-size", "900000", "--repeats", "1"), "lower training.batch_size"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "a"
    assert run(directory, "--no-pictures", steps=1).code == 0
    return directory / "final.safetensors"


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="only Linux tells how much memory is mapped"
)
@pytest.mark.parametrize("verb", LINES)
def test_too_little_memory(verb: str, checkpoint: Path, tmp_path: Path) -> None:
    line, words = LINES[verb]
    places = {"CKPT": str(checkpoint)}
    arguments = [places.get(word, word.replace("OUT", str(tmp_path / "out"))) for word in line]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    (error,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert error.startswith("error: Got too little memory (")
    assert words in error
    assert "Traceback" not in done.stderr
    if verb in ("sample", "operator"):
        assert list(tmp_path.iterdir()) == []
