"""Inpainted images: reading masks and writing results.

.png                   rows of masked, filled and original images, one column per image
.npz, .safetensors     arrays `masked`, `filled`, `original` (N, C, H, W) and `mask` (H, W), true where kept

Pictures and .safetensors files hold the protocol in their metadata, .npz files as the JSON text `protocol`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from walkback.data import DataInfo
from walkback.errors import ConfigurationError
from walkback.pictures.archives import add_array
from walkback.pictures.images import Picture, protocol_text, save_png, tile, to_uint8
from walkback.pictures.starts import read_pixels
from walkback.storage.files import require_target, write_bytes
from walkback.storage.migrations import INPAINTED
from walkback.storage.tensorfile import save_tensors
from walkback.support.formats import NPZ, PICTURES, PNG, SAFETENSORS

GREY = 0.5
"""Value of unknown pixels in `masked`."""

_SIDES = ("top", "bottom", "left", "right")
"""Halves that can be kept."""

_COLUMNS, _WHITE = 16, 255  # images per row, and gray level of the background


def read_mask(keep: str, info: DataInfo) -> Tensor:
    """Return the mask `(H, W)`, bool, of kept pixels: one of `_SIDES`, or the white pixels of an image file.

    If the number of rows or columns is odd, the middle one belongs to the bottom or right half.

    Raises:
        ConfigurationError: The states are not images, the file cannot be read or has another size, or it keeps all
            pixels or none.
    """
    if not info.is_image:
        raise ConfigurationError(
            f"Only images, (1 or 3, H, W), can be masked by a side or a picture; these states have shape {info.shape}."
        )
    _, height, width = info.shape
    if keep not in _SIDES:
        if Path(keep).suffix.lower() not in PICTURES:
            raise ConfigurationError(f"Got '{keep}' to keep, expected {', '.join(_SIDES)}, or a .png file.")
        return _drawn_mask(Path(keep), (height, width))
    row, column = torch.arange(height)[:, None], torch.arange(width)
    first = row < height // 2 if keep in ("top", "bottom") else column < width // 2
    mask = first if keep in ("top", "left") else ~first
    return mask.expand(height, width).contiguous()


def check_target(path: Path, overwrite: bool) -> None:
    """Check, before any work, that `save_inpainted` can write a file; raises the errors of `require_target`."""
    require_target(path, _WRITERS, overwrite=overwrite)


def save_inpainted(
    path: Path, mask: Tensor, filled: Tensor, original: Tensor, protocol: Mapping[str, Any]
) -> None:
    """Write inpainted images atomically, in the format given by the extension of `path`.

    Args:
        path: The file, `.png`, `.npz` or `.safetensors`.
        mask: Mask `(H, W)`, true where pixels are kept.
        filled: Inpainted images `(N, C, H, W)`.
        original: Original images `(N, C, H, W)`.
        protocol: How the images were made, as plain JSON types.

    Raises:
        WalkbackError: The file cannot be written.
    """
    images = {
        "masked": torch.where(mask, original, GREY),
        "filled": filled,
        "original": original,
    }
    _WRITERS[path.suffix.lower()](path, images, mask, protocol)


def _draw_inpainted(images: Mapping[str, Tensor]) -> Picture:
    """Draw one row per entry of `images` `(N, C, H, W)`; after 16 columns, another band of rows follows."""
    rows = [to_uint8(part) for part in images.values()]
    columns = min(len(rows[0]), _COLUMNS)
    # The background is white, to distinguish it from gray (unknown) pixels; unused cells are white too.
    missing = -len(rows[0]) % columns
    rows = [np.pad(row, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=_WHITE) for row in rows]
    bands = np.stack(rows).reshape(len(rows), -1, columns, *rows[0].shape[1:]).swapaxes(0, 1)
    return tile(bands.reshape(-1, *rows[0].shape[1:]), columns, background=_WHITE)


def _drawn_mask(path: Path, size: tuple[int, int]) -> Tensor:
    """Read a mask from an image: white is kept, black is filled in."""
    mask = torch.from_numpy(read_pixels(path, size) >= 128)
    if bool(mask.all()) or not bool(mask.any()):
        part = "every" if bool(mask.all()) else "no"
        raise ConfigurationError(
            f"The mask {path} keeps {part} pixel: make it white where pixels are kept, and black elsewhere."
        )
    return mask


def _save_picture(
    path: Path, images: Mapping[str, Tensor], mask: Tensor, protocol: Mapping[str, Any]
) -> None:
    save_png(path, _draw_inpainted(images), protocol)


def _save_npz(path: Path, images: Mapping[str, Tensor], mask: Tensor, protocol: Mapping[str, Any]) -> None:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, values in {**images, "mask": mask}.items():
            add_array(archive, name, values.numpy())
        add_array(archive, "protocol", np.array(protocol_text(protocol)))
    write_bytes(path, buffer.getvalue())


def _save_safetensors(
    path: Path, images: Mapping[str, Tensor], mask: Tensor, protocol: Mapping[str, Any]
) -> None:
    metadata = {**INPAINTED.stamp(), "protocol": dict(protocol)}
    save_tensors(path, {**images, "mask": mask}, metadata)


_WRITERS: Mapping[str, Callable[[Path, Mapping[str, Tensor], Tensor, Mapping[str, Any]], None]] = {
    PNG: _save_picture,
    NPZ: _save_npz,
    SAFETENSORS: _save_safetensors,
}
