"""What every test gets (one thread, a cache of its own), and plugins installed for one test.

Models whose answers are known, statistics and data in memory are plain modules in `tests/toy/`.
"""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
import torch

PREAMBLE = """\
from walkback.component import Command, Component, DatasetSource, Recipe
from walkback.hookspecs import hookimpl
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what takes minutes unless `-m` asks for it."""
    if "slow" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(pytest.mark.skip(reason="It takes minutes: `pytest -m slow`."))


class Install(Protocol):
    def __call__(self, distribution: str, code: str, *, entry: str = ..., version: str = ...) -> Path: ...


@pytest.fixture(autouse=True, scope="session")
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread here and in subprocesses (sums depend on the number), and no cache shared with the user's."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("WALKBACK_CACHE", str(tmp_path_factory.mktemp("walkback-cache")))
        yield


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with one plugin module; returns the directory, for a subprocess's PYTHONPATH."""
    site, modules = tmp_path / "site", []
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def write(distribution: str, code: str, *, entry: str = "main", version: str = "1.0") -> Path:
        module = f"{distribution.replace('-', '_')}_{entry}"
        modules.append(module)
        (site / f"{module}.py").write_text(PREAMBLE + textwrap.dedent(code))
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        with (info / "entry_points.txt").open("a") as file:
            file.write(f"[walkback]\n{entry} = {module}\n")
        importlib.invalidate_caches()
        return site

    yield write
    for module in modules:
        sys.modules.pop(module, None)
