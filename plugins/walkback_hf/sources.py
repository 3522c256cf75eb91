"""Images from well-known datasets, from any hub dataset, and from local folders.

`**image` stands for the options of `Images`, which all have in common.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, TypeAlias, final

from typing_extensions import override

from walkback.errors import ConfigurationError
from walkback_hf.encoded import Found
from walkback_hf.folders import find_local
from walkback_hf.hub import find_hub
from walkback_hf.images import Images
from walkback_hf.named import TABLE
from walkback_hf.names import is_hub_id, local_path

Known: TypeAlias = Literal["mnist", "fashion-mnist", "cifar10", "svhn", "celeba", "celeba-faces"]
"""The keys of `named.TABLE`."""


@final
class Named(Images):
    """The images of a well-known dataset of the hub."""

    def __init__(self, *, source: Known, **image: Any) -> None:
        """Initializes the source.

        Args:
            source: Which dataset.
            **image: Options of `Images`; those that the table does not set have their usual defaults.

        Raises:
            ConfigurationError: An option is out of range.
        """
        entry = TABLE[source]
        super().__init__(source, **{**entry.preset, **image})
        self._where = (entry.id, entry.config, entry.column)

    @override
    def find(self) -> Found:
        return find_hub(*self._where)


@final
class Hub(Images):
    """The images of any dataset on the Hugging Face hub."""

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - the hub's term, and the name of the option
        config: str | None = None,
        column: str | None = None,
        **image: Any,
    ) -> None:
        """Initializes the source.

        Args:
            id: `owner/name`.
            config: Configuration (subset); required if the dataset has several.
            column: Column of images; None finds it by its type.
            **image: Options of `Images`.

        Raises:
            ConfigurationError: `id` does not have the form owner/name, or an option is out of range.
        """
        if not is_hub_id(id):
            raise ConfigurationError(f"Got data.id = {id!r}; expected a hub id such as ylecun/mnist.")
        super().__init__(id, **image)
        self._where = (id, config, column)

    @override
    def find(self) -> Found:
        return find_hub(*self._where)


@final
class Folder(Images):
    """The images of a local folder, or of local parquet files."""

    def __init__(
        self,
        *,
        path: str,
        column: str | None = None,
        **image: Any,
    ) -> None:
        """Initializes the source.

        Args:
            path: A folder of images or parquet files, searched with all its subfolders, or one parquet file.
            column: Column of images in parquet files; None finds it by its type.
            **image: Options of `Images`.

        Raises:
            ConfigurationError: An option is out of range.
        """
        place = local_path(path)
        name = place.absolute().stem if place.suffix == ".parquet" else place.absolute().name
        super().__init__(name or path, **image)
        self._place = place
        self._column = column

    @override
    def find(self) -> Found:
        found = find_local(self._place, self._column)
        if found.left_out:
            warnings.warn(f"Left out of {self._place}: {found.left_out}.", stacklevel=2)
        return found
