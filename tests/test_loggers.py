"""Loggers: what a run tells them, and what those that walkback ships with make of it."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.program import records, run, walkback

from walkback.errors import ConfigurationError
from walkback.loggers import Logger
from walkback_loggers.table import Table
from walkback_loggers.tensorboard import TensorBoard
from walkback_loggers.wandb import WeightsAndBiases

Install = Callable[..., Path]

LOGGED = ("--set", "training.log_every=1", "--set", "training.validate_every=3")
CONFIG = {"operator": {"name": "some", "sigma": 0.03}, "training": {"steps": 3}}

KEEPER = """
    import json
    from pathlib import Path

    from walkback.loggers import Logger

    class Keeper(Logger):
        def __init__(self, *, word: str = "none", every: int = 1):
            self.word, self.every = word, every

        def open(self, directory, config):
            assert (directory / "config.toml").exists()
            assert config["loggers"]["keeper"]["word"] == self.word
            self.file = (directory / "kept.jsonl").open("a")

        def log(self, step, figures):
            if step % self.every == 0:
                self.file.write(json.dumps([self.word, step, sorted(figures)]) + "\\n")

        def log_picture(self, step, name, png):
            assert png.startswith(b"\\x89PNG")
            self.file.write(json.dumps(["picture", step, name]) + "\\n")

        def close(self):
            self.file.close()

    @hookimpl
    def walkback_loggers():
        yield Component("keeper", "outside_main:Keeper", "Keeps")
"""

COLUMNS = """
    from walkback.metrics import Metric

    class Size(Metric):
        def __init__(self, *, label: str = "weights"):
            self.label = label

        def measure(self, moment):
            assert moment.walks > 0 and moment.learning_rate > 0 and moment.gradient_norm > 0
            return {self.label: float(sum(p.numel() for p in moment.model.operator.parameters()))}

    @hookimpl
    def walkback_metrics():
        yield Component("size", "columns_main:Size", "Number of weights")
        yield Component("count", "columns_main:Size", "Number of weights again")
