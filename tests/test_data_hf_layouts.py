"""Folders laid out in every way that people lay them out: the splits, rows and classes are those of `datasets`.

Where it drops files or puts one into two splits, walkback does otherwise on purpose; those cases are at the end.
"""

from __future__ import annotations

import gc
import io
import random
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from walkback.data import SPLITS
from walkback.errors import DataError
from walkback_hf.encoded import EncodedImages, ImageFiles
from walkback_hf.folders import find_local
from walkback_hf.sources import Folder

Rows = dict[str, dict[str, str | None]]
"""By split, the class of each file, None without."""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALKBACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), number % 256, np.uint8)).save(file, "PNG")
    return file.getvalue()


def lay_out(root: Path, names: Iterable[str]) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(number))
    return root


def by_datasets(root: Path, tmp_path: Path) -> Rows:
    rows: Rows = {}
    for split, part in datasets.load_dataset(str(root), cache_dir=str(tmp_path / "hf")).items():
        names = part.features["label"].names if "label" in part.features else []
        kept = part.cast_column("image", datasets.Image(decode=False))
        rows[str(split)] = {
            str(Path(row["image"]["path"]).relative_to(root)): names[row["label"]]
            if row.get("label") is not None
            else None
            for row in kept
        }
    return rows


def by_walkback(root: Path) -> Rows:
    rows: Rows = {}
    for split, images in find_local(root).splits.items():
        assert isinstance(images, ImageFiles)
        every = np.arange(images.count)
        try:
            classes, numbers = images.labels(every)
            labels = [classes[number] for number in numbers]
        except DataError:
            labels = [None] * images.count
        # `datasets` calls "train" what no name says a split of.
        name = "train" if split == "all" else split
        rows[name] = {
            str(path.relative_to(root)): label for path, label in zip(images.paths, labels, strict=True)
        }
    return rows


def order(splits: Mapping[str, EncodedImages], root: Path) -> dict[str, list[str]]:
    """The files of each split, in order."""
    found: dict[str, list[str]] = {}
    for split, images in splits.items():
        assert isinstance(images, ImageFiles)
        found["train" if split == "all" else split] = [str(path.relative_to(root)) for path in images.paths]
    return found


