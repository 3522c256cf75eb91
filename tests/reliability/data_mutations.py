"""Damaged data files: whole ones of every kind, mutations of their bytes, and the judgement of what comes of each.

    python -m tests.reliability.data_mutations --count 2000 --seed 0

Every mutant is a folder that `Folder` prepares. It may be refused with an error of walkback, or be read: then its
states are finite, in [0, 1], and its labels are numbers of classes. The last line is a JSON record of counts and of the
peak of memory.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import resource
import shutil
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from tests.reliability.watched import OverTime, within

from walkback.data import SPLITS
from walkback.errors import ConfigurationError, DataError
from walkback_hf.sources import Folder

Files = Mapping[str, bytes]
_GOOD = 7
_SECONDS = 30.0
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A folder with something damaged in it: its number, its kind, its files, and the options to read it with."""

    number: int
    kind: str
    files: Files
    options: Mapping[str, object]


def _pixels(mode: str, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (12, 10, 4), dtype=np.uint8)
    values[:4] = 200  # something to compress
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 16)
    if mode == "P":
        return Image.fromarray(values[..., :3]).quantize(16)
    return Image.fromarray(values).convert(mode)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def images() -> dict[str, bytes]:
    """Whole image files, by a name with their suffix."""
    exif = Image.Exif()
    exif[274] = 6
    found = {
        f"{mode.replace(';', '')}.png": _saved(_pixels(mode), "PNG")
        for mode in ("1", "L", "LA", "RGB", "RGBA", "P", "I;16")
    }
    found |= {
        "clear.png": _saved(_pixels("P"), "PNG", transparency=3),
        "clear16.png": _saved(_pixels("I;16"), "PNG", transparency=3200),
        "turned.png": _saved(_pixels("RGB"), "PNG", exif=exif),
        "frames.png": _saved(_pixels("L"), "PNG", save_all=True, append_images=[_pixels("L", 1)]),
        "L.jpg": _saved(_pixels("L"), "JPEG"),
        "RGB.jpg": _saved(_pixels("RGB"), "JPEG", exif=exif),
        "CMYK.jpg": _saved(_pixels("CMYK"), "JPEG"),
        "progressive.jpg": _saved(_pixels("RGB"), "JPEG", progressive=True),
        "frames.gif": _saved(_pixels("P"), "GIF", save_all=True, append_images=[_pixels("P", 1)]),
        "P.gif": _saved(_pixels("P"), "GIF"),
        "RGB.webp": _saved(_pixels("RGB"), "WEBP", lossless=True),
        "RGB.bmp": _saved(_pixels("RGB"), "BMP"),
        "L.pgm": _saved(_pixels("L"), "PPM"),
    }
    for mode in ("1", "L", "RGB", "RGBA", "P", "I;16", "CMYK"):
        found[f"{mode.replace(';', '')}.tif"] = _saved(_pixels(mode), "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        found[f"{compression}.tif"] = _saved(_pixels("RGB"), "TIFF", compression=compression)
    found["pages.tif"] = _saved(_pixels("L"), "TIFF", save_all=True, append_images=[_pixels("L", 1)])
    found["turned.tif"] = _saved(_pixels("L"), "TIFF", tiffinfo={274: 6})
    return found


def tables() -> dict[str, bytes]:
    """Whole parquet files of every shape that is read."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    encoded = [_saved(_pixels("L", number), "PNG") for number in range(12)]
    structs = [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(encoded)]
    columns = {
        "structs": pa.array(structs, kind),
        "plain": pa.array(encoded, pa.binary()),
        "dictionary": pa.array(encoded[:3] * 4, pa.binary()).dictionary_encode(),
        "lists": pa.array([[row] for row in structs], pa.list_(kind)),
        "pixels": pa.array([np.asarray(_pixels("L", number)).tolist() for number in range(12)]),
    }
    found = {}
    for name, column in columns.items():
        for compression in ("none", "snappy", "zstd"):
            file = io.BytesIO()
            table = pa.table({"image": column, "label": pa.array([0, 1] * 6)})
            features = {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}
            table = table.replace_schema_metadata(
                {"huggingface": json.dumps({"info": {"features": features}})}
            )
            pq.write_table(table, file, compression=compression, row_group_size=5)
            found[f"{name}-{compression}.parquet"] = file.getvalue()
    return found


def metadata() -> dict[str, bytes]:
    """Whole files that say something of images beside them."""
    names = [f"{number}.png" for number in range(_GOOD)]
    file = io.BytesIO()
    pq.write_table(pa.table({"file_name": names, "text": names}), file)
    return {
        "metadata.csv": (
            "file_name,text,number\n" + "".join(f'{name},"a b",{1.5}\n' for name in names)
        ).encode(),
        "metadata.jsonl": "".join(
            json.dumps({"file_name": name, "text": "ä"}) + "\n" for name in names
        ).encode(),
        "metadata.parquet": file.getvalue(),
        "README.md": b"---\nconfigs:\n- config_name: a\n  data_files:\n  - {split: train, path: '*.png'}\n---\n# Hi\n",
    }


def saves() -> dict[str, dict[str, bytes]]:
    """Folders of `save_to_disk`, as their files."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = [{"bytes": _saved(_pixels("L", number), "PNG"), "path": None} for number in range(12)]
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        datasets.Dataset.from_dict({"image": rows, "label": [0, 1] * 6}, features).save_to_disk(folder)
        return {"saved": {path.name: path.read_bytes() for path in Path(folder).iterdir()}}


# Mutations


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, rng: random.Random) -> None:
    at, width = rng.randrange(len(data)), rng.choice((1, 2, 4, 8))
    value = rng.choice(_INTERESTING) & ((1 << 8 * width) - 1)
    data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _delete(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 40)]


