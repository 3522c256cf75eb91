"""`runs`: run directories side by side; `save_report`: one of them as a page; `sweep`: train several."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from walkback.api.inputs import carry_out, path_or_none
from walkback.configuration.overrides import assignments
from walkback.jobs.configuration import choices_of
from walkback.jobs.report import MeasureRequest, ReportJob
from walkback.jobs.runs import RunsJob
from walkback.jobs.sweep import SweepJob
from walkback.jobs.train import TrainJob
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


def save_report(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str] = "report.html",
    *,
    evaluate: bool = False,
    samples: int = 0,
    diagnose: Sequence[str] = (),
    trust_data: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> Path:
    """Write one self-contained HTML page on a run, as `walkback report` does.

    Args:
        source: A run directory, or a checkpoint, of which samples and chains are drawn for the page.
        path: The `.html` file.
        evaluate: Whether to measure the likelihood of held-out data, beside baselines.
        samples: Samples compared with the data then; 0: none.
        diagnose: Names of diagnostics to carry out.
        trust_data: Whether the data that the checkpoint names may be read and fetched, wherever the file comes from.
        overwrite: Whether the file may be there already.
        device: Where to compute.
        progress: Show a bar in terminals and notebooks.

    Returns:
        The file.

    Raises:
        ConfigurationError: There is no run, or the file cannot be written.
        CheckpointError: The checkpoint cannot be read.
        DataError: Data to measure with cannot be had.
    """
    measure = MeasureRequest(evaluate, samples, tuple(diagnose), trust_data)
    return carry_out(ReportJob(Path(source), Path(path), overwrite, device, measure), progress)


def sweep(
    values: Mapping[str, Sequence[Any]] | None = None,
    *,
    seeds: int | None = None,
    out: str | os.PathLike[str] | None = None,
    operator: str | None = None,
    data: str | os.PathLike[str] | None = None,
    recipe: str | os.PathLike[str] | None = None,
    steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> RunTable:
    """Train one run per combination of values and seeds, as `walkback run --sweep` does.

    Each run has a directory. Calling this again skips the runs that have ended and resumes the others.

    Args:
        values: Values by option: `{"operator.sigma": [0.03, 0.05]}`.
        seeds: Number of seeds; None: one.
        out: Directory of the run directories; None: `runs/OPERATOR-DATA-sweep`.
        operator: Name.
        data: Name, path or hub id.
        recipe: Name or TOML file to start from.
        steps: Number of walks of each run.
        settings: Any option, for all runs, as in `train`.
        progress: Show a bar in terminals and notebooks.

    Returns:
        The runs, as `runs` does.

    Raises:
        ConfigurationError: A configuration is wrong, or a directory contains another run.
        DataError: The data cannot be had.
        WalkbackError: A run failed, except by diverging, which is its state in the table.
    """
    named = {"operator": operator, "data": data, "recipe": recipe, "steps": steps}
    flags = {name: os.fspath(v) if isinstance(v, os.PathLike) else v for name, v in named.items()}
    listed = [f"{option}={','.join(json.dumps(v) for v in each)}" for option, each in (values or {}).items()]
    job = TrainJob(choices_of(flags, assignments(settings or {})), out=path_or_none(out))
    return carry_out(SweepJob(job, seeds, listed), progress)
