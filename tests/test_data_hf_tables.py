"""Parquet files of images, and images that do not fit: the file and the row are named."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from walkback.data import Dataset
from walkback.errors import DataError
from walkback_hf.sources import Folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WALKBACK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    return path


def picture(seed: int, height: int = 6, width: int = 6, channels: int = 1) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return values[..., 0] if channels == 1 else values


def encode(values: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def write_images(folder, count: int, start: int = 0, **shape: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        (folder / f"{number:03}.png").write_bytes(encode(picture(number, **shape)))


def write_parquet(path, images: list[bytes | None], column: str = "image") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": image, "path": None} for image in images], kind)
    labels = pa.array(range(len(images)), pa.int64())
    pq.write_table(pa.table({column: rows, "label": labels}), path, row_group_size=4)


def prepared(dataset: Dataset) -> Dataset:
    dataset.prepare()
    return dataset


def test_parquet_shards_are_read_in_order_by_split(root):
    images = [encode(picture(number)) for number in range(30)]
    write_parquet(root / "data" / "train-00000-of-00002.parquet", images[:7])
    write_parquet(root / "data" / "train-00001-of-00002.parquet", images[7:20])
    write_parquet(root / "data" / "test-00000-of-00001.parquet", images[20:])
    data = prepared(Folder(path=str(root)))
    assert data.info.splits == {"train": 18, "validation": 2, "test": 10}
    for split, numbers in (("train", range(18)), ("validation", (18, 19)), ("test", range(20, 30))):
        assert np.array_equal(data.examples(split)[:, 0], np.stack([picture(number) for number in numbers]))


def test_a_single_parquet_and_a_plain_binary_column_are_read(root):
    rows = pa.array([encode(picture(number)) for number in range(20)], pa.large_binary())
    pq.write_table(pa.table({"picture": rows}), root / "mine.parquet")
    data = prepared(Folder(path=str(root / "mine.parquet")))
    assert data.info.name == "mine"
    assert data.info.splits == {"train": 18, "validation": 1, "test": 1}


def test_folder_and_parquet_of_the_same_images_are_the_same_data(root):
    write_images(root / "a", 20)
    write_parquet(root / "b" / "x.parquet", [encode(picture(number)) for number in range(20)])
    files, table = (prepared(Folder(path=str(root / name))).info for name in "ab")
    assert files.fingerprint == table.fingerprint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"column": "label"}, r"column without images, 'label' of x.parquet \(int64\)"),
        ({"column": "img"}, "no column 'img' in x.parquet; expected one of image, label"),
    ],
)
def test_a_wrong_column_is_named(root, options, words):
    write_parquet(root / "x.parquet", [encode(picture(0))] * 3)
    with pytest.raises(DataError, match=words):
        Folder(path=str(root), **options).prepare()


def test_the_image_column_is_found_or_asked_for(root):
    image = pa.array([encode(picture(0))] * 20)
    pq.write_table(pa.table({"mask": image, "image": image}), root / "usual.parquet")
    pq.write_table(pa.table({"left": image, "right": image}), root / "unclear.parquet")
    pq.write_table(pa.table({"label": pa.array(range(20))}), root / "none.parquet")
    Folder(path=str(root / "usual.parquet")).prepare()
    with pytest.raises(DataError, match=r"several image columns in unclear.parquet; .* left, right"):
        Folder(path=str(root / "unclear.parquet")).prepare()
    with pytest.raises(DataError, match=r"no image column in none.parquet, only label"):
        Folder(path=str(root / "none.parquet")).prepare()


def test_an_empty_parquet_is_refused(root):
    write_parquet(root / "x.parquet", [])
    with pytest.raises(DataError, match="empty split, all of pictures"):
        Folder(path=str(root)).prepare()


def test_a_row_without_image_is_named(root):
    write_parquet(root / "x.parquet", [encode(picture(0))] * 5 + [None] + [encode(picture(0))] * 5)
    with pytest.raises(DataError, match=r"row without an image, x.parquet, row 5"):
        Folder(path=str(root)).prepare()


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_broken_parquet_is_named(root, keep):
    write_parquet(root / "x.parquet", [encode(picture(0))] * 20)
    whole = (root / "x.parquet").read_bytes()
    (root / "x.parquet").write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(DataError, match=r"parquet file that cannot be read, x.parquet"):
        Folder(path=str(root)).prepare()


def test_pages_damaged_behind_a_good_footer_are_named(root):
    write_parquet(root / "x.parquet", [encode(picture(number)) for number in range(20)])
    content = bytearray((root / "x.parquet").read_bytes())
    content[4:1500] = bytes(1496)
    (root / "x.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"x.parquet"):
        Folder(path=str(root)).prepare()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no known image format"),
        (b"not an image at all", "no known image format"),
        (encode(picture(0, 40, 40))[:-200], "truncated"),
        (encode(picture(0, 40, 40, 3), "JPEG")[:-400], "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no known image format"),
    ],
)
def test_a_corrupt_image_is_named_with_its_row(root, content, words):
    good = encode(picture(0, 40, 40, 3))
    write_parquet(root / "x.parquet", [good] * 21 + [content])
    with pytest.raises(DataError, match=f"cannot be decoded, x.parquet, row 21 .*{words}"):
        Folder(path=str(root)).prepare()


def test_mixed_sizes_name_the_first_odd_file_and_the_option(root):
    write_images(root, 8)
    write_images(root, 12, start=8, height=7)
    with pytest.raises(DataError, match=r"another size, 008.png \(6×7 instead of 6×6\); set data.size"):
        Folder(path=str(root)).prepare()
    assert prepared(Folder(path=str(root), size=4)).info.shape == (1, 4, 4)


def test_colour_among_grey_names_the_file_and_the_option(root):
    write_images(root, 8)
    write_images(root, 12, start=8, channels=3)
    with pytest.raises(DataError, match=r"in color, 008.png, .* set data.grayscale"):
        Folder(path=str(root)).prepare()
    assert prepared(Folder(path=str(root), grayscale=True)).info.shape == (1, 6, 6)
    assert prepared(Folder(path=str(root), grayscale=False)).info.shape == (3, 6, 6)
