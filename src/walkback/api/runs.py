"""`runs`: run directories side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from walkback.jobs.runs import RunsJob
from walkback.reporting.table import RunTable


def runs(*places: str | os.PathLike[str], sort: str | None = None, filters: Sequence[str] = ()) -> RunTable:
    """Find runs and compare them, as `walkback runs list` does; a table in notebooks.

    Args:
        places: Run directories, checkpoints, and folders of runs; none: `runs`.
        sort: "bound", "final", "speed", "walks", "updated", "state", "name", or an option such as "operator.sigma".
        filters: Conditions such as "state=finished" or "run.seed!=0".

    Returns:
        The runs; `table.rows()` are records for a data frame.

    Raises:
        ConfigurationError: A place does not exist, or no run has an option that is asked for.
    """
    return RunsJob([Path(place) for place in places], sort, filters).run()
