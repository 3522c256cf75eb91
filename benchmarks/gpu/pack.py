"""Collects in one folder what `run.sh` needs on a machine without a network: wheels, and part of the data.

benchmarks/gpu/pack.sh                    for Python 3.12 on Linux, x86-64
benchmarks/gpu/pack.sh --installed        for this very Python, from what is installed here, without a network
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import images
import requirements
import wheels

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "gpu"
MANIFEST = "manifest.json"


def main() -> None:
    """Pack."""
    options = _options()
    python = f"{sys.version_info.major}.{sys.version_info.minor}" if options.installed else options.python
    shutil.rmtree(options.out, ignore_errors=True)
    place = options.out / "wheels"
    place.mkdir(parents=True)
    packages = requirements.needed(python)
    if options.installed:
        wheels.gather(packages, place)
    else:
        wheels.download(packages, python, place)
    data = _pack_data(options.data, options.out / "data", int(options.megabytes * 1e6) - _size(options.out))
    manifest = {"python": python, "packages": packages, "data": data}
    (options.out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{options.out}: {_size(options.out) / 1e6:.1f} MB for Python {python}")
    print(f"  {len(packages)} wheels, {_size(place) / 1e6:.1f} MB")
    for path, words in data.items():
        print(f"  {path}: {words}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pack.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="Folder to write anew (default: build/gpu).")
    parser.add_argument("--python", default="3.12", help="Version of the machine's Python (default: 3.12).")
    parser.add_argument(
        "--installed", action="store_true", help="Pack what is installed here, for this Python."
    )
    parser.add_argument("--megabytes", type=float, default=54.5, help="Most that the folder may take.")
    parser.add_argument("--data", type=Path, help="Mirror of the data (default: $WALKBACK_DATA).")
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()) and not (options.out / MANIFEST).is_file():
        parser.error(f"{options.out} is there and was not made by pack.sh: choose another --out.")
    if options.data is None and os.environ.get("WALKBACK_DATA"):
        options.data = Path(os.environ["WALKBACK_DATA"])
    return options


def _pack_data(mirror: Path | None, place: Path, room: int) -> dict[str, str]:
    """What was taken, by file."""
    if mirror is None or not mirror.is_dir():
        print(
            "There is no mirror of the data (WALKBACK_DATA): without it nothing can be trained there on images."
        )
        return {}
    return dict(images.pack(mirror, place, room))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
