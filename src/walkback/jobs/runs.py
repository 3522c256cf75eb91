"""The request to compare runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from walkback.reporting.table import RunTable, find_runs

DEFAULT_PLACE = Path("runs")
"""Where runs are, see `walkback.storage.rundir.default_stem`."""


@dataclass(frozen=True, slots=True)
class RunsJob:
    """Find runs and compare them; no model is loaded, and nothing is written.

    Attributes:
        places: Run directories, checkpoints and folders of runs; none: `runs`.
        sort: What they are sorted by, see `RunTable.sorted`; None: by name.
        filters: Conditions, see `RunTable.filtered`.
    """

    places: Sequence[Path] = ()
    sort: str | None = None
    filters: Sequence[str] = ()

    def run(self) -> RunTable:
        """Find the runs.

        Raises:
            ConfigurationError: A place does not exist, or no run has an option that is asked for.
        """
        found = find_runs(self.places or (DEFAULT_PLACE,)).filtered(self.filters)
        return found if self.sort is None else found.sorted(self.sort)
