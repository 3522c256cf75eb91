"""Images in a column of a table: parquet files, and memory-mapped tables of `datasets`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from walkback.errors import DataError
from walkback_hf.classes import class_column, joined, labels_in
from walkback_hf.columns import image_column, read_images
from walkback_hf.encoded import EncodedImage, EncodedImages, Labels, Rows
from walkback_hf.names import shown, within

_MOST_IN_BATCH, _BYTES_IN_BATCH = 1024, 1 << 26
_MOST_ROWS_A_BYTE = 8  # a row takes at least one bit; a larger number of rows is not credible


class _Shard(NamedTuple):
    path: Path
    name: str
    column: str
    length: int


@final
class ParquetFiles(EncodedImages):
    """The images of one column of parquet files, in the order of the files."""

    def __init__(self, root: Path, paths: Sequence[Path], column: str | None = None) -> None:
        """Reads the metadata of the files at `paths`; messages name them relative to `root`.

        Raises:
            DataError: A file is not a parquet file, or has no such column of images.
        """
        self._shards = [_shard(path, shown(path.relative_to(root)), column) for path in paths]

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
                    batches = file.iter_batches(
                        batch_size=_batch(length, path.stat().st_size), columns=[column]
                    )
                    yield from _read_chunks((batch.column(0) for batch in batches), local, name, path.parent)

    def named_files(self) -> Iterator[Path]:
        """Yields the files that rows refer to by their paths, inside the folders of the tables."""
        for path, name, column, _ in self._shards:
            with _reading(name), pq.ParquetFile(path) as file:
                kind = file.schema_arrow.field(column).type
                if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
                    for batch in file.iter_batches(columns=[f"{column}.path"]):
                        texts = batch.column(0).field(0).to_pylist()
                        found = (within(path.parent, text) for text in texts if isinstance(text, str))
                        yield from (place for place in found if place is not None)

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
    """The images of a `pyarrow.ChunkedArray`."""

    def __init__(self, name: str, column: Any, table: Any = None, folder: Path | None = None) -> None:
        """Initializes the images of a column.

        Args:
            name: Name for messages.
            column: The images; those stored as paths are read from the files.
            table: The table of `column`, for the classes.
            folder: The only folder from which files are read; None allows any, for tables that `datasets` created
                locally.
        """
        self._name = name
        self._column = column
        self._table = table
        self._folder = folder

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
        with _reading(self._name, "table"):
            for chunk in self._column.chunks:
                chunk.validate(full=True)  # offsets in a damaged file may point anywhere
            yield from _read_chunks(_pieces(self._column.chunks), rows, self._name, self._folder)

    @override
    def labels(self, rows: Rows) -> Labels:
        if self._table is None:
            raise DataError(f"Got images without labels in {self._name}.")
        with _reading(self._name, "table"):
            column, classes = class_column(self._table.schema, self._name)
            return labels_in(self._table.column(column), classes, rows, self._name)


@contextmanager
def _reading(name: str, kind: str = "parquet file") -> Iterator[None]:
    """Turns errors of pyarrow into a DataError that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"Got a {kind} that cannot be read, {name} ({reason:.300}); replace it.") from error


def _shard(path: Path, name: str, column: str | None) -> _Shard:
    with _reading(name), pq.ParquetFile(path) as file:
        count = file.metadata.num_rows
        size = path.stat().st_size
        if not 0 <= count <= _MOST_ROWS_A_BYTE * size:
            raise DataError(
                f"Got a table that says it has {count:,} rows in {size:,} bytes, {name}; replace the file."
            )
        return _Shard(path, name, image_column(file.schema_arrow, column, name), count)


def _pieces(chunks: Iterable[Any]) -> Iterator[Any]:
    """Splits chunks so that few images are in memory at a time."""
    for chunk in chunks:
        size = _batch(len(chunk), chunk.nbytes)
        yield from (chunk.slice(start, size) for start in range(0, len(chunk), size))


def _batch(count: int, size: int) -> int:
    """Returns how many of `count` rows, of `size` bytes in total, to keep in memory at a time."""
    return max(1, min(_MOST_IN_BATCH, _BYTES_IN_BATCH * count // max(size, 1)))


def _read_chunks(chunks: Iterable[Any], rows: Rows, name: str, folder: Path | None) -> Iterator[EncodedImage]:
    """Yields the requested rows of consecutive chunks of one column."""
    start = 0
    for chunk in chunks:
        local = _between(rows, start, start + len(chunk))
        if local.size:
            wanted = chunk if local.size == len(chunk) else chunk.take(pa.array(local))
            places = [f"{name}, row {row}" for row in local + start]
            yield from read_images(wanted, places, folder)
        start += len(chunk)
        if not rows.size or start > rows[-1]:
            return
    if rows.size:
        raise DataError(f"Got a table with fewer rows than it says, {name} ({start:,}); replace the file.")


def _between(rows: Rows, start: int, stop: int) -> Rows:
    """Returns the rows in [start, stop), relative to `start`."""
    first, last = np.searchsorted(rows, (start, stop))
    return rows[first:last] - start