FLAT = [f"{number:02}.png" for number in range(6)]
LAYOUTS: Mapping[str, list[str]] = {
    "one folder": FLAT,
    "folders below": [f"a/b/{name}" for name in FLAT] + [f"c/{name}" for name in FLAT],
    "classes": [f"{kind}/{name}" for kind in ("cat", "dog") for name in FLAT],
    "classes called as splits nearly are": [f"{kind}/{name}" for kind in ("trainer", "contest") for name in FLAT],
    "a class called validate": [f"{kind}/{name}" for kind in ("cat", "validate") for name in FLAT],
    "splits and classes": [f"{s}/{k}/{n}" for s in ("train", "val", "test") for k in ("cat", "dog") for n in FLAT],
    "validate in splits": [f"{s}/{k}/{n}" for s in ("train", "test") for k in ("cat", "validate") for n in FLAT],
    "one level of an archive": [f"photos/{s}/{k}/{n}" for s in ("train", "test") for k in ("x", "y") for n in FLAT],
    "two levels of an archive": [f"a/b/{s}/{k}/{n}" for s in ("train", "dev") for k in ("x", "y") for n in FLAT],
    "numbered splits": [f"{s}2017/{k}/{n}" for s in ("train", "val") for k in ("x", "y") for n in FLAT],
    "splits within names": [f"{s}/{k}/{n}" for s in ("my-train", "my-test") for k in ("x", "y") for n in FLAT],
    "splits in file names": [f"{s}_{n}" for s in ("train", "valid", "test") for n in FLAT],
    "splits in the middle of file names": [f"x-{s}-{n}" for s in ("training", "evaluation") for n in FLAT],
    "splits in file names below": [f"a/{s}.{n}" for s in ("train", "testing") for n in FLAT],
    "other suffixes": ["a.png", "b.PNG", "c.apng", ".hidden.png", "__MACOSX/d.png", ".git/e.png", "f_.png"],
    "odd names": ["[1].png", "a*b.png", "x y.png", "ü/ß.png", "ü/#.png"],
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_splits_rows_and_classes_are_those_of_datasets(tmp_path: Path, name: str) -> None:
    root = lay_out(tmp_path / "root", LAYOUTS[name])
    expected = by_datasets(root, tmp_path)
    assert by_walkback(root) == expected
    assert sum(map(len, expected.values()))


@pytest.mark.parametrize("seed", range(24))
def test_generated_layouts_are_read_as_by_datasets(tmp_path: Path, seed: int) -> None:
    """Levels above, words for splits, how they are set off, classes, levels below, and files of other kinds."""
    rng = random.Random(seed)
    above = rng.choice(["", "photos/", "v1/raw/"])
    words = {
        "train": rng.choice(["train", "training"]),
        "validation": rng.choice(["val", "valid", "validation", "dev"]),
        "test": rng.choice(["test", "testing", "eval", "evaluation"]),
    }
    used = ["train", *rng.sample(["validation", "test"], rng.randint(0, 2))]
    before, after = rng.choice(["", "set-", "x.", "2_"]), rng.choice(["", "-1", "2020", "_a", " b"])
    classes = rng.choice([["cat", "dog"], ["0", "1", "2"], ["validate", "trial"]])
    names: list[str] = []
    for split in used:
        word = f"{before}{words[split]}{after}"
        for kind in classes:
            for number in range(rng.randint(1, 3)):
                in_file = seed % 3 == 0
                names.append(
                    f"{above}{kind}/{word}_{number}.png" if in_file else f"{above}{word}/{kind}/{number}.png"
                )
    root = lay_out(tmp_path / "root", names)
    (root / "README.txt").write_text("read me")
    assert by_walkback(root) == by_datasets(root, tmp_path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # `datasets` leaves CSV open
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("splits", [("",), ("train/", "test/")])
def test_metadata_choose_and_order_the_rows_as_in_datasets(
    tmp_path: Path, kind: str, splits: tuple[str, ...]
) -> None:
    root = lay_out(tmp_path / "root", [f"{split}{name}" for split in splits for name in FLAT])
    listed = ["03.png", "00.png", "05.png"]
    for split in splits:
        table = pa.table({"file_name": listed, "text": ["a", "b", "c"]})
        path = root / f"{split}metadata.{kind}"
        if kind == "parquet":
            pq.write_table(table, path)
        elif kind == "csv":
            path.write_text("file_name,text\n" + "".join(f"{name},x\n" for name in listed))
        else:
            path.write_text("".join(f'{{"file_name": "{name}", "text": "x"}}\n' for name in listed))
    found = find_local(root)
    expected = by_datasets(root, tmp_path)
    assert order(found.splits, root) == {split: list(rows) for split, rows in expected.items()}
    assert f"{3 * len(splits)} images that no metadata list" in found.left_out


def test_no_metadata_file_is_left_open(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "root", FLAT)
    (root / "metadata.csv").write_text("file_name,text\n" + "".join(f"{name},x\n" for name in FLAT))
    assert find_local(root).splits["all"].count == len(FLAT)
    gc.collect()


def test_classes_of_metadata_are_those_of_datasets(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "root", FLAT)
    features = datasets.Features(
        {"file_name": datasets.Value("string"), "label": datasets.ClassLabel(names=["cow", "cat"])}
    )
    rows = {"file_name": FLAT, "label": [0, 1, 1, 0, -1, 1]}
    datasets.Dataset.from_dict(rows, features).to_parquet(root / "metadata.parquet")
    found = find_local(root).splits["all"].labels(np.arange(6))
    assert found.classes == ("cow", "cat")
    assert found.numbers.tolist() == rows["label"]


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"],
        [f"data/{name}.parquet" for name in ("train-00000-of-00002", "train-00001-of-00002", "more-00000-of-00001")],
        ["sub/train.parquet", "sub/valid.parquet"],
        ["train/0.parquet", "train/1.parquet", "val/0.parquet", "test/0.parquet"],
        ["one.parquet", "two.parquet"],
        ["x/default/train-0.parquet", "x/default/eval-0.parquet"],
    ],
)  # fmt: skip
def test_parquet_is_split_as_by_datasets(tmp_path: Path, names: list[str]) -> None:
    root = tmp_path / "root"
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        images = [{"bytes": png(10 * number + row), "path": None} for row in range(number + 2)]
        pq.write_table(pa.table({"image": images}), root / name)
    loaded = datasets.load_dataset(str(root), cache_dir=str(tmp_path / "hf"))
    expected = {
        str(split): [row["bytes"] for row in part.data.column("image").to_pylist()]
        for split, part in loaded.items()
    }
    found = {
        "train" if split == "all" else split: [image.data for image in images.read(np.arange(images.count))]
        for split, images in find_local(root).splits.items()
    }
    assert found == expected


