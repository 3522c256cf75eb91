"""Columns of images in tables, and the image files in their rows.

An image is a struct of `bytes` and `path`, as `datasets` writes it, or plain bytes; it may be dictionary-encoded, or
the only element of a list. Pixels as nested lists of integers, `(H, W)` or `(H, W, C)`, are encoded losslessly as PNG.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from walkback.errors import DataError
from walkback_hf.encoded import EncodedImage, read_file
from walkback_hf.names import exists, shown, within

_USUAL_NAMES = ("image", "img")
TABLE_ADVICE = (
    "tables of numbers are read from .csv, .parquet, .arrow, .npy and .npz files: "
    "give such a file itself (--data FILE)"
)
"""What to do with numbers."""
_ADVICE = (
    "expected encoded image files, or pixels (H, W) or (H, W, C) as lists of whole numbers; `datasets` writes the "
    "former from a column cast to datasets.Image()"
)


def image_column(schema: Any, wanted: str | None, place: str) -> str:
    """Returns the name of the column that holds images.

    Args:
        schema: The `pyarrow.Schema` of the table.
        wanted: The requested column, or None to find it by its type (and its name, if several match).
        place: Description of the table for messages.

    Raises:
        DataError: There is no such column, it holds no images, or the choice is ambiguous.
    """
    if wanted is not None and wanted not in schema.names:
        raise DataError(f"Got no column {wanted!r} in {place}; expected one of {', '.join(schema.names)}.")
    encoded = [field.name for field in schema if holds_images(field.type) and wanted in (None, field.name)]
    pixels = [field.name for field in schema if _holds_pixels(field.type) and wanted in (None, field.name)]
    fitting = encoded or [name for name in pixels if wanted or name in _USUAL_NAMES or len(pixels) == 1]
    if len(fitting) == 1:
        return str(fitting[0])
    if wanted is not None:
        kind = schema.field(wanted).type
        raise DataError(f"Got a column without images, {wanted!r} of {place} ({kind}); {_ADVICE}.")
    if not fitting:
        found = ", ".join(f"{field.name} ({field.type})" for field in schema)
        numbers = found and all(pa.types.is_integer(f.type) or pa.types.is_floating(f.type) for f in schema)
        advice = TABLE_ADVICE if numbers else _ADVICE
        raise DataError(f"Got no image column in {place}, only {found or 'an empty table':.500}; {advice}.")
    for name in _USUAL_NAMES:
        if name in fitting:
            return name
    raise DataError(f"Got several image columns in {place}; set data.column to one of {', '.join(fitting)}.")


def holds_images(kind: Any) -> bool:
    """Returns whether values of an Arrow type are encoded images, or lists of them."""
    kind = _plain(kind)
    if _is_list(kind):
        kind = _plain(kind.value_type)
    if pa.types.is_struct(kind):
        position = kind.get_field_index("bytes")
        return position >= 0 and (
            _is_binary(kind.field(position).type)
            or (pa.types.is_null(kind.field(position).type) and kind.get_field_index("path") >= 0)
        )
    return _is_binary(kind)


def read_images(values: Any, places: Sequence[str], folder: Path | None) -> Iterator[EncodedImage]:
    """Yields the image files in an Arrow array.

    Args:
        values: Of a type that `image_column` accepts.
        places: Names of its rows for messages.
        folder: The only folder from which images stored as paths may be read; None allows any path.

    Raises:
        DataError: A row holds no image, or several.
    """
    kind = _plain(values.type)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    values = values.storage if isinstance(values, pa.ExtensionArray) else values
    if _is_list(kind) and holds_images(kind):
        yield from _read_lists(values, places, folder)
    elif _is_list(kind):
        deep = not _are_bytes(kind)
        for place, value in zip(places, values, strict=True):
            yield EncodedImage(place, _encode(value.as_py(), place, deep=deep))
    else:
        contents = _field(values, "bytes").to_pylist()
        missing = None in contents and pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
        paths = _field(values, "path").to_pylist() if missing else [None] * len(contents)
        for place, content, path in zip(places, contents, paths, strict=True):
            yield EncodedImage(place, _follow(path, place, folder) if content is None else content)


def _read_lists(values: Any, places: Sequence[str], folder: Path | None) -> Iterator[EncodedImage]:
    lengths = pc.list_value_length(values).to_pylist()
    for place, length in zip(places, lengths, strict=True):
        if length != 1:
            raise DataError(f"Got a row of {length or 'no'} images, {place}; expected one per row.")
    yield from read_images(pc.list_flatten(values), places, folder)


def _follow(path: str | None, place: str, folder: Path | None) -> bytes:
    """Reads the image file that a row refers to."""
    if path is None:
        raise DataError(f"Got a row without an image, {place}; remove the row.")
    if folder is None:
        file = Path(path) if exists(Path(path)) and Path(path).is_file() else None
    else:
        file = within(folder, path)
    if file is None:
        where = "there" if folder is None else f"in {shown(folder)}"
        raise DataError(
            f"Got a row whose image is a file that is not {where}, {place} ({path!r:.200}); put the files there, or "
            "their bytes into the table."
        )
    return read_file(file, place)


def _encode(value: Any, place: str, *, deep: bool) -> bytes:
    """Encodes pixels given as lists of numbers as PNG; `deep` gray values may have more than 8 bits in any row."""
    if value is None:
        raise DataError(f"Got a row without an image, {place}; remove the row.")
    try:
        pixels = np.array(value)
    except ValueError:  # rows of different lengths
        pixels = np.array(None)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    most = 65535 if pixels.ndim == 2 else 255
    if not (
        shaped and pixels.size and pixels.dtype.kind in "iu" and pixels.min() >= 0 and pixels.max() <= most
    ):
        raise DataError(
            f"Got a row that is not an image, {place}; expected whole numbers (H, W) from 0 to 65535, "
            "or (H, W, C) to 255."
        )
    file = BytesIO()
    # A dark image of 12 bits may fit into 8: how many bits there are is decided for all rows together.
    kind = np.uint16 if deep and pixels.ndim == 2 else np.uint8
    Image.fromarray(pixels.astype(kind)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _field(array: Any, name: str) -> Any:
    return pc.struct_field(array, name) if pa.types.is_struct(array.type) else array


def _plain(kind: Any) -> Any:
    """Returns the type without dictionary encoding or extension, such as that of `datasets.Array2D`."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _holds_pixels(kind: Any) -> bool:
    """Returns whether the type is nested lists of integers."""
    kind, depth = _plain(kind), 0
    while _is_list(kind):
        kind, depth = _plain(kind.value_type), depth + 1
    return depth in (2, 3) and bool(pa.types.is_integer(kind))


def _are_bytes(kind: Any) -> bool:
    """Returns whether nested lists hold numbers of 8 bits."""
    while _is_list(kind):
        kind = _plain(kind.value_type)
    return bool(pa.types.is_uint8(kind))


def _is_list(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
