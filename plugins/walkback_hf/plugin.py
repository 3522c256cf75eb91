"""Image datasets of the Hugging Face hub, of a local mirror of it, and of local folders.

Set `WALKBACK_DATA` to read `<hub id>/<config>/<split>-*.parquet` below that folder instead of from the hub.
"""

from __future__ import annotations

from collections.abc import Iterator

from walkback.component import Component, DatasetSource
from walkback.hookspecs import hookimpl
from walkback_hf.named import TABLE
from walkback_hf.names import exists, is_hub_id, local_path


@hookimpl
def walkback_datasets() -> Iterator[Component]:
    """Well-known image datasets by name, and two whose source is an option."""
    for name, entry in TABLE.items():
        yield entry.component(name)
    yield Component(
        "hub", "walkback_hf.sources:Hub", "Images of any dataset on the Hugging Face hub (option id)."
    )
    yield Component(
        "folder", "walkback_hf.sources:Folder", "Images in a local folder or parquet file (option path)."
    )


@hookimpl
def walkback_dataset_source(source: str) -> DatasetSource | None:
    """Reads an existing path as a folder, and anything else of the form `owner/name` from the hub.

    If a local folder `owner` exists, the source is treated as a mistyped path and no request is sent to the hub.
    """
    place = local_path(source)
    if source and (exists(place) or (is_hub_id(source) and place.parent.is_dir())):
        return DatasetSource("folder", {"path": source})
    if is_hub_id(source):
        return DatasetSource("hub", {"id": source})
    return None
