"""The request to compare runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from walkback.reporting.table import RunTable, find_runs

DEFAULT_PLACE = Path("runs")
"""Default folder of runs, see `walkback.storage.rundir.default_stem`."""


@dataclass(frozen=True, slots=True)
class RunsJob:
    """Find runs and compare them; no model is loaded, and nothing is written.

    Attributes:
        places: Run directories, checkpoints and folders of runs; `runs` if empty.
        sort: Column to sort by, see `RunTable.sorted`; None sorts by name.
        filters: Conditions, see `RunTable.filtered`.
    """

    places: Sequence[Path] = ()
    sort: str | None = None
    filters: Sequence[str] = ()

    def run(self) -> RunTable:
        """Find the runs and return them as a table.

        Raises:
            ConfigurationError: A place does not exist, or no run has a requested option.
        """
        found = find_runs(self.places or (DEFAULT_PLACE,)).filtered(self.filters)
        return found if self.sort is None else found.sorted(self.sort)
