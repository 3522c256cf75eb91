"""Images from any hub dataset or local folder."""

from __future__ import annotations

import warnings
from typing import final

from pydantic import NonNegativeFloat, PositiveInt
from typing_extensions import override

from walkback.data import Condition
from walkback.data.pixels import Binarize, GreyLevels
from walkback.errors import ConfigurationError
from walkback_hf.encoded import Found
from walkback_hf.folders import find_local
from walkback_hf.hub import find_hub
from walkback_hf.images import ImageOptions, LabelledImages
from walkback_hf.names import is_hub_id, local_path


@final
class Hub(LabelledImages):
    """The images of any dataset on the Hugging Face hub."""

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - the hub's term, and the name of the option
        config: str | None = None,
        column: str | None = None,
        size: PositiveInt | None = None,
        grayscale: bool | None = None,
        limit: PositiveInt | None = None,
        binarize: Binarize = "none",
        dequantize: bool = True,
        noise: NonNegativeFloat = 0.0,
        condition: Condition = "none",
    ) -> None:
        """Initializes the source.

        Args:
            id: `owner/name`.
            config: Configuration (subset); required if the dataset has several.
            column: Column of images; None finds it by its type.
            size: Side of the square to which images are resized and center-cropped; None keeps their size.
            grayscale: One channel (True), three (False), or as in the first image (None).
            limit: Use only the first `limit` training examples.
            binarize: "threshold" at 128, or "stochastic", with probability v / 255.
            dequantize: Add uniform noise of one grey level; without it there are no bits/dim.
            noise: Standard deviation of Gaussian noise added to states of [0, 1]; with it there are no bits/dim.
            condition: Whether a model is told the class of each image ("label"), which needs a column of classes.

        Raises:
            ConfigurationError: `id` does not have the form owner/name, or an option is out of range.
        """
        if not is_hub_id(id):
            raise ConfigurationError(f"Got data.id = {id!r}; expected a hub id such as ylecun/mnist.")
        super().__init__(
            id, ImageOptions(size, grayscale, limit, condition), GreyLevels(binarize, dequantize, noise=noise)
        )
        self._where = (id, config, column)

    @override
    def find(self) -> Found:
        return find_hub(*self._where)


@final
class Folder(LabelledImages):
    """The images of a local folder, or of local parquet files."""

    def __init__(
        self,
        *,
        path: str,
        column: str | None = None,
        size: PositiveInt | None = None,
        grayscale: bool | None = None,
        limit: PositiveInt | None = None,
        binarize: Binarize = "none",
        dequantize: bool = True,
        noise: NonNegativeFloat = 0.0,
        condition: Condition = "none",
    ) -> None:
        """Initializes the source; the options are those of `Hub`.

        Args:
            path: A folder of images or parquet files, searched with all its subfolders, or one parquet file.
            column: Column of images in parquet files; None finds it by its type.
            size: Side of the square to which images are resized and center-cropped; None keeps their size.
            grayscale: One channel (True), three (False), or as in the first image (None).
            limit: Use only the first `limit` training examples.
            binarize: "threshold" at 128, or "stochastic", with probability v / 255.
            dequantize: Add uniform noise of one grey level; without it there are no bits/dim.
            noise: Standard deviation of Gaussian noise added to states of [0, 1]; with it there are no bits/dim.
            condition: Whether a model is told the class of each image ("label"), which needs a column of classes.

        Raises:
            ConfigurationError: An option is out of range.
        """
        place = local_path(path)
        name = place.absolute().stem if place.suffix == ".parquet" else place.absolute().name
        super().__init__(
            name or path,
            ImageOptions(size, grayscale, limit, condition),
            GreyLevels(binarize, dequantize, noise=noise),
        )
        self._place = place
        self._column = column

    @override
    def find(self) -> Found:
        found = find_local(self._place, self._column)
        if found.left_out:
            warnings.warn(f"Left out of {self._place}: {found.left_out}.", stacklevel=2)
        return found
