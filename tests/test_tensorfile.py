"""The safetensors format: what we write is what its own package writes, and nothing hostile gets through."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from walkback.errors import CheckpointError, WalkbackError
from walkback.storage.tensorfile import read_tensors, save_tensors
from walkback.storage.tensorheader import (
    MAX_HEADER_BYTES,
    MAX_METADATA_CHARACTERS,
    MAX_TENSORS,
    read_metadata,
)

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def examples() -> dict[str, torch.Tensor]:
    """A tensor of each type and of every odd shape."""
    generator = torch.Generator().manual_seed(0)
    tensors = {str(dtype): torch.randint(0, 2, (3, 5), generator=generator).to(dtype) for dtype in DTYPES}
    return tensors | {
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "äöü": torch.ones(1),
    }


def raw(header: Any, data: bytes = b"", metadata: Any = None) -> bytes:
    """A file with any header."""
    if isinstance(header, dict):
        header = {"__metadata__": {"walkback": json.dumps(metadata or {})}} | header
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[Any], begin: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", examples(), {"σ": [1, 2.5, None]})
    tensors, metadata = read_tensors(tmp_path / "a")
    assert metadata == {"σ": [1, 2.5, None]} == read_metadata(tmp_path / "a")
    assert tensors.keys() == examples().keys()
    for name, tensor in examples().items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert torch.equal(tensors[name], tensor)


def test_the_bytes_are_those_of_the_safetensors_package(tmp_path: Path) -> None:
    contiguous = {name: tensor.contiguous() for name, tensor in examples().items()}
    save_tensors(tmp_path / "a", examples(), {"b": 1, "a": "σ"})
    empty = safetensors.torch.save(contiguous, {"walkback": f'{{"a":"σ","b":1,"sha256":"{"0" * 64}"}}'})
    expected = empty.replace(b"0" * 64, hashlib.sha256(empty).hexdigest().encode())
    assert (tmp_path / "a").read_bytes() == expected


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", examples(), {"a": 1, "b": 2})
    save_tensors(tmp_path / "b", dict(reversed(examples().items())), {"b": 2, "a": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tensors_that_share_memory_come_back_apart(tmp_path: Path) -> None:
    row = torch.arange(4.0, requires_grad=True)
    save_tensors(tmp_path / "a", {"all": row, "part": row[1:3]}, {})
    tensors, _ = read_tensors(tmp_path / "a")
    tensors["all"].zero_()
    assert tensors["part"].tolist() == [1.0, 2.0]


def test_types_without_a_code_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WalkbackError, match="'z' of type complex64"):
        save_tensors(tmp_path / "a", {"z": torch.zeros(1, dtype=torch.complex64)}, {})
    assert list(tmp_path.iterdir()) == []


def test_metadata_that_no_reader_accepts_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(WalkbackError, match="characters of metadata"):
        save_tensors(tmp_path / "a", {}, {"a": "x" * MAX_METADATA_CHARACTERS})


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "short": b"1234567",
    "header of 2^62 bytes": struct.pack("<Q", 2**62) + b"{}",
    "header longer than the file": struct.pack("<Q", 100) + b"{}",
    "long header": raw(b"{" + b" " * MAX_HEADER_BYTES + b"}"),
    "no JSON": raw(b"\xff{"),
    "an array": raw([1, 2]),
    "deep nesting": raw(b'{"a":' * 100_000),
    "huge integer": raw(b'{"a":' + b"9" * 10_000 + b"}"),
    "NaN": raw(b'{"a":NaN}'),
    "float overflow": raw(b'{"a":1e999}'),
    "no metadata": raw(b"{}"),
    "foreign metadata": raw(b'{"__metadata__":{"format":"pt"}}'),
    "second metadata key": raw(b'{"__metadata__":{"walkback":"{}","format":"pt"}}'),
    "metadata not text": raw(b'{"__metadata__":{"walkback":{}}}'),
    "metadata no JSON": raw(b'{"__metadata__":{"walkback":"{"}}'),
    "metadata an array": raw(b'{"__metadata__":{"walkback":"[]"}}'),
    "metadata deep": raw({"__metadata__": {"walkback": '{"a":' + "[" * 100_000}}),
    "metadata too long": raw({}, metadata={"a": "x" * MAX_METADATA_CHARACTERS}),
    "lone surrogate": raw({}, metadata={"a": "\ud800"}),
    "duplicate tensor": raw(b'{"__metadata__":{"walkback":"{}"},"a":{},"a":{}}'),
    "duplicate metadata": raw(b'{"__metadata__":{"walkback":"{\\"a\\":1,\\"a\\":1}"}}'),
    "too many tensors": raw({f"{n}": entry([0], 0, 0) for n in range(MAX_TENSORS + 1)}),
    "entry not an object": raw({"a": 1}),
    "entry without shape": raw({"a": {"dtype": "F32", "data_offsets": [0, 0]}}),
    "entry with more keys": raw({"a": entry([0], 0, 0) | {"more": 1}}),
    "unknown type": raw({"a": entry([1], 0, 4, "F31")}, bytes(4)),
    "control character": raw({"\x1b[31m": entry([1], 0, 4)}, bytes(4)),
    "endless name": raw({"a" * 2000: entry([1], 0, 4)}, bytes(4)),
    "negative size": raw({"a": entry([-1, -1], 0, 4)}, bytes(4)),
    "fractional size": raw({"a": entry([1.0], 0, 4)}, bytes(4)),
    "boolean size": raw({"a": entry([True], 0, 4)}, bytes(4)),
    "overflowing shape": raw({"a": entry([2**62, 2**62, 4], 0, 0)}),
    "overflowing empty shape": raw({"a": entry([2**40, 2**40, 0], 0, 0)}),
    "size beyond 64 bits": raw({"a": entry([2**64, 0], 0, 0)}),
    "many dimensions": raw({"a": entry([1] * 1000, 0, 4)}, bytes(4)),
    "shape larger than its bytes": raw({"a": entry([2], 0, 4)}, bytes(4)),
    "negative offset": raw({"a": entry([1], -4, 0)}, bytes(4)),
    "end before begin": raw({"a": entry([1], 4, 0)}, bytes(4)),
    "gap": raw({"a": entry([1], 4, 8)}, bytes(8)),
    "overlap": raw({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)),
    "bytes missing": raw({"a": entry([2], 0, 8)}, bytes(7)),
    "bytes left over": raw({"a": entry([2], 0, 8)}, bytes(9)),
    "pickle": pickle.dumps({"a": [1.0] * 100}),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused_in_one_sentence_with_their_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert message.startswith(f"Got {path}, which ")
    assert message.endswith("; expected a .safetensors file of walkback.")
    assert message.isprintable()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("short", "is cut short or not in safetensors format"),
        ("header of 2^62 bytes", "is cut short or not in safetensors format"),
        ("long header", f"has a header of {MAX_HEADER_BYTES + 2} bytes, more than {MAX_HEADER_BYTES}"),
        ("too many tensors", f"holds {MAX_TENSORS + 1} tensors, more than {MAX_TENSORS}"),
    ],
)
def test_limits_are_checked_before_anything_is_parsed(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_bytes(HOSTILE[name])
    with pytest.raises(CheckpointError, match=words):
        read_tensors(tmp_path / "file")


def test_a_well_formed_file_of_the_same_making_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(raw({"a": entry([1], 0, 4)}, struct.pack("<f", 2.5), {"b": 1}))
    tensors, metadata = read_tensors(tmp_path / "file")
    assert tensors["a"].tolist() == [2.5]
    assert metadata == {"b": 1}


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: None], ids=["folder", "pipe", "none"])
def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "file")
    with pytest.raises(CheckpointError, match="file"):
        read_tensors(tmp_path / "file")


VALID = safetensors.torch.save(
    {"operator.a": torch.arange(3.0), "prior.b": torch.ones(2, dtype=torch.int64)},
    {"walkback": '{"kind":"x","list":[1,2.5]}'},
)

Edit = tuple[int, bytes]
EDITS = st.lists(st.tuples(st.integers(0, len(VALID)), st.binary(max_size=3)), min_size=1, max_size=4)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(edits=EDITS, cut=st.integers(0, len(VALID)), keep=st.booleans())
def test_only_our_exception_escapes_a_damaged_file(
    tmp_path_factory: pytest.TempPathFactory, edits: list[Edit], cut: int, keep: bool
) -> None:
    content = bytearray(VALID)
    for position, replacement in edits:
        content[position : position + len(replacement)] = replacement
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(bytes(content if keep else content[:cut]))
    with contextlib.suppress(CheckpointError):
        read_tensors(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["F32", "BOOL", "\ud800", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)
ENTRIES = VALUES | st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "BOOL", "U8"]) | VALUES,
        "shape": st.lists(st.integers(0, 3) | VALUES, max_size=3),
        "data_offsets": st.lists(st.integers(0, 8) | VALUES, max_size=3),
    }
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    entries=st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRIES), data=st.binary(max_size=16)
)
def test_only_our_exception_escapes_a_forged_header(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, Any], data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "forged"
    path.write_bytes(raw(entries, data))
    with contextlib.suppress(CheckpointError):
        read_tensors(path)


def test_headers_are_read_without_torch(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", examples(), {"b": 1})
    script = (
        "import sys; from pathlib import Path; from walkback.storage.tensorheader import read_metadata;"
        "print(read_metadata(Path(sys.argv[1])), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "{'b': 1} False\n"
