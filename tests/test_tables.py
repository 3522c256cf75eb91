"""Tables: what is read from files and objects, refused by name, standardized, and given back in its own units."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from tests.program import walkback
from torch import Tensor

import walkback as wb
from walkback.building.assembly import build_dataset
from walkback.configuration.layering import resolve_data
from walkback.data import DataInfo, Dataset
from walkback.data.standardization import Standardization
from walkback.data.tables import table_of
from walkback.data.tensors import TableData, TensorData
from walkback.errors import ConfigurationError, DataError
from walkback.extensions.registry import Registry
from walkback.support.seeding import generator

SCALE = np.array([3.0, 0.013, 728.0])
CORRELATED = np.linalg.cholesky(0.6 * np.eye(3) + 0.4).T
REGISTRY = Registry.discover()


def measurements(num: int = 400, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).standard_normal((num, 3)) @ CORRELATED * SCALE + 5 * SCALE
    return pd.DataFrame(values, columns=["a", "b", "c"])


def read(path: Path, **options: object) -> Dataset:
    overrides = [f"data.{name}={json.dumps(value)}" for name, value in options.items()]
    dataset = build_dataset(resolve_data(REGISTRY, str(path), overrides), REGISTRY)
    dataset.prepare()
    return dataset


def all_values(dataset: Dataset) -> Tensor:
    """The values of all splits, sorted by the first column."""
    rows = torch.cat([dataset.examples(split) for split in ("train", "validation", "test")])
    values = dataset.info.values(rows)
    return values[values[:, 0].argsort()]


# --- files

WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "t.csv": lambda frame, path: frame.to_csv(path, index=False),
    "index.csv": lambda frame, path: frame.to_csv(path),
    "gz.csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "t.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "semicolons.csv": lambda frame, path: frame.to_csv(path, index=False, sep=";"),
    "commas.csv": lambda frame, path: frame.to_csv(path, index=False, sep=";", decimal=","),
    "t.parquet": lambda frame, path: frame.to_parquet(path),
    "t.arrow": lambda frame, path: frame.to_feather(path),
    "headless.csv": lambda frame, path: frame.to_csv(path, index=False, header=False),
    "spaces.txt": lambda frame, path: np.savetxt(path, frame.to_numpy(), fmt="%.18g"),
    "t.npy": lambda frame, path: np.save(path, frame.to_numpy()),
    "swapped.npy": lambda frame, path: np.save(path, frame.to_numpy().astype(">f8")),
    "t.npz": lambda frame, path: np.savez(path, frame.to_numpy()),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_values(tmp_path: Path, name: str) -> None:
    frame = measurements()
    WRITERS[name](frame, tmp_path / name)
    dataset = read(tmp_path / name)
    expected = torch.tensor(frame.sort_values("a").to_numpy())
    assert torch.allclose(all_values(dataset), expected, rtol=1e-6)
    names = {"headless.csv": ("x0", "x1", "x2"), "spaces.txt": ("x0", "x1", "x2")}
    unnamed = name.endswith((".npy", ".npz"))
    assert dataset.info.columns == (() if unnamed else names.get(name, ("a", "b", "c")))
    train = dataset.states(dataset.examples("train"), generator("cpu", 0, "states")).double()
    assert torch.allclose(train.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(train.std(0, correction=0), torch.ones(3, dtype=torch.float64), atol=1e-5)


def test_columns_are_chosen_and_put_in_order_and_a_label_gives_classes(tmp_path: Path) -> None:
    frame = measurements().assign(kind=["x", "y", "z", "x"] * 100)
    frame.to_csv(tmp_path / "t.csv", index=False)
    dataset = read(tmp_path / "t.csv", columns=["c", "a"], label="kind", condition="label")
    assert dataset.info.columns == ("c", "a")
    assert tuple(dataset.info.classes) == ("x", "y", "z")
    assert sum(dataset.info.splits.values()) == 400
    assert dataset.info.classes["x"] == pytest.approx(160, abs=25)  # of 320 for training
    assert read(tmp_path / "t.csv", label="kind").info.columns == ("a", "b", "c")


BAD: dict[str, tuple[Callable[[pd.DataFrame], object], str]] = {
    "missing": (
        lambda f: f["b"].mask(f.index == 7),
        r"'b' of t.csv has 1 missing value \(the first in row 8\)",
    ),
    "word": (lambda f: f["b"].astype(str).mask(f.index == 3, "?"), r"'b' of t.csv .* row 4 holds '\?'"),
    "infinite": (lambda f: f["b"].mask(f.index == 3, math.inf), r"row 4 in column 'b'"),
    "constant": (lambda f: 3.0, r"'b' of t.csv is constant"),
    "same": (lambda f: 2 * f["a"] + 1, r"'a' and 'b' of t.csv are the same up to scale and shift"),
    "sum": (lambda f: f["a"] + f["c"], r"'a', 'b', 'c' of t.csv are linearly dependent"),
    "huge": (lambda f: f["b"] * 1e300, r"'b' of t.csv has values up to .*, whose variance is infinite"),
}


@pytest.mark.parametrize("what", BAD)
def test_columns_without_a_density_are_refused_by_name(tmp_path: Path, what: str) -> None:
    change, message = BAD[what]
    frame = measurements()
    frame["b"] = change(frame)
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "t.csv")
    assert read(tmp_path / "t.csv", columns=["a", "c"]).info.shape == (2,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n", "has columns but no rows"),
        ("a,b\n1,2\n", "has 1 row"),
        ("a,b\n" + "1,2\n" * 5 + "1,2,3\n", r"different lengths \(Expected 2 fields in line 7, saw 3\)"),
        ("a,b\n1,2,3\n", "2 names in its first row and 3 values in the second"),
        ("a,a\n1,2\n", "2 columns called 'a'"),
    ],
)
def test_files_that_are_no_table_say_so(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["t.csv", "t.npy", "t.npz", "t.arrow"])
def test_damaged_files_are_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)) * 9)
    with pytest.raises(DataError, match=f"^{name} ") as caught:
        read(tmp_path / name)
    assert "pickle" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_that_do_not_exist_list_those_that_do(tmp_path: Path) -> None:
    measurements().to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"no column 'mass'.*it has 'a', 'b', 'c'"):
        read(tmp_path / "t.csv", columns=["mass"])
    with pytest.raises(DataError, match="no column 'kind'"):
        read(tmp_path / "t.csv", label="kind")
    with pytest.raises(ConfigurationError, match=r"set data\.label"):
        read(tmp_path / "t.csv", condition="label")


def test_parquet_files_of_images_are_still_images(tmp_path: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"image": [b"x"] * 3, "label": [0, 1, 2]}), tmp_path / "i.parquet")
    assert resolve_data(REGISTRY, str(tmp_path / "i.parquet")).name == "folder"


# --- objects


def test_objects_give_the_same_examples_as_files() -> None:
    import datasets

    frame = measurements()
    tables = [
        table_of(data, "t")
        for data in (frame, datasets.Dataset.from_pandas(frame), frame.to_records(index=False))
    ]
    assert all(table.columns == ("a", "b", "c") for table in tables)
    expected = torch.tensor(frame.to_numpy())
    for data in (frame.to_numpy(), expected, np.asfortranarray(frame.to_numpy())[::1]):
        tables.append(table_of(data, "t"))
    assert all(torch.equal(table.values, expected) for table in tables)
    assert table_of(frame["a"], "t").values.shape == (400, 1)
    assert table_of(frame["a"].to_numpy(), "t").values.shape == (400, 1)


def test_shuffled_datasets_keep_their_order_and_the_names_of_classes() -> None:
    import datasets

    features = datasets.Features(
        {"a": datasets.Value("float64"), "k": datasets.ClassLabel(names=["no", "yes"])}
    )
    source = datasets.Dataset.from_dict(
        {"a": [0.5 * i for i in range(20)], "k": [0, 1] * 10}, features=features
    )
    table = table_of(source.select(range(19, -1, -1)), "t", label="k")
    assert table.values[0, 0] == 9.5
    assert table.labels is not None
    assert (table.classes, table.labels[:2].tolist()) == (("no", "yes"), [1, 0])


@pytest.mark.parametrize("data", [np.array(["a", "b"]), np.zeros((20, 2), complex), np.array(3.0)])
def test_arrays_that_are_no_numbers_are_refused(data: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected"):
        table_of(data, "array")


def test_arrays_of_images_have_one_mean_and_one_deviation() -> None:
    volumes = torch.randn(50, 1, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 7 + 3
    volumes[:, 0, 0, 0, 0] = 0.0  # an entry that is constant is no fault here
    info = TensorData(volumes).info
    assert info.standardized is not None
    assert len(info.standardized.mean) == 1
    assert info.log_volume == pytest.approx(60 * math.log(info.standardized.deviation[0]))


# --- units


def test_densities_change_by_the_jacobian() -> None:
    values = (
        torch.randn(50_000, 2, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([4.0, 0.1])
        + 9
    )
    fit = Standardization.fitted(values, ("a", "b"), (False, False), by_column=True)
    info = DataInfo("t", (2,), standardized=fit)
    states = info.states(values)
    assert torch.allclose(info.values(states), values, atol=1e-5)

    def nll(rows: Tensor) -> float:
        law = torch.distributions.Normal(rows.mean(0), rows.std(0, correction=0))
        return float(-law.log_prob(rows).sum(1).mean())

    assert nll(values) == pytest.approx(nll(states.double()) + info.log_volume, abs=1e-5)


def test_values_far_from_zero_keep_their_digits() -> None:
    values = 1e9 + torch.arange(100.0, dtype=torch.float64)[:, None] / 7
    data = TableData(values)
    assert torch.allclose(all_values(data), values, rtol=0, atol=1e-5)


def test_whole_numbers_are_dequantized_and_come_back_exactly() -> None:
    counts = pd.DataFrame({"n": np.random.default_rng(0).poisson(3, 4000), "x": measurements(4000)["a"]})
    data = TableData(counts)
    assert data.info.standardized is not None
    assert data.info.standardized.whole == (True, False)
    rows = data.examples("train")
    states = data.states(rows, generator("cpu", 0, "states"))
    assert not torch.equal(states[:, 0], rows[:, 0])
    assert torch.equal(states[:, 1], rows[:, 1])
    assert torch.equal(data.info.values(states)[:, 0], data.info.values(rows)[:, 0])
    assert states[:, 0].std() == pytest.approx(1.0, abs=0.01)


def test_a_description_survives_json_and_impossible_ones_are_refused() -> None:
    info = TableData(measurements()).info
    record = json.loads(json.dumps(info.to_dict()))
    assert DataInfo.from_dict(record) == info
    for key, value in (("deviation", [1.0, 0.0, 1.0]), ("mean", [0.0, 0.0]), ("columns", ["a"])):
        broken = {**record, "standardized": {**record["standardized"], key: value}}
        with pytest.raises(DataError, match="standardization"):
            DataInfo.from_dict(broken)


# --- from training to files


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    measurements(2000).to_csv(folder / "t.csv", index=False)
    settings = ("--set", "operator.network.hidden=8", "--set", "evaluation.limit=200")
    walkback("run", "--data", str(folder / "t.csv"), "--steps", "2", "--out", str(folder / "run"), *settings)
    return folder


def entropy() -> float:
    covariance = np.diag(SCALE) @ CORRELATED.T @ CORRELATED @ np.diag(SCALE)
    return 0.5 * (3 * math.log(2 * math.pi * math.e) + np.linalg.slogdet(covariance)[1])


def test_the_bound_is_in_the_units_of_the_data(run: Path) -> None:
    report = wb.evaluate(run / "run", paths=4, limit=200, baselines=True, progress=False)
    # 200 examples of a 3-dimensional Gaussian: the error of a mean of χ²₃/2 is 0.09 nats.
    assert report["bound"].value == pytest.approx(entropy(), abs=0.4)
    assert report["bound"].value == pytest.approx(report["baseline_gaussian"].value, abs=0.15)


@pytest.mark.parametrize("ending", ["csv", "parquet", "npy", "npz"])
def test_samples_are_columns_with_names_in_the_units_of_the_data(run: Path, ending: str) -> None:
    out = run / f"samples.{ending}"
    walkback("sample", str(run / "run"), "--num", "2000", "--out", str(out))
    if ending == "npy":
        values = np.load(out)
    elif ending == "npz":
        with np.load(out) as archive:
            values, names = archive["states"][0], archive["columns"].tolist()
            assert names == ["a", "b", "c"]
    else:
        frame = pd.read_csv(out) if ending == "csv" else pd.read_parquet(out)
        assert list(frame.columns) == ["a", "b", "c"]
        values = frame.to_numpy()
    assert values.shape == (2000, 3)
    assert values.std(0) == pytest.approx(SCALE, rel=0.1)
    assert values.mean(0) == pytest.approx(5 * SCALE, rel=0.03)


def test_samples_in_python_are_in_the_same_units_and_chains_start_from_them(run: Path) -> None:
    trained = wb.load(run / "run")
    drawn = wb.sample(trained, 500, progress=False)
    assert drawn.states.std(0).numpy() == pytest.approx(SCALE, rel=0.2)
    again = wb.sample(trained, start=drawn.states, progress=False)
    assert torch.allclose(again.states, drawn.states, rtol=1e-5)
    drawn.save(run / "python.csv")
    assert np.allclose(pd.read_csv(run / "python.csv").to_numpy(), drawn.states.numpy())
    drawn.save(run / "python.npz")
    started = wb.sample(trained, start=run / "python.npz", progress=False)
    assert torch.allclose(started.states, drawn.states, rtol=1e-5)


def test_several_frames_say_chain_and_step(run: Path) -> None:
    out = run / "chain.csv"
    walkback("sample", str(run / "run"), "--num", "3", "--chain", "4", "--every", "2", "--out", str(out))
    frame = pd.read_csv(out)
    assert list(frame.columns) == ["chain", "step", "a", "b", "c"]
    assert frame["step"].tolist() == [0, 0, 0, 2, 2, 2, 4, 4, 4]
    assert frame["chain"].tolist() == [0, 1, 2] * 3


def test_other_files_are_standardized_as_the_training_data(run: Path) -> None:
    # The columns in another order, one more, and other moments: the bound counts these, and is not made better by them.
    frame = measurements(2000, seed=1)
    frame["a"] += 6.0  # two deviations
    frame.assign(d="text")[["d", "c", "b", "a"]].to_csv(run / "other.csv", index=False)
    frame.to_csv(run / "same.csv", index=False)
    other, same = (
        wb.evaluate(run / "run", data=run / name, limit=100, progress=False)["bound"].value
        for name in ("other.csv", "same.csv")
    )
    assert other == pytest.approx(same, abs=1e-3)
    assert same > entropy() + 1
    frame.drop(columns="b").to_csv(run / "less.csv", index=False)
    with pytest.raises(DataError, match="no column 'b'"):
        wb.evaluate(run / "run", data=run / "less.csv", progress=False)


def test_a_checkpoint_of_an_array_is_evaluated_on_a_file(tmp_path: Path) -> None:
    values = measurements(1000).to_numpy()
    trained = wb.train(data=values, steps=1, settings={"operator.network.hidden": 4}, progress=False)
    trained.save(tmp_path / "m.safetensors")
    np.save(tmp_path / "t.npy", values)
    done = walkback(
        *(
            "evaluate",
            str(tmp_path / "m.safetensors"),
            "--data",
            str(tmp_path / "t.npy"),
            "--limit",
            "50",
            "--json",
        )
    )
    figures = {figure["name"]: figure["value"] for figure in json.loads(done.out)["figures"]}
    assert figures["bound"] == pytest.approx(entropy(), abs=1)


def test_dry_runs_show_what_a_table_is_learned_with(run: Path) -> None:
    shown = walkback("run", "--data", str(run / "t.csv"), "--dry-run").out
    for line in ('mean = "linear"', 'basis = "eigenvectors"', 'name = "table"'):
        assert line in shown
    prepared = walkback("data", "prepare", str(run / "t.csv")).out
    assert "a: 1" in prepared
