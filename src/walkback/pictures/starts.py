"""Initial states of chains, read from files.

    .npz, .safetensors    files written by `walkback sample`: the last frame of `states` (F, N, *E)
    .png, .jpg            one image of the right size

Files are not trusted. Headers are checked before use, only the requested states are read, and nothing is unpickled.
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
from walkback.support.formats import NPZ, PICTURES, SAFETENSORS, STATES, listed

Pixels: TypeAlias = npt.NDArray[np.uint8]

_TYPES = {"F32": "<f4", "F64": "<f8"}
"""NumPy types of states in `.safetensors`; values of standardized states are float64."""

MAX_STARTS = 1000
"""Largest number of states to read by default."""


def read_starts(path: Path, info: DataInfo, num: int | None = None) -> Tensor:
    """Read states `(num, *E)`, float32 on the CPU: the first `num` of a file's last frame, or one image `num` times.

    Args:
        path: A file written by `walkback sample`, or an image.
        info: Description of the expected states.
        num: Number of states; None takes all, but at most `MAX_STARTS`.

    Raises:
        ConfigurationError: The file cannot be read, or has too few states or none of that shape and support.
    """
    kind = path.suffix.lower()
    if kind in PICTURES:
        return _read_image(path, info).expand(num or 1, *info.shape).contiguous()
    read = _READERS.get(kind)
    if read is None:
        raise ConfigurationError(
            f"Got {path} to start from, expected noise, data, or a file that ends in {listed((*STATES, *PICTURES))}."
        )
    states = read(path, info, num)
    if not bool(states.isfinite().all()):
        raise ConfigurationError(f"{path} contains NaN or infinity: choose another file.")
    if info.support == "binary" and not bool(((states == 0) | (states == 1)).all()):
        raise ConfigurationError(f"{path} has values other than 0 and 1, and the model's states are binary.")
    return states


def read_pixels(path: Path, size: tuple[int, int], mode: Literal["L", "RGB"] = "L") -> Pixels:
    """Read the pixels of an image file of height and width `size`, as gray `(H, W)` or color `(H, W, 3)`.

    Raises:
        ConfigurationError: The file cannot be read as an image, or has another size.
    """
    _require_file(path)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=("PNG", "JPEG")) as image:
            _check_image(path, image, size)
            return np.asarray(image.convert(mode))
    except ConfigurationError:
        raise
    except Exception as error:  # Pillow raises many kinds of errors for damaged images
        raise ConfigurationError(f"{path} cannot be read as a .png or .jpg image.") from error


def _check_image(path: Path, image: Image.Image, size: tuple[int, int]) -> None:
    """Reject an image of another size or type; both are known before a pixel is decoded."""
    height, width = size
    if image.size != (width, height):
        raise ConfigurationError(
            f"{path} has {image.width} × {image.height} pixels, not {width} × {height}: resize it."
        )
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        raise ConfigurationError(
            f"{path} has pixels of type {image.mode}: convert it to 8 bits per channel, gray or RGB."
        )


def _read_image(path: Path, info: DataInfo) -> Tensor:
    """Read an image as a state `(*E)`: byte v becomes (v + ½) / 256, the middle of its gray level; binary, v ≥ 128."""
    if not info.is_image:
        raise ConfigurationError(
            f"The image {path} cannot be a start, because states have shape {info.shape}: give a file of samples."
        )
    channels, height, width = info.shape
    pixels = read_pixels(path, (height, width), "RGB" if channels == 3 else "L")
    values = torch.from_numpy(pixels.reshape(height, width, channels).copy()).permute(2, 0, 1)
    return (values >= 128).float() if info.support == "binary" else (values + 0.5) / 256


def _read_safetensors(path: Path, info: DataInfo, num: int | None) -> Tensor:
    with opened(path) as file:
        header = parse_header(file)
        spec = header.tensors.get("states")
        if header.metadata.get("kind") != SAMPLES.name or spec is None or spec.dtype not in _TYPES:
            raise ConfigurationError(f"{path} holds no samples: give a file written by `walkback sample`.")
        SAMPLES.migrated(header.metadata, path, ConfigurationError)
        dtype = np.dtype(_TYPES[spec.dtype])
        skip, take = _span(path, spec.shape, info, num, dtype.itemsize)
        for name, before in header.tensors.items():
            if name == "states":
                break
            skip += before.num_bytes
        file.seek(skip, 1)
        return _rows(file, take, dtype, info)


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
    except Exception as error:  # zipfile and numpy raise many kinds of errors for damaged archives
        raise ConfigurationError(
            f"{path} cannot be read: give a .npz file written by `walkback sample`."
        ) from error


_READERS: Mapping[str, Callable[[Path, DataInfo, int | None], Tensor]] = {
    NPZ: _read_npz,
    SAFETENSORS: _read_safetensors,
}


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read shape and type of an array in NumPy's format; leaves `file` at its data."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, fortran_order, dtype = read(file)
    if fortran_order or dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise ValueError("expected floating-point numbers in C order")
    return shape, dtype


def _span(
    path: Path, shape: tuple[int, ...], info: DataInfo, num: int | None, itemsize: int = 4
) -> tuple[int, int]:
    """Return how many bytes to skip and how many states to read; `shape` is that of all frames."""
    if len(shape) < 2 or shape[2:] != info.shape or min(shape) < 1:
        raise ConfigurationError(
            f"{path} has states of shape {shape}, expected (frames, chains, {', '.join(map(str, info.shape))})."
        )
    frames, chains = shape[:2]
    if num is not None and num > chains:
        raise ConfigurationError(f"{path} has {chains} states, fewer than {num}: ask for fewer.")
    return (frames - 1) * chains * math.prod(info.shape) * itemsize, num or min(chains, MAX_STARTS)


def _rows(file: IO[bytes], num: int, dtype: np.dtype[Any], info: DataInfo) -> Tensor:
    """Read the next `num` states `(num, *E)` of a file."""
    size = num * math.prod(info.shape) * dtype.itemsize
    content = file.read(size)
    if len(content) != size:
        raise ValueError("cut short")
    values = torch.from_numpy(np.frombuffer(content, dtype).astype(np.float64))
    # Values outside the range of float32 become infinite, which `read_starts` rejects.
    return info.states(values.reshape(num, *info.shape)).float()


def _require_file(path: Path) -> None:
    """Reject missing files, directories, and pipes, which would block forever."""
    if not path.is_file():
        raise ConfigurationError(f"There is no file {path}: check the path.")
