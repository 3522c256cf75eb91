"""Well-known image datasets of the Hugging Face hub, by name.

Their options mean the same everywhere: `size` resizes and centre-crops to a square, `grayscale` leaves one
channel, `limit` takes the first training examples only, `binarize` and `dequantize` are those of
`walkback.data.pixels`, and `condition` says whether a model is told the class of an image.
"""

from __future__ import annotations

from typing import final

from pydantic import NonNegativeFloat, PositiveInt
from typing_extensions import override

from walkback.data import Condition
from walkback.data.pixels import Binarize, GreyLevels
from walkback_hf.encoded import Found
from walkback_hf.hub import find_hub
from walkback_hf.images import ImageDataset, ImageOptions, LabelledImages


@final
class Mnist(LabelledImages):
    """Handwritten digits, 28×28 (LeCun, Cortes and Burges)."""

    def __init__(
        self,
        *,
        size: PositiveInt | None = None,
        limit: PositiveInt | None = None,
        binarize: Binarize = "none",
        dequantize: bool = True,
        noise: NonNegativeFloat = 0.0,
        condition: Condition = "none",
    ) -> None:
        super().__init__(
            "mnist", ImageOptions(size, True, limit, condition), GreyLevels(binarize, dequantize, noise=noise)
        )

    @override
    def find(self) -> Found:
        return find_hub("ylecun/mnist", "mnist", "image")


@final
class FashionMnist(LabelledImages):
    """Clothes, 28×28 (Xiao, Rasul and Vollgraf, 2017)."""

    def __init__(
        self,
        *,
        size: PositiveInt | None = None,
        limit: PositiveInt | None = None,
        binarize: Binarize = "none",
        dequantize: bool = True,
        noise: NonNegativeFloat = 0.0,
        condition: Condition = "none",
    ) -> None:
        super().__init__(
            "fashion-mnist",
            ImageOptions(size, True, limit, condition),
            GreyLevels(binarize, dequantize, noise=noise),
        )

    @override
    def find(self) -> Found:
        return find_hub("zalando-datasets/fashion_mnist", "fashion_mnist", "image")


@final
class Cifar10(LabelledImages):
    """Small photographs of ten classes, 32×32 (Krizhevsky, 2009)."""

    def __init__(
        self,
        *,
        size: PositiveInt | None = None,
        grayscale: bool = False,
        limit: PositiveInt | None = None,
        binarize: Binarize = "none",
        dequantize: bool = True,
        noise: NonNegativeFloat = 0.0,
        condition: Condition = "none",
    ) -> None:
        super().__init__(
            "cifar10",
            ImageOptions(size, grayscale, limit, condition),
            GreyLevels(binarize, dequantize, noise=noise),
        )

    @override
    def find(self) -> Found:
        return find_hub("uoft-cs/cifar10", "plain_text", "img")


@final
class Svhn(LabelledImages):
    """House numbers cropped to one digit, 32×32 (Netzer et al., 2011)."""

    def __init__(
        self,
        *,
        size: PositiveInt | None = None,
        grayscale: bool = False,
        limit: PositiveInt | None = None,
        binarize: Binarize = "none",
        dequantize: bool = True,
        noise: NonNegativeFloat = 0.0,
        condition: Condition = "none",
    ) -> None:
        super().__init__(
            "svhn",
            ImageOptions(size, grayscale, limit, condition),
            GreyLevels(binarize, dequantize, noise=noise),
        )

    @override
    def find(self) -> Found:
        return find_hub("ufldl-stanford/svhn", "cropped_digits", "image")


@final
class Celeba(ImageDataset):
    """Aligned faces with the official splits: 178×218 → 64×78 → center 64×64 (Liu et al., 2015)."""

    def __init__(
        self,
        *,
        size: PositiveInt = 64,
        grayscale: bool = False,
        limit: PositiveInt | None = None,
        binarize: Binarize = "none",
        dequantize: bool = True,
        noise: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__(
            "celeba", ImageOptions(size, grayscale, limit), GreyLevels(binarize, dequantize, noise=noise)
        )

    @override
    def find(self) -> Found:
        return find_hub("flwrlabs/celeba", "img_align+identity+attr", "image")


@final
class CelebaFaces(ImageDataset):
    """Aligned faces from a dataset without splits, prepared like `Celeba`."""

    def __init__(
        self,
        *,
        size: PositiveInt = 64,
        grayscale: bool = False,
        limit: PositiveInt | None = None,
        binarize: Binarize = "none",
        dequantize: bool = True,
        noise: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__(
            "celeba-faces",
            ImageOptions(size, grayscale, limit),
            GreyLevels(binarize, dequantize, noise=noise),
        )

    @override
    def find(self) -> Found:
        return find_hub("nielsr/CelebA-faces", None, "image")
