"""Data sets of the hub: the local mirror, the cache of `datasets`, the download, and a hub out of reach."""

from __future__ import annotations

import io
import json
import shutil
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import get_args

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from walkback.building.assembly import build_dataset
from walkback.configuration.layering import resolve_data
from walkback.configuration.schema import component_options
from walkback.errors import ConfigurationError, DataError
from walkback.extensions.registry import Registry
from walkback.support import reach
from walkback_hf import hub
from walkback_hf.named import TABLE
from walkback_hf.plugin import walkback_datasets
from walkback_hf.sources import Hub, Known, Named

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path, monkeypatch):
    """No mirror, empty caches, no offline switch, no proxy, and nobody at the hub's address."""
    for name in (*OFFLINE, "WALKBACK_DATA", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WALKBACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def downloads(monkeypatch):
    """What is asked of `datasets.load_dataset`, which answers with 20 images of training and 5 of test."""
    asked: list[tuple[str, str | None]] = []

    def answer(hub_id, config):
        asked.append((hub_id, config))
        return datasets.DatasetDict({"train": labelled(range(20)), "test": labelled(range(20, 25))})

    monkeypatch.setattr(datasets, "load_dataset", answer)
    return asked


@pytest.fixture
def endpoint(monkeypatch):
    """A hub that answers; yields the number of requests by method."""
    requests: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            requests["HEAD"] += 1
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield requests
        server.shutdown()
        thread.join()


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    path = tmp_path / "mirror"
    path.mkdir()
    monkeypatch.setenv("WALKBACK_DATA", str(path))
    return path


def pixels(seed: int, side: int = 6, channels: int = 1) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)
    return values[..., 0] if channels == 1 else values


def encoded(seed: int, **shape: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(seed, **shape)).save(file, "PNG")
    return file.getvalue()


def labelled(rows) -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    images = [{"bytes": encoded(row), "path": None} for row in rows]
    return datasets.Dataset.from_dict({"image": images, "label": list(rows)}, features)


def table(rows, column: str = "image", **shape: int) -> pa.Table:
    return pa.table({column: [{"bytes": encoded(row, **shape), "path": None} for row in rows]})


def write(folder, split: str, content: pa.Table) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, folder / f"{split}-00000-of-00001.parquet")


def prepared(data):
    data.prepare()
    return data


# Mirror


@pytest.mark.parametrize(
    ("name", "where", "column", "splits", "shape"),
    [
        ("mnist", "ylecun/mnist/mnist", "image", ("train", "test"), (1, 6, 6)),
        (
            "fashion-mnist",
            "zalando-datasets/fashion_mnist/fashion_mnist",
            "image",
            ("train", "test"),
            (1, 6, 6),
        ),
        ("cifar10", "uoft-cs/cifar10/plain_text", "img", ("train", "test"), (3, 6, 6)),
        ("svhn", "ufldl-stanford/svhn/cropped_digits", "image", ("train", "test", "extra"), (3, 6, 6)),
        (
            "celeba",
            "flwrlabs/celeba/img_align+identity+attr",
            "image",
            ("train", "valid", "test"),
            (3, 64, 64),
        ),
        ("celeba-faces", "nielsr/CelebA-faces/data", "image", ("train",), (3, 64, 64)),
    ],
)
def test_named_sets_are_read_from_their_place_in_the_mirror(mirror, name, where, column, splits, shape):
    for start, split in enumerate(splits):
        write(mirror / where, split, table(range(20 * start, 20 * start + 20), column, channels=shape[0]))
    info = prepared(Named(source=name)).info
    assert (info.name, info.shape) == (name, shape)
    assert info.splits["train"] == (20 if len(splits) == 3 and "valid" in splits else 18)
    assert all(info.splits.values())


def test_each_entry_of_the_table_is_a_source_and_a_component():
    """The table is said in three places: its keys, what `source` takes, and the names that users type."""
    assert tuple(TABLE) == get_args(Known)
    components = {component.name: component for component in walkback_datasets()}
    assert [name for name in components if name in TABLE] == list(TABLE)
    known = component_options(Named).model_fields
    for name, entry in TABLE.items():
        assert components[name].target == "walkback_hf.sources:Named"
        assert components[name].preset == {"source": name, **entry.preset}
        assert components[name].preset.keys() <= known.keys()


