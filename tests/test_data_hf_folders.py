"""What lies in a folder besides image files: links, what cannot be read, tables of all shapes, saved data sets."""

from __future__ import annotations

import io
import os
import re
import socket
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from walkback.data import SPLITS
from walkback.errors import DataError
from walkback_hf import columns, encoded, plugin
from walkback_hf.folders import find_local
from walkback_hf.sources import Folder

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALKBACK_CACHE", str(tmp_path / "cache"))


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 6), dtype=np.uint8)


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def fill(folder: Path, count: int, start: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        (folder / f"{number:03}.png").write_bytes(png(picture(number)))
    return folder


def pixels(data: Folder) -> torch.Tensor:
    """All pixels, in the order of the rows where no split is cut out of another's middle."""
    return torch.cat([data.examples(split) for split in SPLITS])[:, 0]


def as_set(data: Folder) -> set[bytes]:
    return {image.numpy().tobytes() for image in pixels(data)}


def prepared(path: Path, **options: object) -> Folder:
    data = Folder(path=str(path), **options)  # type: ignore[arg-type]
    data.prepare()
    return data


# Links, and what cannot be read


def test_linked_folders_and_files_are_followed(tmp_path: Path) -> None:
    fill(tmp_path / "real", 30)
    root = fill(tmp_path / "links", 8, start=30)
    (root / "more").symlink_to("../real")
    (root / "one.png").symlink_to(fill(tmp_path / "single", 1, start=99) / "099.png")
    data = prepared(root)
    assert as_set(data) == {picture(number).tobytes() for number in (*range(38), 99)}
    assert "1 links to folders followed" in data.info.preprocessing[0]


def test_links_in_a_circle_twice_to_a_folder_or_to_nothing_are_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "a", 8)
    (root / "up").symlink_to("..")
    fill(tmp_path / "b", 2)
    with pytest.raises(DataError, match=r"Got the folder .*a a second time, as up/a; remove the link"):
        find_local(root)
    (root / "up").unlink()
    (root / "copy").symlink_to("../b")
    (root / "copy again").symlink_to("../b")
    with pytest.raises(
        DataError, match=r"Got the folder copy(| again) a second time, as copy(| again); remove"
    ):
        find_local(root)
    (root / "copy again").unlink()
    (root / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"link that leads nowhere, gone.png; remove it"):
        find_local(root)


def test_a_pipe_called_like_an_image_is_named_and_not_waited_for(tmp_path: Path) -> None:
    root = fill(tmp_path / "a", 8)
    os.mkfifo(root / "x.png")
    with pytest.raises(DataError, match=r"something that is no file, x.png"):
        find_local(root)


def test_a_name_that_is_no_text_is_shown(tmp_path: Path) -> None:
    root = fill(tmp_path / "a", 8)
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.png")).write_bytes(b"broken")
    with pytest.raises(DataError) as caught:
        prepared(root)
    assert str(caught.value).encode("utf-8").count("�.png".encode()) == 1


def test_a_file_too_large_for_an_image_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "a", 8)
    (root / "huge.png").touch()
    os.truncate(root / "huge.png", 1 << 40)
    with pytest.raises(DataError, match=r"image file of 1,099,511,627,776 bytes, huge.png, expected at most"):
        prepared(root)
    monkeypatch.setattr(encoded, "_MOST_BYTES", 10)
    with pytest.raises(DataError, match=r"000.png, expected at most 10; remove it"):
        prepared(root)


def test_images_of_formats_that_are_not_read_are_named_not_left_out(tmp_path: Path) -> None:
    root = fill(tmp_path / "a", 8)
    (root / "z.psd").write_bytes(b"8BPS" + bytes(100))
    with pytest.raises(
        DataError, match=r"cannot be decoded, z.psd \(no known image format; PNG, JPEG, .* are read"
    ):
        prepared(root)


# Paths that are no data


def test_a_mistyped_path_is_refused_at_once_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "photos" / "cats", 8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("the network was asked"))
    source = plugin.walkback_dataset_source("photos/casts")
    assert source is not None
    assert source.name == "folder"
    with pytest.raises(DataError, match=r"^Got no file or folder at photos/casts; check the path\.$"):
        Folder(path="photos/casts").prepare()


