"""Writing and strict reading of the header of a safetensors file. Uses the standard library only.

    8 bytes: header length n | n bytes: JSON {name: {dtype, shape, data_offsets}} | the tensors, end to end

The digest of a file is the SHA-256 of all its bytes with zeros in its own place, the entry "sha256" of the metadata. It
detects damage, not malice: whoever changes a file can change its digest too.

The header's `__metadata__` has a single key, `walkback`, which holds sorted JSON: with several keys their order would
be random, and equal content must give equal bytes.

Files are not trusted. The whole header is checked before any tensor is created: its length, the number of tensors,
duplicate keys, and every shape and offset.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from walkback.errors import CheckpointError, WalkbackError

MAX_HEADER_BYTES = 16 * 2**20
"""Longest header that is read; a checkpoint's takes about 100 bytes a tensor."""

MAX_TENSORS = 2**16
"""Largest number of tensors that is read."""

MAX_METADATA_CHARACTERS = 2**20
"""Longest metadata that is read."""

MAX_DEPTH = 32
"""Deepest nesting of JSON that is read; a configuration needs about eight levels."""

_MAX_COLONS, _MAX_COMMAS = 6 * MAX_TENSORS, 32 * MAX_TENSORS

_DIGEST = "sha256"
_EMPTY = "0" * 64
_HEX = re.compile("[0-9a-f]{64}")

_MAX_SPAN = 2**48  # product of a shape's non-zero sizes; more overflows the strides of an empty tensor

DTYPES = {
    "I64": ("int64", 8),
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "I32": ("int32", 4),
    "BF16": ("bfloat16", 2),
    "F16": ("float16", 2),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
"""Types that can be stored: torch's name and the bytes of an element. Tensors are stored in this order of
types (that of the safetensors package, wide ones first, which aligns every tensor), and then by name."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Type (`"F32"`, …) and shape of a stored tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes it takes in the file."""
        return self.size * DTYPES[self.dtype][1]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says it holds: tensors in the order of their bytes, the metadata document, and the file's digest."""

    tensors: Mapping[str, TensorSpec]
    metadata: Mapping[str, Any]
    digest: str | None = None


class Malformed(Exception):  # noqa: N818  becomes a CheckpointError as soon as the file's name is known
    """What is wrong with a file, as the end of the sentence "Got FILE, which …"."""


def _read_header(path: Path) -> Header:
    """The checked header of a file; reads neither the tensors nor torch's code.

    Raises:
        CheckpointError: As `read_tensors`.
    """
    with opened(path) as file:
        return parse_header(file)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata document of a file, from its header alone; raises as `_read_header`."""
    return dict(_read_header(path).metadata)


def encode_header(specs: Mapping[str, TensorSpec], metadata: Mapping[str, Any]) -> bytes:
    """The bytes before the data of tensors that will follow end to end in the order of `specs`.

    Raises:
        WalkbackError: The metadata are longer than a reader would accept.
    """
    document: dict[str, Any] = {"__metadata__": encode_metadata(metadata)}
    offset = 0
    for name, spec in specs.items():
        end = offset + spec.num_bytes
        document[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [offset, end]}
        offset = end
    header = _dumps(document).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def encode_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The header's `__metadata__`: one key that holds sorted JSON; raises as `encode_header`."""
    text = _dumps(metadata, sort_keys=True)
    if len(text) > MAX_METADATA_CHARACTERS:
        raise WalkbackError(
            f"Got {len(text)} characters of metadata, expected {MAX_METADATA_CHARACTERS} at most."
        )
    return {"walkback": text}


def _dumps(document: Mapping[str, Any], *, sort_keys: bool = False) -> str:
    """Compact JSON that holds no NaN."""
    return json.dumps(
        document, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """The file, open for reading; whatever is wrong with it becomes a CheckpointError."""
    try:
        _require_regular(path)
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"Could not read {path}: {error.strerror or error}.") from error
    except Malformed as error:
        raise CheckpointError(
            f"Got {path}, which {error}; expected a .safetensors file of walkback."
        ) from error


def _require_regular(path: Path) -> None:
    """Reject directories, and pipes, which would block forever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise Malformed("is not a regular file")


def parse_header(file: BufferedReader) -> Header:
    """Read the header and check it against the size of the file; leaves `file` at the first tensor."""
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise Malformed("is cut short or not in safetensors format")
    if length > MAX_HEADER_BYTES:
        raise Malformed(f"has a header of {length} bytes, more than {MAX_HEADER_BYTES}")
    content = file.read(length)
    # A tensor has four colons: more keys than could be used are not worth the time to parse them.
    if content.count(b":") > _MAX_COLONS or content.count(b",") > _MAX_COMMAS:
        raise Malformed("has a header with too many entries")
    document = _parse(content, "header")
    metadata = _metadata(document.pop("__metadata__", None))
    digest = metadata.pop(_DIGEST, None)
    if digest is not None and not (isinstance(digest, str) and _HEX.fullmatch(digest)):
        raise Malformed("has an unusable digest")
    if len(document) > MAX_TENSORS:
        raise Malformed(f"holds {len(document)} tensors, more than {MAX_TENSORS}")
    return Header(_specs(document, size - 8 - length), metadata, digest)


def unsealed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with an empty place for the digest; raises WalkbackError if they have an entry of that name."""
    if _DIGEST in metadata:
        raise WalkbackError(
            f"Got metadata with an entry {_DIGEST!r}, which is a reserved name; choose another."
        )
    return {**metadata, _DIGEST: _EMPTY}


def sealed(content: bytes) -> list[bytes | memoryview]:
    """The bytes of a file with metadata from `unsealed`, and the digest in its place: pieces that are not copied."""
    begin = content.index(_place(_EMPTY)) + len(_place(""))
    view = memoryview(content)
    digest = hashlib.sha256(content).hexdigest()
    return [view[:begin], digest.encode(), view[begin + len(digest) :]]


def require_intact(content: bytes, digest: str) -> None:
    """Raise Malformed unless a file with these bytes has this digest."""
    begin = content.find(_place(digest))
    if begin >= 0:
        begin += len(_place(""))
        view = memoryview(content)
        found = hashlib.sha256(view[:begin])
        found.update(_EMPTY.encode())
        found.update(view[begin + len(digest) :])
        if found.hexdigest() == digest:
            return
    raise Malformed("does not match its own digest: it is damaged, or was changed after it was written")


def _place(digest: str) -> bytes:
    """The metadata entry up to the end of its value, as the header has it: JSON in a string of JSON."""
    return rf"\"{_DIGEST}\":\"{digest}".encode()


def _specs(entries: Mapping[str, Any], data_size: int) -> dict[str, TensorSpec]:
    """The tensors in the order of their bytes, which must fill the data exactly."""
    placed = sorted((_entry(name, entry) for name, entry in entries.items()), key=lambda row: row[:2])
    position = 0
    for begin, end, name, _ in placed:
        if begin != position:
            raise Malformed(f"has a gap or an overlap before tensor {name!r}")
        position = end
    if position != data_size:
        raise Malformed(f"holds {data_size} bytes of data where its header says {position}")
    return {name: spec for _, _, name, spec in placed}


def _entry(name: str, entry: Any) -> tuple[int, int, str, TensorSpec]:
    """One tensor of the header: begin, end, name, spec."""
    if not name.isprintable() or len(name) > 1000:
        raise Malformed(f"has a tensor with the unusable name {name[:40]!r}")
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end], **others} if not others:
            pass
        case _:
            raise Malformed(f"describes tensor {name!r} in a way that cannot be read")
    if dtype not in DTYPES:
        raise Malformed(f"has tensor {name!r} of the unknown type {dtype[:40]!r}")
    if len(shape) > 64 or not all(_is_count(n) for n in (*shape, begin, end)):
        raise Malformed(f"has impossible sizes or offsets for tensor {name!r}")
    spec = TensorSpec(dtype, tuple(shape))
    if math.prod(max(n, 1) for n in shape) > _MAX_SPAN or end - begin != spec.num_bytes:
        raise Malformed(f"has offsets that do not fit the shape of tensor {name!r}")
    return begin, end, name, spec


