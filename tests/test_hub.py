"""`walkback push` and `hf://` against a stand-in of the hub on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from tests.hub import TOKEN, Hub, serving
from tests.program import run, tree, walkback

import walkback as wb
from walkback.errors import CheckpointError, ConfigurationError
from walkback.report import Figure, Report
from walkback.storage import hub as names

# huggingface_hub 2.4 sends large files in a way that its HTTP library is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in the plane with a measurement whose text is Markdown."""
    place = tmp_path_factory.mktemp("runs") / "run"
    assert run(place, "--operator", "gaussian-mlp", "--data", "swiss-roll").code == 0
    figures = (Figure("bound", 1.25, "nats", 0.01, meaning="a | b <script> [x](y)"),)
    (place / "evaluate.json").write_text(json.dumps(Report("evaluate", "bound", figures).to_dict()))
    return place


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of this test's own, its cache included."""
    from huggingface_hub import constants

    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def test_a_model_goes_to_the_hub_and_comes_back(trained: Path, hub: Hub, tmp_path: Path) -> None:
    before = tree(trained)
    done = walkback("push", trained, "ada/rolls", "--license", "apache-2.0")
    assert (done.code, done.out) == (0, f"{hub.url}/ada/rolls\n"), done.err
    sent = hub.files["ada/rolls"]
    pictures = {f"samples/{name}.png" for name in ("annealed", "chain", "field", "walk")}
    assert sent.keys() == {"final.safetensors", "README.md", "report.html"} | pictures
    assert sent["final.safetensors"] == (trained / "final.safetensors").read_bytes()
    assert sent["samples/chain.png"] == (trained / "samples" / "chain.png").read_bytes()
    for name, content in sent.items():
        assert f"Sending {name} ({len(content):,} bytes)." in done.err
    assert tree(trained) == before

    back = wb.load("hf://ada/rolls", device="cpu")
    assert (wb.sample(back, 4, progress=False).states == wb.sample(trained, 4, progress=False).states).all()
    out = tmp_path / "a.npz"
    assert walkback("sample", "hf://ada/rolls", "--num", "4", "--out", out).code == 0
    told = walkback("info", "hf://ada/rolls@main", "--json").document()
    assert told["components"]["operator"]["name"] == "gaussian-mlp"
    assert walkback("report", "hf://ada/rolls", "-o", tmp_path / "a.html").code == 0
    # A second time, nothing is sent or fetched that is there.
    assert walkback("push", trained, "ada/rolls", "--license", "apache-2.0").code == 0
    gets = [path for method, path in hub.asked if method == "GET" and "resolve" in path]
    assert len(gets) == 1


def test_the_card_has_a_header_and_escapes_text(trained: Path, hub: Hub) -> None:
    assert walkback("push", trained, "ada/rolls").code == 0
    _, header, body = hub.files["ada/rolls"]["README.md"].decode().split("---\n", 2)
    facts = yaml.safe_load(header)
    assert facts["library_name"] == "walkback"
    assert {"walkback", "gaussian-mlp"} <= set(facts["tags"])
    assert facts["metrics"] == ["nats"]
    assert "datasets" not in facts
    assert "license" not in facts
    assert 'wb.load("hf://ada/rolls")' in body
    assert r"a \| b &lt;script&gt; \[x\](y\)".replace("](", r"]\(") in body
    assert "![annealed](samples/annealed.png)" in body


def test_a_dry_run_names_the_files_and_asks_nobody(
    trained: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    done = walkback("push", trained, "ada/rolls", "--dry-run", "--json")
    assert (done.code, hub.asked) == (0, [])
    files = done.document()["files"]
    assert files["final.safetensors"] == (trained / "final.safetensors").stat().st_size
    assert "Would send README.md" in done.err


@pytest.mark.parametrize("token", [None, "hf_other"])
def test_a_missing_or_wrong_token_is_one_sentence(
    trained: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    done = walkback("push", trained, "ada/rolls")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: hf://ada/rolls cannot be written: ")
    assert done.err.endswith("log in with `hf auth login`, or set HF_TOKEN.\n")
    assert done.err.count("\n") == 1
    assert hub.files == {}


def test_what_the_hub_refuses_is_one_sentence(trained: Path, hub: Hub) -> None:
    done = walkback("push", trained, "other/rolls", "--private")
    assert (done.code, done.out) == (1, "")
    assert (
        "error: hf://other/rolls cannot be written: the token is invalid, or may not do this (403)"
        in done.err
    )
    asked = hub.bodies["/api/repos/create"]
    assert asked.get("private") is True or asked.get("visibility") == "private"


def test_what_is_not_there_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["ada/empty"] = {"pytorch_model.bin": b"pickle", "final.safetensors.txt": b""}
    hub.files["ada/text"] = {"final.safetensors": b"no tensors"}
    for name, words in {
        "ada/none": "there is no such model, or it is private",
        "ada/empty": r"has no final\.safetensors",
        "ada/text@v2": "no such revision",
        "ada/text": "expected",
    }.items():
        with pytest.raises(CheckpointError, match=words):
            wb.load(f"hf://{name}")
    monkeypatch.setattr(names, "MOST_BYTES", 4)
    with pytest.raises(CheckpointError, match="GiB at most"):
        wb.load("hf://ada/text")
    assert not any("pytorch_model" in path for _, path in hub.asked)


@pytest.mark.parametrize(
    "name",
    ["", "ada", "ada/b/c", "../b", "ada/..", "a/b;c", "a/b?x=y", "ada/b@", "-a/b", "a/" + "b" * 200, "a/b\n"],
)
def test_names_are_checked_by_their_pattern(name: str) -> None:
    with pytest.raises(ConfigurationError, match="expected USER/MODEL"):
        names.fetch(f"hf://{name}")


def test_a_hub_out_of_reach_is_said(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=r"hub \(http://127\.0\.0\.1:9\)"):
        wb.load("hf://ada/rolls")
