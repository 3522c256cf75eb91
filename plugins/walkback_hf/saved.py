"""Folders that `datasets` saves with `save_to_disk`: one dataset, or one for each split."""

from __future__ import annotations

from pathlib import Path

from walkback.errors import DataError
from walkback_hf.columns import image_column
from walkback_hf.encoded import Found
from walkback_hf.names import shown
from walkback_hf.tables import ArrowColumn

_ONE, _SEVERAL = "state.json", "dataset_dict.json"


def is_saved(folder: Path) -> bool:
    """Returns whether the folder was saved by `datasets`."""
    return (folder / _ONE).is_file() or (folder / _SEVERAL).is_file()


def find_saved(folder: Path, column: str | None) -> Found:
    """Returns the images of a saved dataset by split.

    Args:
        folder: The folder that `datasets` saved.
        column: The column of images; None finds it automatically.

    Raises:
        DataError: It cannot be loaded, or it has no images.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # from `datasets`, on arbitrary files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"Got a folder of datasets.save_to_disk that cannot be loaded, {shown(folder)} ({reason:.300}); save it "
            "again."
        ) from error
    several = isinstance(loaded, datasets.DatasetDict)
    splits = {}
    for split, part in loaded.items() if several else [("all", loaded)]:
        place = f"{folder.name}/{split}" if several else folder.name
        table = part.data
        images = table.column(image_column(table.schema, column, place))
        splits[str(split)] = ArrowColumn(place, images, table, folder / str(split) if several else folder)
    return Found(splits, "found a data set saved by datasets; splits by its own names")
