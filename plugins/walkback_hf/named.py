"""Well-known image datasets of the Hugging Face hub: a table.

Each entry is a component, a preset of `walkback_hf.sources:Named`. To add one, add a line here and its key to
`sources.Known`. Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from walkback.component import Component


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a dataset is on the hub, and how it is prepared.

    Attributes:
        id: `owner/name`.
        config: Configuration (subset); None if there is only one.
        column: Column of images.
        summary: One line for listings.
        preset: Options of image data with other defaults than usual.
    """

    id: str
    config: str | None
    column: str
    summary: str
    preset: Mapping[str, Any] = field(default_factory=dict)

    def component(self, name: str) -> Component:
        """Returns the component called `name` that reads this dataset."""
        preset = {"source": name, **self.preset}
        return Component(name, "walkback_hf.sources:Named", self.summary, preset=preset)


_GRAY, _COLOR = {"grayscale": True}, {"grayscale": False}

TABLE: Mapping[str, Entry] = {
    # LeCun, Cortes and Burges
    "mnist": Entry(
        "ylecun/mnist", "mnist", "image", "Handwritten digits, 28×28 gray: 55,000 / 5,000 / 10,000.", _GRAY
    ),
    # Xiao, Rasul and Vollgraf, 2017
    "fashion-mnist": Entry(
        *("zalando-datasets/fashion_mnist", "fashion_mnist", "image"),
        "Clothes, 28×28 gray: 55,000 / 5,000 / 10,000.",
        _GRAY,
    ),
    # Krizhevsky, 2009
    "cifar10": Entry(
        *("uoft-cs/cifar10", "plain_text", "img"),
        "Small photographs, 32×32 color: 45,000 / 5,000 / 10,000.",
        _COLOR,
    ),
    # Netzer et al., 2011
    "svhn": Entry(
        *("ufldl-stanford/svhn", "cropped_digits", "image"),
        "House numbers, 32×32 color, cropped to one digit.",
        _COLOR,
    ),
    # Liu et al., 2015: 178×218 → 64×78 → center 64×64
    "celeba": Entry(
        *("flwrlabs/celeba", "img_align+identity+attr", "image"),
        "Aligned faces, 64×64 color, the paper's crop, official splits.",
        {"size": 64, **_COLOR},
    ),
    # The same faces without splits, prepared like `celeba`
    "celeba-faces": Entry(
        *("nielsr/CelebA-faces", None, "image"),
        "Aligned faces, 64×64 color, split 90/5/5.",
        {"size": 64, **_COLOR},
    ),
}
