"""Data that were once lost or misread without a word, by the program's own door: `Folder`, a path, a tensor.

One test a fault, each with the smallest input that showed it; what the rules are, and their other cases, is in
`tests/test_data_hf_*.py`.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from walkback.building.assembly import build_dataset
from walkback.configuration.layering import resolve_data
from walkback.data import SPLITS
from walkback.data.tensors import TensorData
from walkback.errors import DataError
from walkback.extensions.registry import Registry
from walkback_hf.sources import Folder

RNG = np.random.default_rng(0)
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALKBACK_CACHE", str(tmp_path / "cache"))


def ramp(number: int) -> np.ndarray:
    y, x = np.mgrid[0:8, 0:8]
    return ((x + 2 * y + 7 * number) % 256).astype(np.uint8)


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def fold(root: Path, count: int = 30, name: str = "{:03d}.png") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (root / name.format(number)).write_bytes(png(ramp(number)))
    return root


def prepared(path: Path, **options: object) -> Folder:
    data = Folder(path=str(path), **options)  # type: ignore[arg-type]
    data.prepare()
    return data


def pixels(data: Folder) -> torch.Tensor:
    return torch.cat([data.examples(split) for split in SPLITS])


def test_splits_one_folder_down_are_found(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        fold(tmp_path / "nest" / "chest" / split)
    assert prepared(tmp_path / "nest").info.splits == {"train": 30, "validation": 30, "test": 30}


def test_splits_in_file_names_are_found(tmp_path: Path) -> None:
    fold(tmp_path / "named", name="train_{:02d}.png")
    fold(tmp_path / "named", name="test_{:02d}.png")
    assert prepared(tmp_path / "named").info.splits == {"train": 27, "validation": 3, "test": 30}


def test_the_folder_validate_is_not_dropped(tmp_path: Path) -> None:
    for split in ("train", "validate", "test"):
        fold(tmp_path / "a" / split)
    assert prepared(tmp_path / "a").info.splits == {"train": 30, "validation": 30, "test": 30}


def test_twelve_bits_in_sixteen_keep_their_levels(tmp_path: Path) -> None:
    (tmp_path / "bits12").mkdir()
    for number in range(20):
        values = (RNG.random((16, 16)) * 4095).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "bits12" / f"{number}.tif")
    assert len(pixels(prepared(tmp_path / "bits12")).unique()) > 250


def test_masks_of_0_and_1_are_not_all_0(tmp_path: Path) -> None:
    (tmp_path / "mask01").mkdir()
    for number in range(20):
        (tmp_path / "mask01" / f"{number}.png").write_bytes(
            png((RNG.random((16, 16)) > 0.5).astype(np.uint8))
        )
    data = prepared(tmp_path / "mask01", binarize="threshold")
    states = data.states(data.examples("train"), torch.Generator())
    assert 0.45 < float(states.mean()) < 0.55


@pytest.mark.parametrize("kind", ["tif", "gif", "png"])
def test_pages_and_frames_are_not_lost(tmp_path: Path, kind: str) -> None:
    (tmp_path / "pages").mkdir()
    for number in range(5):
        pages = [Image.fromarray(ramp(8 * number + page)) for page in range(8)]
        pages[0].save(tmp_path / "pages" / f"{number}.{kind}", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=rf"several pages or frames, 0.{kind} \(8\)"):
        prepared(tmp_path / "pages")


def test_linked_folders_are_not_left_out(tmp_path: Path) -> None:
    fold(tmp_path / "real", 45)
    (fold(tmp_path / "links", 5) / "more").symlink_to("../real")
    assert sum(prepared(tmp_path / "links").info.splits.values()) == 50


def test_an_unreadable_folder_is_not_left_out(tmp_path: Path) -> None:
    """In a process that has not the right to read it."""
    fold(fold(tmp_path / "a") / "locked").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):  # the folders of pytest are its user's alone
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(folder.stat().st_mode | 0o755)
    code = (
        "import os, walkback_hf.sources as s, torch, tempfile\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "os.environ['WALKBACK_CACHE'] = tempfile.mkdtemp()\n"
        f"data = s.Folder(path={str(tmp_path / 'a')!r})\n"
        "try:\n    data.prepare(); print('read', sum(data.info.splits.values()))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("DataError Got a folder that cannot be read, locked"), done.stdout


def test_a_tensor_of_images_with_channels_last_is_refused() -> None:
    rows = torch.from_numpy(RNG.integers(0, 256, (100, 16, 16, 3), dtype=np.uint8))
    with pytest.raises(
        DataError, match=r"channels last, expected \(N, C, H, W\): pass data.permute\(0, 3, 1, 2\)"
    ):
        TensorData(rows)


def test_the_transparent_grey_of_16_bits_is_white(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(20):
        values = np.array([[0, 20_000], [40_000, 65_535]], np.uint16)
        Image.fromarray(values).save(tmp_path / "a" / f"{number}.png", transparency=0)
    assert pixels(prepared(tmp_path / "a"))[0].tolist() == [[[255, 78], [156, 255]]]


@pytest.mark.parametrize("first", [True, False])
def test_a_palette_of_greys_is_grey(tmp_path: Path, first: bool) -> None:
    root = fold(tmp_path / "a")
    image = Image.fromarray(ramp(0) // 8).convert("P")
    image.putpalette([8 * value for value in range(32) for _ in range(3)])
    image.save(root / ("00.png" if first else "x.png"))
    assert prepared(root).info.shape == (1, 8, 8)


def test_a_dark_image_of_12_bits_is_no_image_of_8(tmp_path: Path) -> None:
    """How many bits numbers in lists have is seen in all rows together, as in files."""
    images = RNG.integers(0, 4096, (40, 8, 8))
    images[0] %= 200
    pq.write_table(pa.table({"image": pa.array(images.tolist())}), tmp_path / "train.parquet")
    data = prepared(tmp_path)
    assert "files of 16 bits hold 12: v · 255 / 4,095" in data.info.preprocessing
    assert torch.equal(
        data.examples("train")[0, 0], torch.from_numpy(np.round(images[0] * 255 / 4095)).byte()
    )


@pytest.mark.parametrize("shape", ["dictionary", "list", "pixels", "paths"])
@pytest.mark.filterwarnings("ignore:Left out")
def test_parquet_of_other_shapes_is_read(tmp_path: Path, shape: str) -> None:
    root = fold(tmp_path / "a", 40)
    encoded = [png(ramp(number)) for number in range(40)]
    column = {
        "dictionary": pa.array(encoded, pa.binary()).dictionary_encode(),
        "list": pa.array([[{"bytes": data, "path": None}] for data in encoded], pa.list_(STRUCT)),
        "pixels": pa.array([ramp(number).tolist() for number in range(40)]),
        "paths": pa.array([{"bytes": None, "path": f"{number:03d}.png"} for number in range(40)], STRUCT),
    }[shape]
    table = root / "train.parquet" if shape == "paths" else tmp_path / "b" / "train.parquet"
    table.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": column}), table)
    expected = {ramp(number).tobytes() for number in range(40)}
    assert {image.numpy().tobytes() for image in pixels(prepared(table.parent))} == expected


def test_what_datasets_saved_is_read(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image()})
    rows = [{"bytes": png(ramp(number)), "path": None} for number in range(40)]
    datasets.Dataset.from_dict({"image": rows}, features).save_to_disk(tmp_path / "saved")
    assert sum(prepared(tmp_path / "saved").info.splits.values()) == 40


def test_rows_of_the_class_minus_1_are_rows_without_a_class(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = [{"bytes": png(ramp(number)), "path": None} for number in range(40)]
    table = datasets.Dataset.from_dict({"image": rows, "label": [-1, 0, 1, 1] * 10}, features)
    table.to_parquet(tmp_path / "x.parquet")
    data = prepared(tmp_path / "x.parquet")
    assert sum(data.labels(split).tolist().count(-1) for split in SPLITS) == 10


@pytest.mark.parametrize("name", ["table.npy", "table.npz", "table.csv", "table.parquet"])
def test_tables_in_a_folder_are_refused_with_advice_that_holds(tmp_path: Path, name: str) -> None:
    """What it says to do is done, and works."""
    table = RNG.standard_normal((100, 3))
    pq.write_table(pa.table({"a": table[:, 0], "b": table[:, 1]}), tmp_path / "table.parquet")
    np.save(tmp_path / "table.npy", table)
    np.savez(tmp_path / "table.npz", table)
    np.savetxt(tmp_path / "table.csv", table)
    registry = Registry.discover()
    (tmp_path / "folder").mkdir()
    (tmp_path / name).rename(tmp_path / "folder" / name)
    with pytest.raises(DataError, match=r"give such a file itself \(--data FILE\)"):
        prepared(tmp_path / "folder")
    data = build_dataset(resolve_data(registry, str(tmp_path / "folder" / name)), registry)
    data.prepare()
    assert data.info.shape == (2 if name == "table.parquet" else 3,)
