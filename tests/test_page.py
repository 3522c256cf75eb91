"""`walkback report`: one page that loads nothing, whatever is in the run's directory."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.program import run, tree, walkback

import walkback as wb
from walkback.errors import ConfigurationError
from walkback.report import Figure, Report, Series
from walkback.reporting import content
from walkback.reporting.content import content_of, report_from
from walkback.reporting.page import page
from walkback.reporting.svg import Line, chart, dots, ticks

MEASURED = Report(
    "evaluate",
    "bound",
    (
        Figure("bound", 1.25, "nats", 0.01, meaning="a < b", side="above"),
        Figure("kl", 0.5, "nats", interval=(0.0, 1.0)),
    ),
    (Series("work", (1.0, 2.0), (3.0, 4.0), "levels", "work (nats)", error=(0.1, 0.1)),),
    ("Few examples.",),
    {"seed": 3},
)


class Page(HTMLParser):
    """The elements of a page; fails on those that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in the plane with a report of a measurement."""
    place = tmp_path_factory.mktemp("runs") / "run"
    options = ("--data", "swiss-roll", "--set", "training.log_every=2", "--set", "training.validate_every=3")
    assert run(place, "--operator", "gaussian-mlp", *options).code == 0
    (place / "evaluate.json").write_text(json.dumps(MEASURED.to_dict()))
    return place


def test_a_page_has_everything_and_loads_nothing(trained: Path, tmp_path: Path) -> None:
    before, out = tree(trained), tmp_path / "report.html"
    done = walkback("report", trained, "-o", out)
    assert (done.code, done.out) == (0, "")
    assert tree(trained) == before
    found = Page(out.read_text("utf-8"))
    tags = [tag for tag, _ in found.elements]
    assert {"script", "link", "iframe", "object"} & set(tags) == set()
    for tag, attributes in found.elements:
        for name, value in attributes.items():
            assert name not in ("href", "srcset", "onload", "style"), (tag, name)
            if name == "src":
                assert (value or "").startswith("data:image/png;base64,")
    text = out.read_text("utf-8")
    assert "url(" not in text
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    pictures = [
        base64.b64decode((a["src"] or "").partition(",")[2]) for tag, a in found.elements if tag == "img"
    ]
    names = ("annealed", "chain", "walk", "field")
    assert pictures == [(trained / "samples" / f"{name}.png").read_bytes() for name in names]
    words = " ".join(found.words)
    for part in (
        "gaussian-mlp on swiss-roll",
        "finished",
        "≤ 1.250 ± 0.010",
        "a < b",
        "0 to 1",
        "Few examples.",
        "hidden",
    ):
        assert part in words
    assert tags.count("polygon") == 2  # error bands of the validation bound and of the report's series


def test_a_checkpoint_has_samples_of_its_own(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert walkback("report", trained / "final.safetensors", "-o", out).code == 0
    assert [tag for tag, _ in Page(out.read_text("utf-8")).elements].count("img") == 2
    refused = walkback("report", trained / "final.safetensors", "-o", out)
    assert (refused.code, "exists" in refused.err) == (2, True)
    assert walkback("report", trained / "final.safetensors", "-o", out, "--force").code == 0


def test_text_of_files_is_escaped(trained: Path, tmp_path: Path) -> None:
    place = tmp_path / "<b>run"
    (place / "samples").mkdir(parents=True)
    evil = "<script>alert(1)</script>\x1b"
    (place / "config.toml").write_text(
        f'kind = "configuration"\nformat = 3\n[operator]\nname = {json.dumps(evil)}\n'
    )
    metrics = [{"step": 1, "loss": 1.0, evil: 2.0}, {"step": 2, "loss": "3", evil: True}]
    (place / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    document: dict[str, Any] = MEASURED.to_dict() | {
        "name": evil,
        "warnings": [evil],
        "protocol": {evil: evil},
    }
    document["figures"][0] |= {"unit": evil, "meaning": evil}
    document["series"][0] |= {"name": evil, "x_label": evil, "y_label": '"' + evil}
    (place / "x.json").write_text(json.dumps(document))
    (place / "samples" / "annealed.png").write_bytes(b"<script>")
    (place / "torn.json").write_text("{")
    text = page(content_of(place))
    assert "script" not in {tag for tag, _ in Page(text).elements}
    assert "<b>" not in text
    assert "\x1b" not in text
    assert text.count("&lt;script&gt;") >= 8
    for left_out in ("annealed.png is not a PNG", "torn.json cannot be read"):
        assert left_out in text


@pytest.mark.parametrize("name", ["none", "empty", "file.txt"])
def test_what_is_no_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    done = walkback("report", tmp_path / name, "-o", tmp_path / "report.html")
    assert done.code == 2
    assert not (tmp_path / "report.html").exists()


def test_measurements_made_for_a_page_are_shown_beside_baselines(trained: Path, tmp_path: Path) -> None:
    out, before = tmp_path / "report.html", tree(trained)
    asked = ("--evaluate", "--samples", "40", "--diagnose", "reversibility")
    done = walkback("report", trained, "-o", out, *asked)
    assert (done.code, done.out) == (0, ""), done.err
    assert tree(trained) == before
    text = out.read_text("utf-8")
    for words in (
        "Bound beside simple models",
        "diagonal gaussian",
        "samples beside data",
        "entropy production",
    ):
        assert words in text
    Page(text)


def test_measurements_are_refused_before_any_work(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = walkback("report", trained, "-o", out, "--samples", "40")
    assert (done.code, done.err) == (
        2,
        "error: --samples compares samples in an evaluation: add --evaluate.\n",
    )
    with pytest.raises(ConfigurationError, match="Unknown diagnostic"):
        wb.save_report(trained, out, diagnose=["mixin"], progress=False)
    assert not out.exists()


def test_the_page_from_python_is_that_of_the_command(trained: Path, tmp_path: Path) -> None:
    written = wb.save_report(trained, tmp_path / "a.html", progress=False)
    assert walkback("report", trained, "-o", tmp_path / "b.html").code == 0
    assert written.read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_page_is_bounded(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = content_of(trained)
    first = whole.pictures[0]
    monkeypatch.setattr(content, "_MOST_PICTURES", len(first.png))
    found = content_of(trained)
    assert found.pictures == [first]
    assert f"{len(whole.pictures) - 1} more pictures" in found.left_out[-1]


def test_dots_are_where_their_values_are() -> None:
    drawn = dots([("a", 1.0, 0.5), ("<b>", 3.0, None)], "nats")
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', drawn)]
    ends = [float(x) for x in re.findall(r'class="line line0" x1="([\d.]+)" x2="([\d.]+)"', drawn)[0]]
    assert "&lt;b&gt;" in drawn
    assert sum(ends) / 2 == pytest.approx(places[0], abs=0.1)
    assert (ends[1] - ends[0]) * 2 == pytest.approx(places[1] - places[0], abs=0.3)


def test_reports_come_back_as_they_were() -> None:
    assert report_from(json.loads(json.dumps(MEASURED.to_dict()))) == MEASURED


def test_charts_draw_points_where_they_are() -> None:
    drawing = chart([Line("a", (0, 50, 100), (1, 3, 2))], "x", "y")
    found = re.search(r'<polyline class="line line0" points="([^"]+)"', drawing)
    assert found is not None
    points = [tuple(map(float, pair.split(","))) for pair in found[1].split()]
    # The frame is 400 wide from 66, and 214 high to 226: values 1 to 3.
    assert points == [(66.0, 226.0), (266.0, 12.0), (466.0, 119.0)]
    assert chart([Line("a", (), ())], "x", "y") == ""
    constant = chart([Line("a", (0, 1), (2.0, 2.0))], "x", "y")
    assert "nan" not in constant.lower()
    assert "cut off" not in drawing
    assert "cut off" in chart([Line("a", range(100), [1e6, *range(1, 100)])], "x", "y")
    many = chart([Line("a", range(10_000), [float(value % 7) for value in range(10_000)])], "x", "y")
    assert many.count(",") < 1000


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 1e7), (0.1, 0.1 + 1e-7), (1e-12, 2e-12)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    slack = 1e-9 * (high - low)
    assert all(low - slack <= tick <= high + slack for tick in found)