def _is_count(number: Any) -> bool:
    """Return whether `number` is an integer that can be a size in a file."""
    return type(number) is int and 0 <= number < 2**63


def _metadata(entry: Any) -> dict[str, Any]:
    """The document under the one metadata key."""
    match entry:
        case {"walkback": str(text), **others} if not others:
            if len(text) > MAX_METADATA_CHARACTERS:
                raise Malformed(
                    f"has {len(text)} characters of metadata, more than {MAX_METADATA_CHARACTERS}"
                )
            return _parse(text.encode("utf-8", "surrogatepass"), "metadata")
        case _:
            raise Malformed("was not written by walkback")


def _parse(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object without what JSON's reader does not refuse: duplicate keys, NaN, lone surrogates, deep nesting and
    integers that need more than 64 bits.
    """

    def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        rows = list(pairs)
        record = dict(rows)
        if len(record) != len(rows):
            raise Malformed(f"has a {what} with a duplicate key")
        return record

    def refuse(constant: str) -> None:
        raise Malformed(f"has a {what} with the number {constant}")

    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
        _dumps(document).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise Malformed(f"has a {what} that is not well-formed JSON") from error
    if not isinstance(document, dict):
        raise Malformed(f"has a {what} that is not a JSON object")
    _require_plain(document, what)
    return document


def _require_plain(document: Mapping[str, Any], what: str) -> None:
    """Bound depth and integers; without recursion, and level by level."""
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        if any(isinstance(value, int) and not -(2**63) <= value < 2**64 for value in level):
            raise Malformed(f"has a {what} with an integer that needs more than 64 bits")
        tables = (value.values() if isinstance(value, dict) else value for value in level)
        level = [item for part in tables if not isinstance(part, str | int | float | None) for item in part]
        if not level:
            return
    raise Malformed(f"has a {what} that is nested more than {MAX_DEPTH} levels deep")
