"""Writing and strict reading of the header of a safetensors file. Uses the standard library only.

    8 bytes: header length n | n bytes: JSON {name: {dtype, shape, data_offsets}} | the tensors, end to end

The digest of a file is the SHA-256 of all its bytes, with zeros in place of the digest itself (the entry "sha256" of
the metadata). It detects damage, not malice: whoever modifies a file can also modify its digest.

The header's `__metadata__` has a single key, `walkback`, which holds sorted JSON. The order of several keys would be
random, but equal content must give equal bytes.

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
"""Maximum length of a header; a checkpoint has about 100 bytes per tensor."""

MAX_TENSORS = 2**16
"""Maximum number of tensors in a file."""

MAX_METADATA_CHARACTERS = 2**20
"""Maximum length of the metadata."""

MAX_DEPTH = 32
"""Maximum nesting depth of JSON; a configuration needs about eight levels."""

_MAX_COLONS, _MAX_COMMAS = 6 * MAX_TENSORS, 32 * MAX_TENSORS

_DIGEST = "sha256"
_EMPTY = "0" * 64
_HEX = re.compile("[0-9a-f]{64}")

_MAX_SPAN = 2**48  # product of the nonzero sizes of a shape; more overflows the strides of an empty tensor

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
"""Types that can be stored: torch's name, and the bytes of an element. Tensors are stored in this order of types (that
of the safetensors package: wide types first, which aligns every tensor), and then by name."""


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
        """Size in the file, in bytes."""
        return self.size * DTYPES[self.dtype][1]


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file: tensors in the order of their data, the metadata document, and the file's digest."""

    tensors: Mapping[str, TensorSpec]
    metadata: Mapping[str, Any]
    digest: str | None = None


class Malformed(Exception):  # noqa: N818  becomes a CheckpointError as soon as the file's name is known
    """A malformed file; the message completes the sentence "Got FILE, which …"."""


def _read_header(path: Path) -> Header:
    """Read and check the header of a file, without reading tensors or importing torch.

    Raises:
        CheckpointError: See `read_tensors`.
    """
    with opened(path) as file:
        return parse_header(file)


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata document of a file from its header; raises CheckpointError if that is malformed."""
    return dict(_read_header(path).metadata)


def encode_header(specs: Mapping[str, TensorSpec], metadata: Mapping[str, Any]) -> bytes:
    """Return the bytes that precede the data of tensors, which must follow end to end in the order of `specs`.

    Raises:
        WalkbackError: The metadata are longer than a reader accepts.
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
    """Return the header's `__metadata__`, a single key that holds sorted JSON; raises the errors of `encode_header`."""
    text = _dumps(metadata, sort_keys=True)
    if len(text) > MAX_METADATA_CHARACTERS:
        raise WalkbackError(
            f"Got {len(text)} characters of metadata, expected {MAX_METADATA_CHARACTERS} at most."
        )
    return {"walkback": text}


def _dumps(document: Mapping[str, Any], *, sort_keys: bool = False) -> str:
    """Return compact JSON; NaN and infinity raise ValueError."""
    return json.dumps(
        document, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file for reading in the block, and turn its errors into CheckpointError."""
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
    # A tensor has four colons. Refuse a header with too many entries before spending time on parsing it.
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
    """Return metadata with a placeholder for the digest; raises WalkbackError if they have an entry of that name."""
    if _DIGEST in metadata:
        raise WalkbackError(
            f"Got metadata with an entry {_DIGEST!r}, which is a reserved name; choose another."
        )
    return {**metadata, _DIGEST: _EMPTY}


def sealed(content: bytes) -> list[bytes | memoryview]:
    """Return the bytes of a file with metadata from `unsealed` and the digest inserted, as pieces (without a copy)."""
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
    """Return the metadata entry of a digest up to the end of its value, as in the header: JSON in a JSON string."""
    return rf"\"{_DIGEST}\":\"{digest}".encode()


def _specs(entries: Mapping[str, Any], data_size: int) -> dict[str, TensorSpec]:
    """Return the tensors in the order of their data, which must fill the file without gaps."""
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
    """Return begin, end, name and spec of one tensor of the header."""
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
    """Return the document under the single metadata key."""
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
    """Parse a JSON object, and reject what Python's parser accepts: duplicate keys, NaN, lone surrogates, deep nesting,
    and integers of more than 64 bits.
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
    """Limit depth and integers; level by level, because recursion could overflow the stack."""
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        if any(isinstance(value, int) and not -(2**63) <= value < 2**64 for value in level):
            raise Malformed(f"has a {what} with an integer that needs more than 64 bits")
        tables = (value.values() if isinstance(value, dict) else value for value in level)
        level = [item for part in tables if not isinstance(part, str | int | float | None) for item in part]
        if not level:
            return
    raise Malformed(f"has a {what} that is nested more than {MAX_DEPTH} levels deep")
