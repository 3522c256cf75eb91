"""Wheels for another machine: downloaded for its Python, or rebuilt from what is installed here."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.metadata import Distribution, PackagePath, distribution
from pathlib import Path

PLATFORMS = tuple(f"manylinux_2_{minor}_x86_64" for minor in (17, 24, 27, 28, 31, 34))
"""Accepted platforms of wheels: glibc 2.34 or newer on x86-64."""

_OF_THE_INSTALLATION = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


def download(packages: Mapping[str, str], python: str, place: Path) -> None:
    """Downloads wheels of these versions for CPython `python` on Linux from pip's index.

    Raises:
        SystemExit: pip did not get them.
    """
    digits = python.replace(".", "")
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    line += ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    line += [f"--abi={abi}" for abi in (f"cp{digits}", "abi3", "none")]
    line += [f"--platform={platform}" for platform in (*PLATFORMS, "manylinux2014_x86_64")]
    line += ["--dest", str(place), *(f"{name}=={version}" for name, version in packages.items())]
    if subprocess.run(line, check=False).returncode:
        raise SystemExit("pip could not fetch the wheels (see above): is there a network?")


def gather(packages: Mapping[str, str], place: Path) -> None:
    """Rebuilds wheels from the installed packages, without a network; they fit only this Python."""
    for name in packages:
        _repack(distribution(name), place)


def _repack(installed: Distribution, place: Path) -> None:
    """One wheel, from the files that an installation recorded."""
    files = [file for file in installed.files or () if _belongs(file)]
    (info,) = {file.parts[0] for file in files if file.parts[0].endswith(".dist-info")}
    tags = [
        line.removeprefix("Tag: ")
        for line in (installed.read_text("WHEEL") or "").splitlines()
        if line.startswith("Tag: ")
    ]
    target = place / f"{info.removesuffix('.dist-info')}-{_compressed(tags)}.whl"
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in files:
            content = Path(str(installed.locate_file(file))).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            wheel.writestr(file.as_posix(), content)
            rows.writerow([file.as_posix(), f"sha256={digest}", len(content)])
        rows.writerow([f"{info}/RECORD", "", ""])
        wheel.writestr(f"{info}/RECORD", record.getvalue())


def _belongs(file: PackagePath) -> bool:
    """Whether a recorded file was in the wheel: no script, no bytecode, no note of the installer."""
    inside = file.parts[0] != ".." and not file.is_absolute() and "__pycache__" not in file.parts
    return inside and file.name not in _OF_THE_INSTALLATION


def _compressed(tags: list[str]) -> str:
    """Tags as in the name of a file: `py2.py3-none-any`."""
    parts = zip(*(tag.split("-") for tag in tags), strict=True)
    return "-".join(".".join(dict.fromkeys(part)) for part in parts)
