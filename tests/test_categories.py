"""Tables of categories: files and DataFrames as symbols, and samples with the names of categories."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.program import walkback

import walkback as wb
from walkback.building.assembly import build_dataset
from walkback.configuration.layering import resolve_data
from walkback.data import DataInfo, Dataset, Standardized
from walkback.data.categories import Categories
from walkback.data.category_tables import CategoryData
from walkback.errors import ConfigurationError, DataError
from walkback.extensions.registry import Registry

SMALL = ("--set", "training.steps=3", "--set", "training.batch_size=20", "--set", "operator.network.hidden=8")
COLORS = ("blue", "green", "red")


def survey(rows: int = 200) -> pd.DataFrame:
    """Three columns of 3, 2 and 2 categories."""
    rng = np.random.default_rng(0)
    color = rng.choice(COLORS, rows)
    return pd.DataFrame(
        {"color": color, "warm": color == "red", "answer [x]": rng.choice(["no", "yes"], rows)}
    )


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_feather(path)
    return path


def opened(source: object, *overrides: str) -> Dataset:
    registry = Registry.discover()
    data = build_dataset(resolve_data(registry, str(source), overrides), registry)
    data.prepare()
    return data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("categories")
    write(survey(), folder / "survey.csv")
    walkback(
        "run", "--operator", "categorical", "--data", folder / "survey.csv", "--out", folder / "run", *SMALL
    )
    return folder / "run"


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".arrow"])
def test_rows_are_symbols_whose_categories_have_names(tmp_path: Path, ending: str) -> None:
    frame = survey()
    data = opened(write(frame, tmp_path / f"survey{ending}"))
    assert (data.info.shape, data.info.support) == ((3, 3), "one-hot")
    expected = Categories(("color", "warm", "answer [x]"), (COLORS, ("False", "True"), ("no", "yes")))
    assert data.info.categories == expected
    states = data.states(data.examples("train"), torch.Generator())
    assert states.sum(-1).eq(1).all()
    assert expected.nameless(states) == 0
    everything = torch.cat(
        [data.states(data.examples(s), torch.Generator()) for s in ("train", "validation", "test")]
    )
    found = pd.DataFrame(expected.columns_of(everything.numpy()))
    assert found.value_counts().to_dict() == frame.astype(str).value_counts().to_dict()


def test_a_description_survives_json_and_impossible_ones_are_refused() -> None:
    info = CategoryData(survey()).info
    record = json.loads(json.dumps(info.to_dict()))
    assert DataInfo.from_dict(record) == info
    for names in ([["a"] * 3] * 3, [["a", "b"]] * 3, [["a", "b", "c"]], "abc", [[], ["a"], ["a", "b", "c"]]):
        with pytest.raises(DataError):
            DataInfo.from_dict({**record, "categories": {"columns": ["a", "b", "c"], "names": names}})


def test_declared_categories_keep_their_order_and_whole_numbers_are_chosen() -> None:
    sizes = pd.Categorical(["small", "large"] * 10, categories=["small", "medium", "large"])
    frame = pd.DataFrame({"size": sizes, "rooms": [1, 12] * 10, "price": [0.5, 1.5] * 10})
    data = CategoryData(frame, columns=("rooms", "size"))
    assert data.info.categories == Categories(("rooms", "size"), (("1", "12"), ("small", "medium", "large")))
    assert CategoryData(frame[["rooms"]]).info.shape == (1, 2)
    for columns, message in (
        (None, "Column 'rooms' of categories holds whole numbers.*data.columns"),
        (("price",), "Column 'price' of categories holds floating values.*data.columns"),
    ):
        with pytest.raises(DataError, match=message):
            CategoryData(frame, columns=columns)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", None] * 10, "'kind' of categories has 10 missing values .the first in row 2."),
        (["a"] * 20, "'kind' of categories has 1 different values, expected 2 to 256"),
        ([f"n{i}" for i in range(257)], "'kind' of categories has 257 different values"),
        (["a", 1.5] * 10, "'kind' of categories holds mixed values"),
        (pd.Categorical(["1", 1] * 10), "Two categories in column 'kind'"),
        (["a", "b"] * 5, "N >= 12"),
    ],
)
def test_columns_that_are_no_categories_are_refused_by_name(values: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        CategoryData(pd.DataFrame({"kind": values}))


def test_mixed_tables_are_refused_with_the_ways_out(tmp_path: Path) -> None:
    path = write(survey().assign(weight=np.arange(200) / 7), tmp_path / "mixed.csv")
    with pytest.raises(DataError, match=r"'color' of mixed.csv.*data.columns.*data.label"):
        opened(path)
    with pytest.raises(DataError, match=r"columns of mixed.csv are categories.*--data categories"):
        opened(path, 'data.columns=["color", "warm"]')
    chosen = opened("categories", f"data.path={path}", 'data.columns=["color", "warm"]')
    assert chosen.info.shape == (2, 3)
    with pytest.raises(DataError, match="'color' of table does not contain numbers only"):
        wb.train(data=pd.read_csv(path), steps=1, progress=False)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_samples_are_categories_by_name(run: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"x.{ending}"
    told = walkback("sample", run, "--num", "50", "--out", out)
    found = pd.read_csv(out, dtype=str) if ending == "csv" else pd.read_parquet(out)
    assert list(found) == ["color", "warm", "answer [x]"]
    assert set(found["color"]) == {*COLORS}
    assert set(found["warm"].dropna()) == {"False", "True"}
    missing = int(found.isna().sum().sum())
    assert missing > 0
    assert f"{missing} of 150 sampled symbols have no category" in " ".join(told.err.split())


def test_several_frames_say_chain_and_step(run: Path, tmp_path: Path) -> None:
    walkback("sample", run, "--num", "4", "--chain", "2", "--every", "1", "--out", tmp_path / "x.csv")
    found = pd.read_csv(tmp_path / "x.csv")
    assert list(found)[:3] == ["chain", "step", "color"]
    assert len(found) == 12


def test_other_tables_are_read_with_the_categories_of_training(run: Path, tmp_path: Path) -> None:
    info = wb.load(run).info
    frame = survey(60)
    other = frame[frame["color"] != "green"][["warm", "answer [x]", "color"]].assign(weight=0.5)
    path = write(other, tmp_path / "other.csv")
    registry = Registry.discover()
    unprepared = build_dataset(resolve_data(registry, str(path)), registry)
    assert isinstance(unprepared, Standardized)
    data = unprepared.standardized_as(info)
    data.prepare()
    assert data.info.categories == info.categories
    assert data.examples("train")[:, 0].unique().tolist() == [0, 2]
    figures = [
        wb.evaluate(run, data=given, split="test", paths=2, progress=False).figures
        for given in (
            str(path),
            other.drop(columns="weight"),
            CategoryData(other, columns=("warm", "color", "answer [x]")),
        )
    ]
    assert figures[0] == figures[1] == figures[2]
    with pytest.raises(DataError, match="'color' of categories has the category 'pink'"):
        wb.evaluate(run, data=frame.replace("green", "pink"), progress=False)


def test_data_frames_are_trained_on_and_their_checkpoint_keeps_the_names(tmp_path: Path) -> None:
    trained = wb.train("categorical", data=survey(), steps=2, batch_size=20, progress=False)
    trained.save(tmp_path / "model.safetensors")
    assert wb.load(tmp_path / "model.safetensors").info.categories == CategoryData(survey()).info.categories
    with pytest.raises(ConfigurationError, match="one-hot"):
        wb.train("categorical", data=survey()[["warm"]].astype(float), steps=1, progress=False)


def test_data_prepare_shows_categories(tmp_path: Path) -> None:
    told = walkback("data", "prepare", write(survey(), tmp_path / "survey.csv")).out
    assert "color: blue, green, red" in told
    assert "answer [x]: no, yes" in told
