"""`walkback info`: everything about a checkpoint from its header, quickly and safely."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.program import ENVIRONMENT, PATIENCE, run, walkback

from walkback.storage.tensorfile import read_tensors, save_tensors


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a tiny run."""
    directory = tmp_path_factory.mktemp("info") / "a"
    assert run(directory).code == 0
    return directory / "final.safetensors"


def test_facts_components_and_options_are_shown(checkpoint: Path) -> None:
    done = walkback("info", checkpoint)
    assert (done.code, done.err) == (0, "")
    text = " ".join(done.out.split())
    for words in (
        f"torch {torch.__version__}",
        "running average",
        "6 updates, 6 walks",
        "digits 1 × 8 × 8, real",
        "dequantized: (v + u) / 17, u ~ U[0, 1)",
        "operator gaussian-mlp walkback 0.1.0",
        "operator.network mlp walkback 0.1.0",
        "operator.network.hidden 16",
        "training.steps 6",
    ):
        assert words in text


def test_json_is_the_description(checkpoint: Path) -> None:
    document = walkback("info", checkpoint, "--json").document()
    assert document["config"]["operator"]["network"]["hidden"] == 16
    assert document["components"]["operator"]["distribution"] == "walkback"
    assert document["data"]["name"] == "digits"


def test_neither_torch_nor_datasets_is_imported(checkpoint: Path) -> None:
    code = f"""
import sys
from walkback.cli.main import call
assert call(["info", {str(checkpoint)!r}]) == 0
print(*sorted({{"torch", "datasets", "numpy", "sklearn"}} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "\n")


def test_text_of_strangers_is_shown_as_it_is(checkpoint: Path, tmp_path: Path) -> None:
    tensors, document = read_tensors(checkpoint)
    document["data"]["name"] = "[/foo] [bold]data[/bold]"
    document["data"]["preprocessing"] = ["cleared \x1b[2J", "rang \x07"]
    document["config"]["operator"]["[/markup]"] = "\x1b]0;title\x07"
    save_tensors(tmp_path / "a.safetensors", tensors, document)
    done = walkback("info", tmp_path / "a.safetensors")
    assert (done.code, done.err) == (0, "")
    text = " ".join(done.out.split())
    for words in ("[/foo] [bold]data[/bold]", "operator.[/markup]"):
        assert words in text
    assert not {"\x1b", "\x07"} & set(done.out)


def test_a_later_release_may_say_more(checkpoint: Path, tmp_path: Path) -> None:
    tensors, document = read_tensors(checkpoint)
    document["licence"] = "CC-BY"
    save_tensors(tmp_path / "a.safetensors", tensors, document)
    assert walkback("info", tmp_path / "a.safetensors", "--json").document()["licence"] == "CC-BY"
