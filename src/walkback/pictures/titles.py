"""Titles above the columns of a filmstrip, and a line below a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from walkback.pictures.images import Picture

_LINE = 12  # pixels
_FOOTER = 20  # pixels
_GREY = 128  # same as the background of a filmstrip


def titled_columns(strip: Picture, titles: Sequence[str], pad: int = 4) -> Picture:
    """Put a title above each column of a picture made by `tile`.

    The parts of a title, as in "t = 4, T = 2.8", are on separate lines. If a title is wider than its column, "t = " and
    "T = " are dropped from all titles; if that does not help, all titles are omitted.

    Args:
        strip: Picture `(H, W, C)` of `len(titles)` columns that are `pad` pixels apart.
        titles: Titles, from left to right.
        pad: Pixels between two columns.
    """
    width = (strip.shape[1] - pad) / len(titles)
    measure = ImageDraw.Draw(Image.new("L", (1, 1)))

    def fits(texts: Sequence[str]) -> bool:
        return all(measure.textlength(line) < width for text in texts for line in text.split(", "))

    variants = (titles, [title.replace("t = ", "").replace("T = ", "") for title in titles])
    chosen = next((texts for texts in variants if fits(texts)), None)
    if chosen is None:
        return strip
    lines = max(text.count(", ") + 1 for text in chosen)
    header = Image.new("L", (strip.shape[1], lines * _LINE), _GREY)
    draw = ImageDraw.Draw(header)
    for column, text in enumerate(chosen):
        for row, line in enumerate(text.split(", ")):
            draw.text((pad + (column + 0.5) * width - pad / 2, row * _LINE + 1), line, fill=0, anchor="ma")
    pixels = np.asarray(header)[..., None]
    return np.concatenate([np.broadcast_to(pixels, (*pixels.shape[:2], strip.shape[2])), strip])


def footed(picture: Picture, text: str) -> Picture:
    """Put a line of text below an RGB picture `(H, W, 3)`; the picture itself if the text is empty."""
    if not text:
        return picture
    footer = Image.new("RGB", (picture.shape[1], _FOOTER), (255, 255, 255))
    ImageDraw.Draw(footer).text((14, 2), text, (60, 60, 60), font_size=12)
    return np.concatenate([picture, np.asarray(footer)])
