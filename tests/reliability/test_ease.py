"""What a new user looks for: the options of everything, no pictures where none are wanted, words while waiting."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console
from tests.program import run, walkback

import walkback.support.progress as progress
from walkback.configuration.config import COMPONENT_SECTIONS, SETTINGS_SECTIONS
from walkback.support.progress import ProgressBar


def test_every_option_of_every_section_is_listed_with_type_default_and_meaning() -> None:
    options = walkback("config", "list", "--json").document()["options"]
    names = [option["name"] for option in options]
    assert len(set(names)) == len(names)
    for section, model in SETTINGS_SECTIONS.items():
        assert {f"{section}.{name}" for name in model.model_fields} <= set(names)
    for section in COMPONENT_SECTIONS:
        assert f"{section}.name" in names
    assert "training.chains.share" in names
    assert "operator.network.hidden" in names
    for option in options:
        assert option["type"], option
        assert option["help"], option
        assert option["default"] or option["type"] == "table", option


def test_a_section_or_a_part_of_it_is_listed() -> None:
    def listed(*words: str) -> set[str]:
        return {
            option["name"] for option in walkback("config", "list", *words, "--json").document()["options"]
        }

    assert listed("training") == listed("training.") > listed("training.chains")
    assert listed("run.seed") == {"run.seed"}
    assert {name.partition(".")[0] for name in listed("samples")} == {"samples"}
    for words, nearest in (("trainin", "training"), ("training.step", "training.steps")):
        done = walkback("config", "list", words)
        assert (done.code, f"did you mean '{nearest}'?" in done.err) == (2, True)


@pytest.mark.parametrize("name", ["mixing", "reversibility", "walkback:stationarity"])
def test_the_help_of_a_diagnostic_shows_its_options(name: str) -> None:
    done = walkback("diagnose", name, "--help")
    plain = walkback("diagnose", "--help")
    assert (done.code, plain.code) == (0, 0)
    added = done.out.removeprefix(plain.out)
    assert f"Options of {name.rpartition(':')[2]}" in added
    for option in walkback("plugins", "show", name, "--kind", "diagnostic", "--json").document()["options"]:
        assert option["name"] in added
        assert option["default"][:8] in added


def test_a_run_without_pictures(tmp_path: Path) -> None:
    done = run(tmp_path / "a", "--no-pictures", "--json", "--set", "training.sample_every=1", steps=2)
    assert (done.code, done.document()["pictures"]) == (0, [])
    assert list((tmp_path / "a" / "samples").iterdir()) == []
    assert "pictures = false" in (tmp_path / "a" / "config.toml").read_text()
    assert walkback("sample", tmp_path / "a", "--num", "1", "--out", tmp_path / "a.png").code == 0


@pytest.mark.parametrize("total", [0, 50])
def test_a_stage_that_takes_long_says_so(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.01)
    said = io.StringIO()
    with ProgressBar(Console(file=said), print) as bar:
        bar.stage("Preparing celeba", total)
        deadline = time.monotonic() + 60
        while not said.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        bar.stage("Quick", 0)
        bar.stage("Last", 0)
    assert said.getvalue().splitlines()[0] == ("Preparing celeba 0/50" if total else "Preparing celeba …")


def test_other_batch_sizes_are_other_samples(tmp_path: Path) -> None:
    assert "another size gives other samples for the same seed" in " ".join(
        walkback("sample", "--help").out.replace("│", " ").split()
    )