@pytest.mark.parametrize("name", TABLE)
def test_named_sets_have_the_options_of_image_data_only(name):
    registry = Registry.discover()
    expected = {
        "size",
        "grayscale",
        "limit",
        "binarize",
        "dequantize",
        "noise",
        "flip",
        "condition",
        "source",
    }
    assert resolve_data(registry, name).options.keys() == expected
    with pytest.raises(ConfigurationError, match=r"Unknown option 'data\.id'"):
        resolve_data(registry, name, ["data.id=some/thing"])


def test_options_of_before_the_table_give_the_data_of_before(mirror):
    """Checkpoints of mnist recorded neither `source` nor `grayscale`, those of celeba no `condition`."""
    for start, split in enumerate(("train", "test")):
        write(mirror / "ylecun/mnist/mnist", split, table(range(20 * start, 20 * start + 20), channels=3))
    registry = Registry.discover()
    old = ["data.size=4", "data.limit=7", 'data.binarize="none"', "data.dequantize=true", "data.noise=0.0"]
    info = prepared(build_dataset(resolve_data(registry, "mnist", old), registry)).info
    assert (info.name, info.shape, info.splits["train"]) == ("mnist", (1, 4, 4), 7)
    assert resolve_data(registry, "celeba").options["size"] == 64


def test_the_mirror_goes_before_cache_and_hub(mirror, downloads, endpoint):
    write(mirror / "some/thing/default", "train", table(range(20)))
    assert prepared(Hub(id="some/thing")).info.name == "some/thing"
    assert (downloads, endpoint) == ([], {})


def test_what_the_mirror_lacks_is_asked_of_the_hub(mirror, downloads, endpoint):
    prepared(Hub(id="some/thing"))
    assert downloads == [("some/thing", None)]


def test_a_mirror_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.setenv("WALKBACK_DATA", "/no/such/mirror")
    with pytest.raises(DataError, match="WALKBACK_DATA = /no/such/mirror, which is not a folder"):
        Named(source="mnist").prepare()


def test_configurations_of_the_mirror_are_chosen_by_name(mirror):
    for config, rows in (("small", range(20)), ("large", range(40))):
        write(mirror / "some/thing" / config, "train", table(rows))
    assert prepared(Hub(id="some/thing", config="large")).info.splits["train"] == 36
    with pytest.raises(DataError, match=r"several configurations .* data.config to one of large, small"):
        Hub(id="some/thing").prepare()
    with pytest.raises(DataError, match=r"without configuration 'huge'; expected .*huge/train-\*\.parquet"):
        Hub(id="some/thing", config="huge").prepare()


# Hub


def test_a_download_is_asked_for_once_the_hub_answers(downloads, endpoint):
    data = prepared(Hub(id="some/thing", config="plain"))
    assert (downloads, endpoint) == ([("some/thing", "plain")], {"HEAD": 1})
    assert data.info.splits == {"train": 18, "validation": 2, "test": 5}
    assert np.array_equal(data.examples("test")[0, 0], pixels(20))


def test_download_and_mirror_of_the_same_images_are_the_same_data(mirror, downloads, endpoint):
    downloaded = prepared(Hub(id="some/thing")).info
    write(mirror / "some/thing/default", "train", table(range(20)))
    write(mirror / "some/thing/default", "test", table(range(20, 25)))
    assert prepared(Hub(id="some/thing")).info == downloaded


def test_a_wrong_column_of_a_download_is_named(downloads, endpoint):
    with pytest.raises(DataError, match=r"column without images, 'label' of some/thing \(train\)"):
        Hub(id="some/thing", column="label").prepare()


def test_a_row_of_a_download_without_image_is_named():
    column = pa.chunked_array([[encoded(0)] * 4, [encoded(0), None] * 8])
    images = hub.ArrowColumn("some/thing (train)", column)
    with pytest.raises(DataError, match=r"row without an image, some/thing \(train\), row 5"):
        list(images.read(np.arange(20)))


