"""Part of a local mirror of image datasets, compressed without changing a pixel."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the mirror, and how much of it is used.

    Attributes:
        path: Path relative to the mirror.
        column: Column of the images.
        groups: Number of row groups to use, from the first; None uses as many as fit.
        plain: Whether images are stored without individual compression: small ones compress better together.
    """

    path: str
    column: str
    groups: int | None
    plain: bool = False


ALL = 10**6

SOURCES: Sequence[Source] = (
    Source("ylecun/mnist/mnist/train-00000-of-00001.parquet", "image", ALL, plain=True),
    Source("ylecun/mnist/mnist/test-00000-of-00001.parquet", "image", ALL, plain=True),
    Source("uoft-cs/cifar10/plain_text/test-00000-of-00001.parquet", "img", 2),
    Source("uoft-cs/cifar10/plain_text/train-00000-of-00001.parquet", "img", None),
)
"""MNIST whole, some of CIFAR-10's test images, and as many of its training images as there is room for."""


def pack(mirror: Path, place: Path, room: int) -> Mapping[str, str]:
    """Copy row groups of the mirror into `place`, which is one itself then; says of each file what was taken.

    Args:
        mirror: A local mirror of the hub, see `WALKBACK_DATA`.
        place: Where to.
        room: Bytes that all files may take.
    """
    taken: dict[str, str] = {}
    for source in SOURCES:
        if not (mirror / source.path).is_file():
            taken[source.path] = "not in the mirror"
            continue
        size, words = _copy(mirror, place, source, room)
        room -= size
        taken[source.path] = words
    return taken


def _copy(mirror: Path, place: Path, source: Source, room: int) -> tuple[int, str]:
    """Copy groups of one file while they fit; returns the bytes written, and what was taken in words."""
    target = place / source.path
    target.parent.mkdir(parents=True, exist_ok=True)
    file = pq.ParquetFile(mirror / source.path)
    wanted = min(ALL if source.groups is None else source.groups, file.num_row_groups)
    rows = groups = 0
    packing = {"compression": "zstd", "compression_level": 15} if source.plain else {"compression": "none"}
    with pq.ParquetWriter(target, file.schema_arrow, **packing) as writer:
        for number in range(wanted):
            table = (
                _plain(file.read_row_group(number), source) if source.plain else file.read_row_group(number)
            )
            if target.stat().st_size + _most(table, source) > room:
                break
            writer.write_table(table)
            rows, groups = rows + len(table), groups + 1
    if not groups:
        target.unlink()
        return 0, "no room"
    size = target.stat().st_size
    return size, f"{rows:,} of {file.metadata.num_rows:,} images, {size / 1e6:.1f} MB"


def _most(table: pa.Table, source: Source) -> int:
    """Bytes that a table takes in a file at most, the end of the file included."""
    if not source.plain:
        return int(1.01 * table.nbytes) + 10_000
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=1)
    return buffer.tell()


def _plain(table: pa.Table, source: Source) -> pa.Table:
    """The same images as PNG that is not compressed."""
    column = [_uncompressed(image) for image in table[source.column].to_pylist()]
    field = table.schema.field(source.column)
    images = pa.array(column, type=field.type)
    return table.set_column(table.schema.get_field_index(source.column), field, images)


def _uncompressed(image: Mapping[str, Any]) -> Mapping[str, Any]:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(image["bytes"])) as picture:
        picture.save(buffer, "png", compress_level=0)
    return {**image, "bytes": buffer.getvalue()}
