"""Creates a private environment from the packed folder, without changes to the system or network access.

    python install.py PACKED ENVIRONMENT

It sees the packages of this Python; the packed wheels, and walkback built from this repository, take precedence.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import requirements

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = {**os.environ, "PIP_CONFIG_FILE": os.devnull}


def main() -> None:
    """Creates the environment, whose Python is ENVIRONMENT/bin/python."""
    packed, place = Path(sys.argv[1]), Path(sys.argv[2])
    _require_packed(packed)
    missing = requirements.missing()
    if missing:
        _refuse(
            f"Got {sys.executable} without {', '.join(missing)}, expected the usual scientific packages: install them, "
            "or name another Python: PYTHON=… run.sh."
        )
    _call(sys.executable, "-m", "venv", "--without-pip", "--clear", str(place))
    python = place / "bin" / "python"
    (_site(python) / "parent.pth").write_text("".join(f"{path}\n" for path in _inherited()))
    wheels = sorted(str(wheel) for wheel in (packed / "wheels").glob("*.whl"))
    _install(python, *wheels)
    _install(python, "--no-build-isolation", str(ROOT))
    problems = subprocess.run(
        [str(python), "-c", "import requirements; print(*requirements.unmet(), sep='\\n', end='')"],
        cwd=Path(__file__).parent,
        env=OFFLINE,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    if problems:
        _refuse(
            f"Got packages that do not fit together ({'; '.join(problems.splitlines())}), expected newer ones on this "
            "machine, or a folder that was packed anew (pack.sh)."
        )


def _require_packed(packed: Path) -> None:
    """Stop where the folder is not there, or was packed for another Python."""
    if not (packed / "manifest.json").is_file():
        _refuse(
            f"Got no packed folder {packed}, expected that of benchmarks/gpu/pack.sh: run it where there is a network, "
            "and bring the folder along."
        )
    wanted = json.loads((packed / "manifest.json").read_text())["python"]
    found = f"{sys.version_info.major}.{sys.version_info.minor}"
    if wanted != found:
        _refuse(
            f"Got Python {found}, expected {wanted}, which {packed} was packed for: name that (PYTHON=… run.sh), or "
            f"pack again (pack.sh --python {found})."
        )


def _inherited() -> list[str]:
    """Where this Python finds packages: its own places, without scripts and the standard library."""
    here = Path(__file__).parent.resolve()
    return [
        path
        for path in sys.path
        if path and Path(path).is_dir() and Path(path).resolve() != here and _holds_packages(Path(path))
    ]


def _holds_packages(path: Path) -> bool:
    """Whether it is a place of packages: it holds descriptions of distributions."""
    return next(path.glob("*.dist-info"), None) is not None


def _site(python: Path) -> Path:
    line = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip())


def _install(python: Path, *what: str) -> None:
    pip = f"{sys.executable} -m pip --isolated --disable-pip-version-check --python {python} install".split()
    _call(
        *pip,
        *["--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--force-reinstall"],
        *what,
    )


def _call(*line: str) -> None:
    done = subprocess.run(line, env=OFFLINE, check=False, stdout=sys.stderr)
    if done.returncode:
        _refuse(f"`{' '.join(line)[:200]}` failed (see above).")


def _refuse(sentence: str) -> NoReturn:
    raise SystemExit(f"error: {sentence}")


if __name__ == "__main__":
    main()