"""


def png(value: int = 128) -> bytes:
    file = BytesIO()
    Image.new("L", (8, 8), value).save(file, "PNG")
    return file.getvalue()


def opened(logger: Logger, directory: Path) -> Logger:
    logger.open(directory, CONFIG)
    return logger


# --- what a run tells


def test_a_logger_from_outside_gets_its_options_figures_and_pictures(
    install: Install, tmp_path: Path
) -> None:
    install("outside", KEEPER)
    options = ("--set", "loggers.keeper.word=mine", "--set", "loggers.keeper.every=2")
    done = run(tmp_path / "a", *options, *LOGGED, "--set", "training.sample_every=4")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "a" / "kept.jsonl").read_text().splitlines()]
    figures = [line for line in lines if line[0] == "mine"]
    assert {line[1] for line in figures} == {2, 4, 6}
    assert figures[0][2] == [
        "calls",
        "gradient_calls",
        "gradient_norm",
        "learning_rate",
        "loss",
        "seconds",
    ]
    assert any("validation_nats" in line[2] for line in figures)
    pictures = [line[1:] for line in lines if line[0] == "picture"]
    assert pictures == [[4, "annealed"], [6, "annealed"], [6, "chain"], [6, "walk"]]


def test_the_metrics_file_has_gradient_norm_learning_rate_and_columns_of_metrics(
    install: Install, tmp_path: Path
) -> None:
    install("columns", COLUMNS)
    warm = ("--set", "training.warmup=6", "--lr", "6e-4", "--set", "training.lr_schedule=constant")
    done = run(tmp_path / "a", "--set", "metrics.size.label=parameters", *warm, *LOGGED)
    assert done.code == 0, done.err
    trained = [record for record in records(tmp_path / "a") if "loss" in record]
    assert len({record["parameters"] for record in trained}) == 1
    rates = [record["learning_rate"] for record in trained]
    assert rates == pytest.approx([1e-4 * number for number in range(1, 7)])
    assert all(record["gradient_norm"] > 0 for record in trained)


def test_two_figures_of_one_name_are_refused(install: Install, tmp_path: Path) -> None:
    install("columns", COLUMNS)
    for names in (("loss",), ("a", "a")):
        options = [
            f"metrics.{metric}.label={name}" for metric, name in zip(("size", "count"), names, strict=False)
        ]
        done = run(tmp_path / names[-1], *(word for option in options for word in ("--set", option)))
        assert done.code == 4
        assert f"returned a figure called '{names[-1]}', a name that is taken" in done.err


# --- a table


def rows(directory: Path, separator: str = ",") -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter=separator))


def test_the_table_has_a_column_for_each_figure(tmp_path: Path) -> None:
    logger = opened(Table(), tmp_path)
    logger.log(1, {"loss": 0.1, "count": 2})
    logger.log(2, {"loss": math.nan})
    logger.log(2, {"bound": -3.5})
    logger.log_picture(2, "annealed", png())
    assert rows(tmp_path) == [
        {"step": "1", "loss": "0.1", "count": "2", "bound": ""},
        {"step": "2", "loss": "nan", "count": "", "bound": ""},
        {"step": "2", "loss": "", "count": "", "bound": "-3.5"},
    ]
    logger.close()


def test_a_table_follows_training_that_goes_back(tmp_path: Path) -> None:
    logger = opened(Table(), tmp_path)
    for step in (1, 2, 3, 2, 3, 4):
        logger.log(step, {"loss": step / 8})
    logger.close()
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3", "4"]


def test_a_resumed_table_leaves_the_file_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for directory, parts in ((whole, [(1, 2, 3, 4)]), (resumed, [(1, 2, 3), (3, 4)])):
        directory.mkdir()
        for steps in parts:
            logger = opened(Table(separator=";"), directory)
            for step in steps:
                logger.log(step, {"loss": step / 10} if step != 2 else {"bound": 1.0})
            logger.close()
            if directory == resumed:
                with (directory / "metrics.csv").open("a") as file:
                    file.write("4;0.")  # a kill cut the line short
    assert rows(whole, ";")[1] == {"step": "2", "loss": "", "bound": "1.0"}
    assert (resumed / "metrics.csv").read_bytes().removesuffix(b"4;0.") == (
        whole / "metrics.csv"
    ).read_bytes()


def test_a_run_and_its_resumption_fill_one_table(tmp_path: Path) -> None:
    assert run(tmp_path / "a", "--logger", "csv", *LOGGED, steps=4).code == 0
    assert walkback("run", "--resume", tmp_path / "a", "--steps", "6").code == 0
    found = rows(tmp_path / "a")
    assert [int(row["step"]) for row in found if row["loss"]] == [1, 2, 3, 4, 5, 6]
    assert [float(row["loss"]) for row in found if row["loss"]] == [
        record["loss"] for record in records(tmp_path / "a") if "loss" in record
    ]


# --- TensorBoard


def test_tensorboard_reads_what_was_logged_and_relogged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs walkback[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = opened(TensorBoard(), tmp_path)
    for step in (10, 20, 30):
        first.log(step, {"loss": float(step)})
    first.close()
    second = opened(TensorBoard(), tmp_path)
    second.log(20, {"loss": 0.5})
    second.log_picture(20, "annealed", png())
    second.close()
    second.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(10, 10.0), (20, 0.5)]
    (picture,) = events.Images("annealed")
    assert Image.open(BytesIO(picture.encoded_image_string)).getpixel((0, 0)) == (128, 128, 128)
    text = events.Tensors("configuration/text_summary")[-1]
    assert b'"sigma": 0.03' in text.tensor_proto.string_val[0]


def test_without_tensorboard_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigurationError, match=r"install walkback\[tensorboard\]"):
        TensorBoard()


# --- Weights & Biases


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, where there is no account."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    return tmp_path / "home"


@pytest.mark.usefixtures("home")
def test_an_offline_run_keeps_figures_pictures_and_configuration_and_is_gone_on_with(tmp_path: Path) -> None:
    pytest.importorskip(
        "wandb", reason="needs walkback[wandb], which is no part of walkback[dev]: it is large"
    )
    directory = tmp_path / "mine"
    directory.mkdir()
    for step in (1, 2):
        logger = opened(WeightsAndBiases(mode="offline", project="digits", tags=("try",)), directory)
        logger.log(step, {"loss": math.nan, "gradient_norm": 1.5})
        logger.log_picture(step, "annealed", png(step))
        logger.close()
        logger.close()
    runs = sorted(path for path in (directory / "wandb").iterdir() if path.name.startswith("offline-run-"))
    assert len({path.name.rpartition("-")[2] for path in runs}) == 1
    log = b"".join(file.read_bytes() for path in runs for file in path.glob("*.wandb"))
    assert all(word in log for word in (b"digits", b"gradient_norm", b"sigma", b"mine", b"try"))
    pictures = [picture for path in runs for picture in path.rglob("annealed*.png")]
    assert {Image.open(picture).getpixel((0, 0)) for picture in pictures} == {1, 2}


@pytest.mark.usefixtures("home")
def test_a_run_tells_weights_and_biases(tmp_path: Path) -> None:
    pytest.importorskip(
        "wandb", reason="needs walkback[wandb], which is no part of walkback[dev]: it is large"
    )
    done = run(tmp_path / "a", "--set", "loggers.wandb.mode=offline", *LOGGED)
    assert done.code == 0, done.err
    (log,) = (tmp_path / "a" / "wandb").glob("offline-run-*/*.wandb")
    assert all(word in log.read_bytes() for word in (b"validation_nats", b"learning_rate", b"gaussian-mlp"))


def test_without_wandb_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigurationError, match=r"install walkback\[wandb\]"):
        WeightsAndBiases()


def test_a_service_out_of_reach_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        class Error(Exception):
            pass

        Settings = dict

        def init(self, **options: Any) -> None:
            raise self.Error("api_key not configured\n(no-tty)")

    def library() -> Any:
        return Library()

    monkeypatch.setattr("walkback_loggers.wandb._library", library)
    with pytest.raises(Exception, match=r"cannot start: api_key not configured \(no-tty\); .*mode=offline"):
        opened(WeightsAndBiases(), tmp_path)
