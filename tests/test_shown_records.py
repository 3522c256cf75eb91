"""What records print and draw in Python: one screen, safe text, the series where they are."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from tests.program import TINY_BATCH, TINY_SETTINGS

import walkback as wb
from walkback.errors import ConfigurationError
from walkback.report import Figure, Report, Series


def report() -> Report:
    """A report with a long series."""
    points = tuple(map(float, range(1000)))
    series = Series("work", points, points, "levels", "work (nats)", error=(0.5,) * 1000)
    figures = (Figure("bound", 1.23456, "nats", 0.0123, side="above"), Figure("\x1b[31mred", 2.0, "1"))
    return Report("evaluate", "bound", figures, (series,), ("Few examples.",), {"seed": 1})


def test_a_report_prints_as_one_screen() -> None:
    lines = str(report()).splitlines()
    assert lines == [
        "evaluate",
        "bound          ≤ 1.235 ± 0.012  nats",
        "\\u001b[31mred  2                1",
        "warning: Few examples.",
    ]


def test_a_long_report_is_cut() -> None:
    figures = tuple(Figure(f"figure_{number}", 1.0, "1") for number in range(200))
    lines = str(Report("many", "figure_0", figures)).splitlines()
    assert len(lines) == 41
    assert lines[-1] == "… and 161 more lines"


def test_plot_draws_the_series() -> None:
    pytest.importorskip("matplotlib", reason="the extra viz is not installed")
    (axes,) = report().plot().axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("levels", "work (nats)")
    (line,) = axes.lines
    assert tuple(line.get_ydata()) == tuple(map(float, range(1000)))


def test_nothing_to_plot_is_said() -> None:
    with pytest.raises(ConfigurationError, match="no series"):
        Report("a", "b", (Figure("b", 1.0, "1"),)).plot()


def test_a_trained_model_plots_its_training_and_samples_plot_themselves(tmp_path: Path) -> None:
    settings = {**TINY_SETTINGS, "training.log_every": 2, "training.validate_every": 2}
    out = tmp_path / "run"
    trained = wb.train(
        data="swiss-roll", steps=4, batch_size=TINY_BATCH, settings=settings, out=out, progress=False
    )
    labels = [axes.get_ylabel() for axes in trained.plot().axes]
    assert labels == ["loss (nats/step)", "upper bound (nats per example)"]
    assert len(wb.load(out).plot().axes) == 2
    with pytest.raises(ConfigurationError, match=r"final\.safetensors has no history"):
        wb.load(out / "final.safetensors").plot()
    drawn = wb.sample(trained, 20, chain=4, every=2, progress=False)
    (axes,) = drawn.plot().axes
    with Image.open(BytesIO(drawn.png())) as picture:
        assert axes.images[0].get_size() == picture.size[::-1]