CARD = """---
configs:
- config_name: {first}
  data_files:
  - split: train
    path: part-a/*.png
  - split: test
    path: ["part-b/**"]
{more}---
# Photos
"""


def test_a_data_card_says_the_splits_as_for_datasets(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "root", [f"part-{part}/{name}" for part in "abc" for name in FLAT])
    (root / "README.md").write_text(CARD.format(first="default", more=""))
    assert {split: set(rows) for split, rows in by_walkback(root).items()} == {
        split: set(rows) for split, rows in by_datasets(root, tmp_path).items()
    }
    assert "6 files whose names say no split, such as part-c/00.png" in find_local(root).left_out


def test_several_configurations_of_a_card_are_not_pooled(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "root", [f"part-{part}/{name}" for part in "abc" for name in FLAT])
    other = "- config_name: other\n  data_files: part-c/*.png\n"
    (root / "README.md").write_text(CARD.format(first="some", more=other))
    with pytest.raises(ValueError, match="Config name is missing"):
        by_datasets(root, tmp_path)
    with pytest.raises(
        DataError, match=r"several configurations in .*README.md \(some, other\); give the folder of one"
    ):
        find_local(root)
    (root / "README.md").write_text(CARD.format(first="some", more=f"  default: true\n{other}"))
    assert set(find_local(root).splits) == {"train", "test"}


@pytest.mark.parametrize("pattern", ["https://example.org/x.png", "hf://datasets/a/b/x.png", "/etc/*.png"])
def test_a_data_card_that_names_files_elsewhere_is_refused(tmp_path: Path, pattern: str) -> None:
    root = lay_out(tmp_path / "root", FLAT)
    (root / "README.md").write_text(f'---\nconfigs:\n- config_name: x\n  data_files: "{pattern}"\n---\n')
    with pytest.raises(
        DataError, match=r"data card that names files elsewhere, .*README.md \(" + re.escape(pattern)
    ):
        find_local(root)


def test_a_data_card_is_read_no_further_than_its_head(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "root", [f"part-{part}/{name}" for part in "ab" for name in FLAT])
    card = root / "README.md"
    card.write_text(CARD.format(first="some", more=""))
    with card.open("r+b") as file:
        file.truncate(1 << 40)  # sparse: it takes no room on the disk
    assert set(find_local(root).splits) == {"train", "test"}
    card.write_text("---\nconfigs:\n" + "- config_name: x\n" * 20_000)
    with pytest.raises(
        DataError, match=r"data card whose head is longer than 262,144 characters, .*README.md"
    ):
        find_local(root)


# Where `datasets` drops rows, or counts them twice


def test_a_folder_validate_beside_train_is_the_validation_split(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "root", [f"{s}/{n}" for s in ("train", "validate", "test") for n in FLAT])
    assert "validation" not in by_datasets(root, tmp_path)
    found = find_local(root)
    assert {split: images.count for split, images in found.splits.items()} == {
        "train": 6,
        "validation": 6,
        "test": 6,
    }
    assert "validate taken for validation" in found.note


