"""States read from files, for chains to start from.

    .npz, .safetensors    as `walkback sample` writes them: the last frame of `states` (F, N, *E)
    .png, .jpg            one image of the right size

The files are not trusted. Headers are checked before they are used, only the requested states are read, and nothing is
unpickled.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from walkback.data import DataInfo
from walkback.errors import ConfigurationError
from walkback.storage.migrations import SAMPLES
from walkback.storage.tensorheader import opened, parse_header
from walkback.support.formats import NPZ, PICTURES, SAFETENSORS, STATES

Pixels: TypeAlias = npt.NDArray[np.uint8]

MAX_STARTS = 1000
"""Largest number of states that is read by default."""


def read_starts(path: Path, info: DataInfo, num: int | None = None) -> Tensor:
    """States `(num, *E)`, float32 on the CPU: the first of a file's last frame, or one image `num` times.

    Args:
        path: A file that `walkback sample` wrote, or an image.
        info: What the states must be.
        num: How many; None takes all there are, `MAX_STARTS` at most.

    Raises:
        ConfigurationError: The file cannot be read, or holds no such states, or too few of them.
    """
    kind = path.suffix.lower()
    if kind in PICTURES:
        return _read_image(path, info).expand(num or 1, *info.shape).contiguous()
    read = _READERS.get(kind)
    if read is None:
        raise ConfigurationError(
            f"Got {path} to start from, expected noise, data, or a file that ends in "
            f"{', '.join((*STATES, *PICTURES))}."
        )
    states = read(path, info, num)
    if not bool(states.isfinite().all()):
        raise ConfigurationError(f"Got {path} with NaN or infinity in its states, expected finite ones.")
    if info.support == "binary" and not bool(((states == 0) | (states == 1)).all()):
        raise ConfigurationError(f"Got {path} with other values than 0 and 1, expected binary states.")
    return states


def read_pixels(path: Path, size: tuple[int, int], mode: Literal["L", "RGB"] = "L") -> Pixels:
    """The bytes of an image file of height and width `size`, as grey `(H, W)` or colour `(H, W, 3)`.

    Raises:
        ConfigurationError: It is no image that can be read, or of another size.
    """
    _require_file(path)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=("PNG", "JPEG")) as image:
            _check_image(path, image, size)
            return np.asarray(image.convert(mode))
    except ConfigurationError:
        raise
    except Exception as error:  # damaged images make Pillow raise errors of many kinds
        raise ConfigurationError(f"Got {path}, which cannot be read as a .png or .jpg image.") from error


def _check_image(path: Path, image: Image.Image, size: tuple[int, int]) -> None:
    """Refuse an image of another size or type, which is known before a pixel is decoded."""
    height, width = size
    if image.size != (width, height):
        raise ConfigurationError(
            f"Got {path} of {image.width} × {image.height} pixels, expected {width} × {height}: resize it."
        )
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        raise ConfigurationError(
            f"Got {path} with pixels of type {image.mode}, expected 8 bits a channel, grey or RGB."
        )


def _read_image(path: Path, info: DataInfo) -> Tensor:
    """One image as a state `(*E)`: a byte v becomes (v + ½) / 256, the middle of its grey level, or v ≥ 128."""
    if not info.is_image:
        raise ConfigurationError(
            f"Got the image {path} to start from, but the states have shape {info.shape}."
        )
    channels, height, width = info.shape
    pixels = read_pixels(path, (height, width), "RGB" if channels == 3 else "L")
    values = torch.from_numpy(pixels.reshape(height, width, channels).copy()).permute(2, 0, 1)
    return (values >= 128).float() if info.support == "binary" else (values + 0.5) / 256


def _read_safetensors(path: Path, info: DataInfo, num: int | None) -> Tensor:
    with opened(path) as file:
        header = parse_header(file)
        spec = header.tensors.get("states")
        if header.metadata.get("kind") != SAMPLES.name or spec is None or spec.dtype != "F32":
            raise ConfigurationError(
                f"Got {path}, which holds no samples, expected a file of `walkback sample`."
            )
        SAMPLES.migrated(header.metadata, path, ConfigurationError)
        skip, take = _span(path, spec.shape, info, num)
        for name, before in header.tensors.items():
            if name == "states":
                break
            skip += before.num_bytes
        file.seek(skip, 1)
        return _rows(file, take, np.dtype("<f4"), info)


def _read_npz(path: Path, info: DataInfo, num: int | None) -> Tensor:
    _require_file(path)
    try:
        with zipfile.ZipFile(path) as archive, archive.open("states.npy") as file:
            shape, dtype = _npy_header(file)
            skip, take = _span(path, shape, info, num, dtype.itemsize)
            file.seek(skip, 1)
            return _rows(file, take, dtype, info)
    except ConfigurationError:
        raise
    except Exception as error:  # damaged archives make zipfile and numpy raise errors of many kinds
        raise ConfigurationError(
            f"Got {path}, which cannot be read, expected a .npz file of `walkback sample`."
        ) from error


_READERS: Mapping[str, Callable[[Path, DataInfo, int | None], Tensor]] = {
    NPZ: _read_npz,
    SAFETENSORS: _read_safetensors,
}


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in numpy's format; leaves `file` at its data."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, fortran_order, dtype = read(file)
    if fortran_order or dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise ValueError("expected floating-point numbers in C order")
    return shape, dtype


def _span(
    path: Path, shape: tuple[int, ...], info: DataInfo, num: int | None, itemsize: int = 4
) -> tuple[int, int]:
    """Bytes before the wanted states, and how many states; `shape` is that of all frames."""
    if len(shape) < 2 or shape[2:] != info.shape or min(shape) < 1:
        raise ConfigurationError(
            f"Got {path} with states of shape {shape}, expected (frames, chains, {', '.join(map(str, info.shape))})."
        )
    frames, chains = shape[:2]
    if num is not None and num > chains:
        raise ConfigurationError(f"Got {path} with {chains} states, expected at least {num}: ask for fewer.")
    return (frames - 1) * chains * math.prod(info.shape) * itemsize, num or min(chains, MAX_STARTS)


def _rows(file: IO[bytes], num: int, dtype: np.dtype[Any], info: DataInfo) -> Tensor:
    """The next `num` states `(num, *E)` of a file."""
    size = num * math.prod(info.shape) * dtype.itemsize
    content = file.read(size)
    if len(content) != size:
        raise ValueError("cut short")
    with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, and is refused
        values = np.frombuffer(content, dtype).astype(np.float32)
    return torch.from_numpy(values.reshape(num, *info.shape))


def _require_file(path: Path) -> None:
    """Reject missing files, directories, and pipes, which would block forever."""
    if not path.is_file():
        raise ConfigurationError(f"Got {path}, expected a file that exists.")
