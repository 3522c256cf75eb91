"""Pieces of a measurement: what is kept comes back, what is another's is refused, what is broken is computed again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from walkback.errors import ConfigurationError, WalkbackError
from walkback.report import Figure, Report, Series
from walkback.storage.work_cache import WorkCache

PROTOCOL = {"checkpoint": "a", "paths": 3, "options": {"levels": (1, 2)}}


def test_pieces_come_back(tmp_path: Path) -> None:
    piece = {"work": torch.randn(3, 4, dtype=torch.float64)}
    WorkCache(tmp_path / "deep" / "kept", PROTOCOL).write("batch-0", piece)
    again = WorkCache(tmp_path / "deep" / "kept", PROTOCOL)
    found = again.read("batch-0")
    assert found is not None
    assert found["work"].equal(piece["work"])
    assert again.read("batch-1") is None


def test_without_a_directory_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = WorkCache()
    cache.write("batch-0", {"work": torch.zeros(1)})
    assert cache.read("batch-0") is None
    assert list(tmp_path.iterdir()) == []


def test_a_piece_that_is_cut_short_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    cache = WorkCache(tmp_path, PROTOCOL)
    cache.write("batch-0", {"work": torch.zeros(100)})
    file = tmp_path / "batch-0.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    assert cache.read("batch-0") is None


@pytest.mark.parametrize("change", [{"paths": 4}, {"checkpoint": "b"}, {"options": {}}])
def test_another_measurement_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    WorkCache(tmp_path, PROTOCOL)
    with pytest.raises(ConfigurationError, match="another measurement"):
        WorkCache(tmp_path, PROTOCOL | change)


def test_a_protocol_that_cannot_be_read_is_another_one(tmp_path: Path) -> None:
    WorkCache(tmp_path, PROTOCOL)
    (tmp_path / "protocol.json").write_text("{")
    with pytest.raises(ConfigurationError, match="another measurement"):
        WorkCache(tmp_path, PROTOCOL)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WalkbackError, match="Could not write"):
        WorkCache(tmp_path / "file" / "kept", PROTOCOL)


# --- reports


def test_figures_of_a_report_are_found_by_name_and_differ() -> None:
    report = Report("r", "b", (Figure("a", 1.0, "nats", 0.1), Figure("b", 2.0, "1")))
    assert report["a"].value == 1
    with pytest.raises(KeyError):
        report["c"]
    with pytest.raises(ValueError, match="different names"):
        Report("r", "a", (Figure("a", 1.0, "nats"), Figure("a", 2.0, "nats")))
    with pytest.raises(ValueError, match="headline"):
        Report("r", "c", (Figure("a", 1.0, "nats"),))


@pytest.mark.parametrize(("value", "error"), [(float("nan"), 0.1), (float("inf"), None), (1.0, float("nan"))])
def test_a_figure_that_is_no_number_is_no_figure(value: float, error: float | None) -> None:
    with pytest.raises(WalkbackError, match="expected finite"):
        Report("r", "a", (Figure("a", value, "nats", error),))


def test_the_stamp_of_the_measurement_does_not_hide_that_of_its_part() -> None:
    report = Report("r", "a", (Figure("a", 1.0, "nats"),), protocol={"chains": 3}, warnings=("own",))
    stamped = report.stamped({"chains": 5, "seed": 0}, ["first"])
    assert stamped.protocol == {"chains": 3, "seed": 0}
    assert stamped.warnings == ("first", "own")


def test_a_series_has_a_value_for_every_place() -> None:
    with pytest.raises(ValueError, match="unequal lengths"):
        Series("s", (1.0, 2.0), (1.0,), "x", "y")
    with pytest.raises(ValueError, match="unequal lengths"):
        Series("s", (1.0, 2.0), (1.0, 2.0), "x", "y", error=(0.1,))