def test_case_does_not_matter(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "root", [f"{s}/{n}" for s in ("Train", "VAL", "Test") for n in FLAT])
    assert set(find_local(root).splits) == set(SPLITS)


def test_a_file_of_two_splits_is_in_one(tmp_path: Path) -> None:
    """A class called test: `datasets` trains on its pictures and tests on them as well."""
    names = [f"{s}/{k}/{n}" for s in ("train", "test") for k in ("cat", "test") for n in FLAT]
    root = lay_out(tmp_path / "root", names)
    twice = by_datasets(root, tmp_path)
    assert set(twice["train"]) & set(twice["test"])
    rows = by_walkback(root)
    assert sorted(name for part in rows.values() for name in part) == sorted(names)
    assert all(name.startswith(f"{split}/") for split, part in rows.items() for name in part)
    assert set(rows["train"].values()) == {"cat", "test"}
    assert "the outer one decides" in find_local(root).note


def test_the_inner_folder_decides_where_the_outer_one_has_no_train_and_test(tmp_path: Path) -> None:
    names = [f"dev/{s}/{n}" for s in ("train", "test") for n in FLAT]
    rows = by_walkback(lay_out(tmp_path / "root", names))
    assert {split: len(part) for split, part in rows.items()} == {"train": 6, "test": 6}


def test_a_pattern_that_matches_twice_gives_a_row_once(tmp_path: Path) -> None:
    names = [f"train/train-a/{name}" for name in FLAT] + [f"test/{name}" for name in FLAT]
    root = lay_out(tmp_path / "root", names)
    assert len(datasets.load_dataset(str(root), cache_dir=str(tmp_path / "hf"))["train"]) == 12
    assert len(by_walkback(root)["train"]) == 6


def test_folders_that_say_splits_are_no_classes(tmp_path: Path) -> None:
    """`datasets` makes a class `test` of the pictures in the folder test, and none of those in train."""
    root = lay_out(tmp_path / "root", [f"{s}/{n}" for s in ("train", "test") for n in FLAT])
    assert set(by_datasets(root, tmp_path)["test"].values()) == {"test"}
    assert {label for part in by_walkback(root).values() for label in part.values()} == {None}


@pytest.mark.parametrize(
    "names",
    [
        [*FLAT, "test 1.png"],
        [f"{kind}/{name}" for kind in ("cat", "dog", "val") for name in FLAT],
        [*(f"val_{name}" for name in FLAT), *(f"test_{name}" for name in FLAT), *FLAT],
    ],
)
def test_held_out_files_without_train_are_refused_not_pooled_and_not_all_there_is(
    tmp_path: Path, names: list[str]
) -> None:
    root = lay_out(tmp_path / "root", names)
    dropped = len(names) - sum(map(len, by_datasets(root, tmp_path).values()))
    with pytest.raises(
        DataError, match=rf"and {dropped} others, such as .* of which none is called train; expected"
    ):
        find_local(root)


def test_a_single_split_is_cut_as_a_whole(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "root", [f"val/{number:02}.png" for number in range(40)])
    data = Folder(path=str(root))
    data.prepare()
    assert data.info.splits == {"train": 36, "validation": 2, "test": 2}


def test_what_is_found_and_left_alone_is_told_in_a_line(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "root", [f"{s}/{n}" for s in ("train", "val", "test", "more") for n in FLAT])
    for name in ("notes.txt", "labels.csv", ".hidden", "old.zip"):
        (root / name).write_text("x")
    data = Folder(path=str(root))
    with pytest.warns(
        UserWarning, match=r"Left out of .*root: 6 files .* more/00.png; 1 archives, such as old.zip"
    ):
        data.prepare()
    assert data.info.preprocessing[0] == (
        "found 18 .png; splits by folders; left alone: 6 files whose names say no split, such as more/00.png, "
        "1 archives, such as old.zip: unpack them to read them, files of other kinds (1 .csv, 1 .txt), 1 hidden"
    )
