"""Encoded images in the binary column of a table: parquet files, and what `datasets` keeps in memory maps.

The hub stores an image as a struct of `bytes` and `path`; a plain binary column is read as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from typing_extensions import override

from walkback.errors import DataError
from walkback_hf.classes import class_column, joined, labels_in
from walkback_hf.encoded import EncodedImage, EncodedImages, Labels, Rows

_BATCH = 1024
_USUAL_NAMES = ("image", "img")


def image_column(schema: Any, wanted: str | None, place: str) -> str:
    """Name of the column that holds images.

    Args:
        schema: The `pyarrow.Schema` of the table.
        wanted: The column asked for, or None to find it by its type (and name, where several would do).
        place: What the table is, for messages.

    Raises:
        DataError: There is no such column, it holds no images, or the choice is not clear.
    """
    if wanted is not None and wanted not in schema.names:
        raise DataError(f"Got no column {wanted!r} in {place}; expected one of {', '.join(schema.names)}.")
    fitting = [field.name for field in schema if _holds_images(field.type) and wanted in (None, field.name)]
    if len(fitting) == 1:
        return str(fitting[0])
    if wanted is not None:
        kind = schema.field(wanted).type
        raise DataError(
            f"Got a column without images, {wanted!r} of {place} ({kind}); set data.column to another."
        )
    if not fitting:
        raise DataError(
            f"Got no image column in {place}, only {', '.join(schema.names) or 'an empty table'}."
        )
    for name in _USUAL_NAMES:
        if name in fitting:
            return name
    raise DataError(f"Got several image columns in {place}; set data.column to one of {', '.join(fitting)}.")


class _Shard(NamedTuple):
    path: Path
    name: str
    column: str
    length: int


@final
class ParquetFiles(EncodedImages):
    """The images of one column of parquet files, file after file."""

    def __init__(self, root: Path, paths: Sequence[Path], column: str | None = None) -> None:
        """Read the metadata of the files at `paths`, which messages name relative to `root`.

        Raises:
            DataError: A file is not parquet, or has no such column of images.
        """
        self._shards = [_shard(path, path.relative_to(root).as_posix(), column) for path in paths]

    @property
    @override
    def place(self) -> str:
        return ", ".join(shard.name for shard in self._shards)

    @property
    @override
    def count(self) -> int:
        return sum(shard.length for shard in self._shards)

    @override
    def read(self, rows: Rows) -> Iterator[EncodedImage]:
        start = 0
        for path, name, column, length in self._shards:
            local = _between(rows, start, start + length)
            start += length
            if local.size:
                with _reading(name), pq.ParquetFile(path) as file:
                    batches = file.iter_batches(batch_size=_BATCH, columns=[column])
                    yield from _read_chunks((batch.column(0) for batch in batches), local, name)

    @override
    def labels(self, rows: Rows) -> Labels:
        parts = []
        start = 0
        for path, name, _, length in self._shards:
            local = _between(rows, start, start + length)
            start += length
            with _reading(name), pq.ParquetFile(path) as file:
                column, classes = class_column(file.schema_arrow, name)
                parts.append(labels_in(file.read(columns=[column]).column(0), classes, local, name))
        return joined(parts, self.place)


@final
class ArrowColumn(EncodedImages):
    """The images of a `pyarrow.ChunkedArray`; images kept as paths of local files are read from there."""

    def __init__(self, name: str, column: Any, table: Any = None) -> None:
        """Take the images of `column`, and their classes from its `table`; messages call it `name`."""
        self._name = name
        self._column = column
        self._table = table

    @property
    @override
    def place(self) -> str:
        return self._name

    @property
    @override
    def count(self) -> int:
        return len(self._column)

    @override
    def read(self, rows: Rows) -> Iterator[EncodedImage]:
        with _reading(self._name):
            yield from _read_chunks(self._column.chunks, rows, self._name, follow_paths=True)

    @override
    def labels(self, rows: Rows) -> Labels:
        if self._table is None:
            raise DataError(f"Got images without labels in {self._name}.")
        with _reading(self._name):
            column, classes = class_column(self._table.schema, self._name)
            return labels_in(self._table.column(column), classes, rows, self._name)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn the errors of pyarrow into a DataError that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"Got a parquet file that cannot be read, {name} ({reason}); replace it.") from error


def _shard(path: Path, name: str, column: str | None) -> _Shard:
    with _reading(name), pq.ParquetFile(path) as file:
        return _Shard(path, name, image_column(file.schema_arrow, column, name), file.metadata.num_rows)


def _read_chunks(
    chunks: Iterable[Any], rows: Rows, name: str, *, follow_paths: bool = False
) -> Iterator[EncodedImage]:
    """The wanted rows of consecutive chunks of one column."""
    start = 0
    for chunk in chunks:
        local = _between(rows, start, start + len(chunk))
        if local.size:
            wanted = chunk if local.size == len(chunk) else chunk.take(pa.array(local))
            places = [f"{name}, row {row}" for row in local + start]
            yield from _read_values(wanted, places, follow_paths)
        start += len(chunk)
        if not rows.size or start > rows[-1]:
            return


def _read_values(values: Any, places: Sequence[str], follow_paths: bool) -> Iterator[EncodedImage]:
    contents = _field(values, "bytes").to_pylist()
    seek = follow_paths and None in contents
    paths = _field(values, "path").to_pylist() if seek else [None] * len(contents)
    for place, content, path in zip(places, contents, paths, strict=True):
        if content is None and path is not None and Path(path).is_file():
            content = Path(path).read_bytes()
        if content is None:
            raise DataError(f"Got a row without an image, {place}; remove the row.")
        yield EncodedImage(place, content)


def _between(rows: Rows, start: int, stop: int) -> Rows:
    """The rows in [start, stop), counted from `start`."""
    first, last = np.searchsorted(rows, (start, stop))
    return rows[first:last] - start


def _field(array: Any, name: str) -> Any:
    return pc.struct_field(array, name) if pa.types.is_struct(array.type) else array


def _holds_images(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        position = kind.get_field_index("bytes")
        return position >= 0 and _is_binary(kind.field(position).type)
    return _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
