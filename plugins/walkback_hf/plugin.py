"""Image datasets of the Hugging Face hub, of a local mirror of it, and of local folders.

Set `WALKBACK_DATA` to read `<hub id>/<config>/<split>-*.parquet` below that folder instead of from the hub.
"""

from __future__ import annotations

from collections.abc import Iterator

from walkback.component import Component, DatasetSource
from walkback.hookspecs import hookimpl
from walkback_hf.names import exists, is_hub_id, local_path


@hookimpl
def walkback_datasets() -> Iterator[Component]:
    """Well-known image datasets by name, and two whose source is an option."""
    named = "walkback_hf.named"
    yield Component("mnist", f"{named}:Mnist", "Handwritten digits, 28×28 gray: 55,000 / 5,000 / 10,000.")
    yield Component("fashion-mnist", f"{named}:FashionMnist", "Clothes, 28×28 gray: 55,000 / 5,000 / 10,000.")
    yield Component("cifar10", f"{named}:Cifar10", "Small photographs, 32×32 color: 45,000 / 5,000 / 10,000.")
    yield Component("svhn", f"{named}:Svhn", "House numbers, 32×32 color, cropped to one digit.")
    yield Component(
        "celeba", f"{named}:Celeba", "Aligned faces, 64×64 color, the paper's crop, official splits."
    )
    yield Component("celeba-faces", f"{named}:CelebaFaces", "Aligned faces, 64×64 color, split 90/5/5.")
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