def test_images_kept_as_paths_are_read_from_there(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(3))
    column = pa.chunked_array([[{"bytes": None, "path": str(tmp_path / "a.png")}]])
    assert [image.data for image in hub.ArrowColumn("x", column).read(np.arange(1))] == [encoded(3)]


def test_a_refusal_of_the_hub_is_told_in_one_sentence(monkeypatch, endpoint):
    def refuse(hub_id, config):
        raise FileNotFoundError("Dataset 'some/thing' doesn't exist on the Hub\nor cannot be accessed.")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError) as caught:
        Hub(id="some/thing").prepare()
    assert str(caught.value) == (
        "Got no dataset 'some/thing' from the hub (Dataset 'some/thing' doesn't exist on the Hub); "
        "check its id and data.config."
    )


# Out of reach


def test_a_hub_out_of_reach_is_tried_once_and_the_way_out_is_told(downloads, monkeypatch):
    attempts: list[str] = []
    head = reach._head
    monkeypatch.setattr(reach, "_head", lambda url, patience: attempts.append(url) or head(url, patience))
    with pytest.raises(DataError) as caught:
        Named(source="mnist").prepare()
    message = str(caught.value)
    assert len(attempts) == 1
    assert downloads == []
    assert f"the hub is out of reach ({attempts[0]})" in message
    assert "set WALKBACK_DATA to a folder that holds ylecun/mnist/mnist/train-*.parquet" in message
    assert message.count(". ") == 0


def test_with_a_mirror_the_way_out_is_into_it(mirror, downloads):
    with pytest.raises(DataError, match=r"put some/thing/<config>/train-\*\.parquet into .*mirror\.$"):
        Hub(id="some/thing").prepare()


@pytest.mark.parametrize("switch", OFFLINE)
def test_an_offline_switch_is_obeyed_without_a_try(monkeypatch, downloads, endpoint, switch):
    monkeypatch.setenv(switch, "1")
    with pytest.raises(DataError, match=rf"the hub is switched off \({switch}\)"):
        Hub(id="some/thing").prepare()
    assert (downloads, endpoint) == ([], {})


@pytest.mark.parametrize("address", ["file:///etc", "nonsense", "http://"])
def test_an_address_that_is_none_counts_as_out_of_reach(monkeypatch, downloads, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(DataError, match="out of reach"):
        Hub(id="some/thing").prepare()


def test_a_server_that_accepts_and_stays_silent_is_given_up(monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert not reach.answers(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.2)


def test_a_name_lookup_that_hangs_is_left_behind(monkeypatch):
    hanging = threading.Event()
    monkeypatch.setattr(reach, "_head", lambda url, patience: 200 if hanging.wait() else 503)
    assert not reach.answers("http://hub.invalid", 0.2)
    hanging.set()


# The cache of `datasets`


def cache_hub_dataset(tmp_path) -> None:
    """Lay out what a download of some/thing leaves behind, from what `datasets` makes of a local file."""
    write(tmp_path / "source", "train", table(range(20)))
    files = {"train": str(tmp_path / "source" / "train-00000-of-00001.parquet")}
    datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "build"))
    (made,) = (tmp_path / "build" / "parquet").glob("*/*/*/dataset_info.json")
    target = tmp_path / "hf" / "some___thing" / "default" / "0.0.0" / "abc"
    shutil.copytree(made.parent, target)
    (target / "parquet-train.arrow").rename(target / "thing-train.arrow")
    record = json.loads((target / "dataset_info.json").read_text())
    record.update(dataset_name="thing", config_name="default", builder_name="parquet")
    (target / "dataset_info.json").write_text(json.dumps(record))


def test_a_cached_data_set_works_offline_and_asks_nobody(tmp_path, monkeypatch, endpoint):
    cache_hub_dataset(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = prepared(Hub(id="some/thing"))
    assert endpoint == {}
    assert data.info.splits == {"train": 18, "validation": 1, "test": 1}
    assert np.array_equal(data.examples("train")[0, 0], pixels(0))
    with pytest.raises(DataError, match="switched off"):
        Hub(id="some/other").prepare()
