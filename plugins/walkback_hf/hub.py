"""The Hugging Face hub and its local substitutes: a mirror first, then the cache of `datasets`.

A mirror is the folder `WALKBACK_DATA`, with the layout `<hub id>/<config>/<split>-*.parquet`. Data in neither place are
downloaded, after a quick check that the hub answers, because `datasets` retries for a long time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from walkback.errors import DataError
from walkback.support.reach import answers
from walkback_hf.columns import image_column
from walkback_hf.encoded import EncodedImages, Found
from walkback_hf.folders import find_local
from walkback_hf.names import local_path
from walkback_hf.splits import split_named
from walkback_hf.tables import ArrowColumn

_PATIENCE = 3.0
_SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def find_hub(hub_id: str, config: str | None, column: str | None) -> Found:
    """Returns the images of a hub dataset by split, from the mirror, the cache of `datasets` or the hub.

    Args:
        hub_id: `owner/name`.
        config: The configuration (subset) of the dataset; None if there is only one.
        column: The column of images; None finds it automatically.

    Raises:
        DataError: The dataset is not available, or it holds no images.
    """
    mirrored = _mirrored(hub_id, config)
    if mirrored is not None:
        return Found(find_local(mirrored, column).splits)
    tables = _cached(hub_id, config) or _download(hub_id, config)
    found: dict[str, EncodedImages] = {}
    for split, table in tables.items():
        place = f"{hub_id} ({split})"
        images = table.data.column(image_column(table.data.schema, column, place))
        found[split] = ArrowColumn(place, images, table.data)
    return Found(found)


def _mirrored(hub_id: str, config: str | None) -> Path | None:
    """Returns the folder of the mirror that holds the dataset; None if there is none."""
    setting = os.environ.get("WALKBACK_DATA")
    if not setting:
        return None
    mirror = local_path(setting)
    if not mirror.is_dir():
        raise DataError(f"Got WALKBACK_DATA = {setting}, which is not a folder; correct or unset it.")
    folder = mirror / hub_id
    if not folder.is_dir():
        return None
    configs = sorted(path.name for path in folder.iterdir() if path.is_dir() and any(path.rglob("*.parquet")))
    if config is None:
        if len(configs) > 1 and not any(split_named(name) for name in configs):
            raise DataError(
                f"Got several configurations of {hub_id}; set data.config to one of {', '.join(configs)}."
            )
        return folder
    if config not in configs:
        raise DataError(
            f"Got a mirror of {hub_id} without configuration {config!r}; "
            f"expected {folder / config}/train-*.parquet."
        )
    return folder / config


def _cached(hub_id: str, config: str | None) -> Mapping[str, Any] | None:
    """Returns what `datasets` downloaded earlier, without network access; None if there is nothing."""
    from datasets.packaged_modules.cache.cache import Cache

    try:
        builder = Cache(
            dataset_name=hub_id.split("/")[1], repo_id=hub_id, config_name=config, version="auto", hash="auto"
        )
        builder.download_and_prepare()
        tables: Mapping[str, Any] = builder.as_dataset()
    except (OSError, ValueError, KeyError):
        return None
    return tables


def _download(hub_id: str, config: str | None) -> Mapping[str, Any]:
    obstacle = _obstacle()
    if obstacle is not None:
        files = f"{hub_id}/{config or '<config>'}/train-*.parquet"
        mirror = os.environ.get("WALKBACK_DATA")
        remedy = (
            f"put {files} into {mirror}" if mirror else f"set WALKBACK_DATA to a folder that holds {files}"
        )
        raise DataError(
            f"Got {hub_id!r}, which is neither a local path nor in a mirror or the Hugging Face cache, "
            f"while the hub is {obstacle}; connect, or {remedy}."
        )
    import datasets

    try:
        tables: Mapping[str, Any] = datasets.load_dataset(hub_id, config)
    except Exception as error:  # from the network, the hub, or the dataset's files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"Got no dataset {hub_id!r} from the hub ({reason}); check its id and data.config."
        ) from error
    return tables


def _obstacle() -> str | None:
    """Returns why the hub is not available; None if it answers."""
    for switch in _SWITCHES:
        if os.environ.get(switch, "").upper() in ("1", "ON", "YES", "TRUE"):
            return f"switched off ({switch})"
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return None if answers(endpoint, _PATIENCE) else f"out of reach ({endpoint})"
