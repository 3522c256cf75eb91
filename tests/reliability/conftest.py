"""One server of real processes for all tests of reliability."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.program import TINY
from tests.reliability.forks import Forks, forks


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Processes that start in milliseconds, with a cache of their own."""
    place = tmp_path_factory.mktemp("server")
    warming = [["run", *TINY, "--steps", "1", "--out", str(place / "warming")]]
    with forks({"WALKBACK_CACHE": str(place / "cache")}, warming) as processes:
        yield processes