def test_local_data_are_read_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `datasets` at work, and no switch set that would keep it from asking."""
    root = fill(tmp_path / "a", 20)
    (root / "metadata.jsonl").write_text("".join(f'{{"file_name": "{n:03}.png"}}\n' for n in range(20)))
    datasets.Dataset.from_dict({"image": [png(picture(n)) for n in range(20)]}).save_to_disk(
        tmp_path / "saved"
    )
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("the network was asked"))
    assert as_set(prepared(root)) == as_set(prepared(tmp_path / "saved"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.npy", r"tables of numbers are read from"),
        ("x.csv", r"tables of numbers are read from"),
        ("x.zip", r"unpack it, and give the folder"),
        ("x.png", r"give the folder of images that it lies in"),
        ("x.doc", r"expected a folder of images or a .parquet file"),
    ],
)
def test_a_file_is_refused_with_advice_that_holds(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=rf"the file .*{name} as data; {words}"):
        find_local(tmp_path / name)


def test_a_folder_of_tables_or_archives_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"no images in .*a, but x.npz; tables of numbers"):
        find_local(tmp_path / "a")
    (tmp_path / "a" / "x.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"only archives such as x.tar.gz; unpack them"):
        find_local(tmp_path / "a")


def test_a_table_of_numbers_in_parquet_is_told_from_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1.5, 2.5], "b": [1, 2]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"only a \(double\), b \(int64\); tables of numbers are read from"):
        find_local(tmp_path / "x.parquet")


# Parquet of other shapes


def write(path: Path, column: pa.Array) -> Path:
    pq.write_table(pa.table({"image": column}), path)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Folder:
    """The same images as single files, as the columns below hold them in other shapes."""
    return prepared(fill(tmp_path / "plain", 40))


@pytest.mark.parametrize(
    "shape", ["dictionary", "lists", "fixed lists", "pixels", "pixels with a channel", "Array2D"]
)
def test_columns_of_other_shapes_hold_the_same_images(tmp_path: Path, plain: Folder, shape: str) -> None:
    images = [picture(number) for number in range(40)]
    structs = [[{"bytes": png(image), "path": None}] for image in images]
    path = tmp_path / "x.parquet"
    match shape:
        case "dictionary":
            write(path, pa.array([png(image) for image in images], pa.binary()).dictionary_encode())
        case "lists":
            write(path, pa.array(structs, pa.list_(STRUCT)))
        case "fixed lists":
            write(path, pa.array(structs, pa.list_(STRUCT, 1)))
        case "pixels":
            write(path, pa.array([image.tolist() for image in images]))
        case "pixels with a channel":
            write(path, pa.array([image[..., None].tolist() for image in images]))
        case "Array2D":
            features = datasets.Features({"image": datasets.Array2D((8, 6), "uint8")})
            datasets.Dataset.from_dict({"image": images}, features).to_parquet(path)
    data = prepared(path)
    assert torch.equal(pixels(data), pixels(plain))


def test_pixels_in_colour_come_back_exactly(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 7, 3))
    last = prepared(write(tmp_path / "last.parquet", pa.array(images.tolist())))
    first = prepared(write(tmp_path / "first.parquet", pa.array(images.transpose(0, 3, 1, 2).tolist())))
    expected = torch.from_numpy(images.transpose(0, 3, 1, 2)).to(torch.uint8)
    assert torch.equal(torch.cat([last.examples(s) for s in SPLITS]).sort(0).values, expected.sort(0).values)
    assert first.info.fingerprint == last.info.fingerprint


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (pa.array([[[1, 2], [3]]] * 20), "that is not an image, x.parquet, row 0; expected whole numbers"),
        (pa.array([[[1, -2], [3, 4]]] * 20), "that is not an image, x.parquet, row 0"),
        (pa.array([[[1, 70_000], [3, 4]]] * 20), "that is not an image, x.parquet, row 0"),
        (pa.array([[[1, 2], [3, 4]]] * 9 + [None] * 9), "without an image, x.parquet, row 9; remove the row"),
        (
            pa.array([[{"bytes": b"x", "path": None}] * 2] * 20, pa.list_(STRUCT)),
            "row of 2 images, x.parquet, row 0",
        ),
        (pa.array([[]] * 20, pa.list_(STRUCT)), "row of no images, x.parquet, row 0; expected one"),
        (
            pa.array([[[0.5, 1.5]]] * 20),
            r"no image column in x.parquet, only image \(list.*double.*; expected encoded",
        ),
        (pa.array([[1, 2, 3]] * 20), r"no image column in x.parquet, only image \(list.*datasets.Image"),
        (pa.array(["a.png"] * 20), r"no image column in x.parquet, only image \(string\); expected encoded"),
    ],
)
def test_columns_that_hold_no_images_are_refused_by_row_and_with_advice(
    tmp_path: Path, value: pa.Array, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        prepared(write(tmp_path / "x.parquet", value))


@pytest.mark.filterwarnings("ignore:Downcasting array dtype")
def test_advice_about_pixels_can_be_followed(tmp_path: Path) -> None:
    """A column of lists, cast to datasets.Image(), is read."""
    images = [picture(number) for number in range(20)]
    table = datasets.Dataset.from_dict({"flat": images}).cast_column("flat", datasets.Image())
    table.to_parquet(tmp_path / "x.parquet")
    assert as_set(prepared(tmp_path / "x.parquet")) == {image.tobytes() for image in images}


def test_images_kept_as_paths_are_read_from_beside_the_table(tmp_path: Path, plain: Folder) -> None:
    root = fill(tmp_path / "paths", 40)
    rows = pa.array([{"bytes": None, "path": f"{number:03}.png"} for number in range(40)], STRUCT)
    write(root / "train.parquet", rows)
    data = prepared(root)
    assert torch.equal(pixels(data), pixels(plain))
    (root / "stray.png").write_bytes((root / "000.png").read_bytes())
    with pytest.warns(UserWarning, match=r"1 image files beside parquet that no row names"):
        assert torch.equal(pixels(prepared(root)), pixels(plain))


@pytest.mark.parametrize(
    "path", ["gone.png", "../secret.png", "/{0}/secret.png", "https://example.org/a.png", "a\0b"]
)
def test_paths_of_a_table_lead_nowhere_else(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.png").write_bytes(png(picture(0)))
    root = fill(tmp_path / "paths", 1)
    path = path.format(str(tmp_path).lstrip("/"))
    write(root / "train.parquet", pa.array([{"bytes": None, "path": path}] * 40, STRUCT))
    with (
        pytest.warns(UserWarning, match="beside parquet"),
        pytest.raises(
            DataError, match=r"row whose image is a file that is not in .*paths, train.parquet, row 0"
        ),
    ):
        prepared(root)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "gone.png", ""])
def test_paths_of_metadata_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(png(picture(0)))
    root = fill(tmp_path / "a", 8)
    (root / "metadata.csv").write_text(f'file_name,text\n000.png,x\n"{name}",y\n')
    with pytest.raises(DataError, match=r"metadata.csv"):
        prepared(root)


def test_a_number_of_rows_that_cannot_be_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.parquet", pa.array([png(picture(0))] * 20, pa.binary()))
    monkeypatch.setattr("walkback_hf.tables._MOST_ROWS_A_BYTE", 0)
    with pytest.raises(DataError, match=r"says it has 20 rows in [\d,]+ bytes, x.parquet; replace the file"):
        find_local(path)


# `save_to_disk`


def labelled(rows: range) -> datasets.Dataset:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])}
    )
    content = {
        "image": [{"bytes": png(picture(n)), "path": None} for n in rows],
        "label": [n % 2 for n in rows],
    }
    return datasets.Dataset.from_dict(content, features)


def test_a_saved_data_set_is_read_with_its_splits_and_classes(tmp_path: Path) -> None:
    parts = {
        "train": labelled(range(20)),
        "validation": labelled(range(20, 24)),
        "test": labelled(range(24, 30)),
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    data = prepared(tmp_path / "saved")
    assert data.info.splits == {"train": 20, "validation": 4, "test": 6}
    assert data.classes == ("even", "odd")
    for split, rows in (("train", range(20)), ("validation", range(20, 24)), ("test", range(24, 30))):
        assert np.array_equal(data.examples(split)[:, 0], np.stack([picture(n) for n in rows]))
        assert data.labels(split).tolist() == [n % 2 for n in rows]


def test_a_shuffled_and_sharded_save_is_in_its_own_order(tmp_path: Path) -> None:
    saved = labelled(range(40)).shuffle(seed=0).select(range(30))
    saved.save_to_disk(tmp_path / "saved", num_shards=4)
    found = find_local(tmp_path / "saved").splits["all"]
    expected = [row["image"]["bytes"] for row in saved.cast_column("image", datasets.Image(decode=False))]
    assert [image.data for image in found.read(np.arange(found.count))] == expected


def test_files_of_an_image_folder_are_saved_with_it(tmp_path: Path) -> None:
    root = fill(tmp_path / "a", 20)
    loaded = datasets.load_dataset(str(root), cache_dir=str(tmp_path / "hf"), split="train")
    loaded.save_to_disk(tmp_path / "saved")
    assert as_set(prepared(tmp_path / "saved")) == as_set(prepared(root))


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_damaged_save_is_named(tmp_path: Path, name: str) -> None:
    labelled(range(20)).save_to_disk(tmp_path / "saved")
    whole = (tmp_path / "saved" / name).read_bytes()
    (tmp_path / "saved" / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"saved"):
        prepared(tmp_path / "saved")
    (tmp_path / "saved" / name).unlink()
    with pytest.raises(DataError, match=r"saved|no images in"):
        prepared(tmp_path / "saved")


def test_a_saved_table_without_images_is_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(
        DataError, match=re.escape("no image column in saved, only text (string); expected encoded")
    ):
        find_local(tmp_path / "saved")


def test_pixels_beyond_8_bits_keep_their_depth() -> None:
    values = np.array([[0, 4095], [2048, 1]])
    data = columns._encode(values.tolist(), "x", deep=True)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), values)