def _repeat(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randint(1, 60)] * rng.choice((1, 2, 50))


def _noise(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at : at + 16] = rng.randbytes(16)


def _number(data: bytearray, rng: random.Random) -> None:
    """Another number in the place of one that is written out, as text has them."""
    found = list(re.finditer(rb"\d+", bytes(data)))
    if found:
        chosen = rng.choice(found)
        data[chosen.start() : chosen.end()] = rng.choice((b"0", b"-1", b"1e999", b"NaN", b"9" * 30, b"0.5"))


_MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _flip, _overwrite, _overwrite, _truncate, _delete, _repeat, _noise, _number,
)  # fmt: skip


def mutated(data: bytes, rng: random.Random, others: tuple[bytes, ...]) -> bytes:
    """Bytes with one to three mutations; a PNG gets checksums that fit, in two of three cases, to come further."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not changed:
            break
        if rng.random() < 0.1:
            other, at = rng.choice(others), rng.randrange(len(changed))
            changed[at:] = other[rng.randrange(len(other)) :]
        else:
            rng.choice(_MUTATIONS)(changed, rng)
    return _with_checksums(bytes(changed)) if rng.random() < 2 / 3 else bytes(changed)


def _with_checksums(data: bytes) -> bytes:
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        body = data[at + 4 : at + 8 + length]
        if at + 12 + length > len(data):
            break
        parts.append(data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + length
    return b"".join(parts) + data[at:]


def mutants(seed: int, count: int, start: int = 0) -> Iterator[Mutant]:
    """`count` mutants from number `start` on; each follows from the seed and its number alone."""
    pictures, parquet, beside, saved = images(), tables(), metadata(), saves()
    everything = (*pictures.values(), *parquet.values(), *beside.values())
    good = {f"{number}.png": _saved(_pixels("L", number), "PNG") for number in range(_GOOD)}
    for number in range(start, start + count):
        rng = random.Random(f"{seed} {number}")
        kind = ("image", "image", "image", "parquet", "metadata", "saved")[number % 6]
        options: dict[str, object] = rng.choice(
            ({"size": 8}, {"size": 8, "grayscale": True}, {"size": 9, "grayscale": False})
        )
        if kind == "image":
            name = rng.choice(list(pictures))
            damaged = mutated(pictures[name], rng, everything)
            suffix = Path(name).suffix
            files = (
                {f"{copy}{suffix}": damaged for copy in range(3)}
                if number % 2
                else {**good, f"x{suffix}": damaged}
            )
        elif kind == "parquet":
            name = rng.choice(list(parquet))
            files = {"train.parquet": mutated(parquet[name], rng, everything)}
        elif kind == "metadata":
            name = rng.choice(list(beside))
            files = {**good, name: mutated(beside[name], rng, everything)}
        else:
            name = rng.choice(list(saved["saved"]))
            files = {**saved["saved"], name: mutated(saved["saved"][name], rng, everything)}
        yield Mutant(number, f"{kind} {name}", files, options)


# Judgement


def judge(mutant: Mutant, folder: Path) -> str:
    """What comes of a mutant: "read" or "refused".

    Raises:
        AssertionError: It was read, and its states are not finite, or its labels are no classes.
        Exception: Another error than walkback's own.
    """
    root = folder / "data"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, data in mutant.files.items():
        (root / name).write_bytes(data)
    data_set = Folder(path=str(root), **mutant.options)  # type: ignore[arg-type]
    try:
        data_set.prepare()
    except (DataError, ConfigurationError) as error:
        message = str(error)
        assert "\n" not in message, message
        assert len(message) < 2000, message
        return "refused"
    for split in SPLITS:
        states = data_set.states(data_set.examples(split), torch.Generator().manual_seed(0))
        assert bool(states.isfinite().all())
        assert 0 <= float(states.min()) <= float(states.max()) <= 1
        try:
            labels = data_set.labels(split)
        except DataError:
            continue
        assert len(labels) == len(states)
        assert -1 <= int(labels.min()) <= int(labels.max()) < len(data_set.classes)
    return "read"


def main() -> None:
    """Judge mutants, and print what came of them; the number of the one at hand goes before it, for a crash."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["WALKBACK_CACHE"] = f"{scratch}/cache"
        for mutant in mutants(chosen.seed, chosen.count, chosen.start):
            sys.stdout.write(f"{mutant.number} {mutant.kind}\n")
            sys.stdout.flush()
            began = time.monotonic()
            try:
                with within(_SECONDS):
                    outcomes[f"{mutant.kind.split()[0]} {judge(mutant, Path(scratch))}"] += 1
            except (Exception, OverTime) as error:
                failures.append(f"{mutant.number} {mutant.kind}: {error!r:.300}")
            slowest = max(slowest, time.monotonic() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    record = {
        "seed": chosen.seed,
        "count": chosen.count,
        "outcomes": outcomes,
        "failures": failures,
        "slowest_seconds": round(slowest, 2),
        "peak_mib": peak,
    }
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
