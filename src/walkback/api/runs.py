"""`runs` lists run directories, `save_report` writes a page about one, `sweep` trains several, `compare` methods."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from walkback.api.inputs import carry_out, path_or_none
from walkback.comparing.table import ComparisonTable
from walkback.configuration.overrides import assignments
from walkback.jobs.compare import CompareJob
from walkback.jobs.configuration import choices_of
from walkback.jobs.report import MeasureRequest, ReportJob
from walkback.jobs.runs import RunsJob
from walkback.jobs.sweep import SweepJob
from walkback.jobs.train import TrainJob
from walkback.reporting.table import RunTable


def runs(*places: str | os.PathLike[str], sort: str | None = None, filters: Sequence[str] = ()) -> RunTable:
    """Find and compare runs, like `walkback runs list`; shown as a table in notebooks.

    Args:
        places: Run directories, checkpoints, and folders of runs; `runs` if none are given.
        sort: "bound", "final", "speed", "walks", "updated", "state", "name", or an option such as "operator.sigma".
        filters: Conditions such as "state=finished" or "run.seed!=0".

    Returns:
        The runs; `table.rows()` are records for a data frame.

    Raises:
        ConfigurationError: A place does not exist, or no run has a requested option.
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
    """Write a self-contained HTML page about a run, like `walkback report`.

    Args:
        source: A run directory; or a checkpoint, for which the page shows new samples and chains.
        path: The `.html` file.
        evaluate: Whether to evaluate the likelihood of held-out data, with baselines.
        samples: Number of samples that the evaluation compares with the data; 0 omits the comparison.
        diagnose: Names of diagnostics to run.
        trust_data: Whether the data named by the checkpoint may be read and downloaded, even if the file is not yours.
        overwrite: Whether an existing file may be replaced.
        device: Device to compute on.
        progress: Whether to show a bar in terminals and notebooks.

    Returns:
        The file.

    Raises:
        ConfigurationError: There is no such run, or the file cannot be written.
        CheckpointError: The checkpoint cannot be read.
        DataError: Data for a measurement cannot be read or downloaded.
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
    """Train one run per combination of values and seeds, like `walkback run --sweep`.

    Each run has its own directory. A repeated call skips finished runs and resumes the others.

    Args:
        values: Values by option: `{"operator.sigma": [0.03, 0.05]}`.
        seeds: Number of seeds; None uses a single one.
        out: Parent of the run directories; None means `runs/OPERATOR-DATA-sweep`.
        operator: Name of the operator.
        data: Name, path or hub id of the data.
        recipe: Name or TOML file of the recipe.
        steps: Number of walks per run.
        settings: Options of all runs, see `train`.
        progress: Whether to show a bar in terminals and notebooks.

    Returns:
        The runs, see `runs`.

    Raises:
        ConfigurationError: A configuration is invalid, or a directory contains another run.
        DataError: The data cannot be read or downloaded.
        WalkbackError: A run failed. A run that diverges raises no error; the table shows its state.
    """
    named = {"operator": operator, "data": data, "recipe": recipe, "steps": steps}
    flags = {name: os.fspath(v) if isinstance(v, os.PathLike) else v for name, v in named.items()}
    listed = [f"{option}={','.join(json.dumps(v) for v in each)}" for option, each in (values or {}).items()]
    job = TrainJob(choices_of(flags, assignments(settings or {})), out=path_or_none(out))
    return carry_out(SweepJob(job, seeds, listed), progress)


def compare(
    path: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    published: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> ComparisonTable:
    """Compare methods on one data set, with the same network and compute, like `walkback compare`.

    A repeated call resumes: finished runs and measurements are kept.

    Args:
        path: The TOML file of methods.
        out: Directory of runs, measurements, table and page; None means `runs/NAME-comparison`.
        published: Whether to add published figures, in a table of their own.
        device: Device of the measurements.
        progress: Whether to show a bar in terminals and notebooks.

    Returns:
        The table; `table.records()` are records for a data frame.

    Raises:
        ConfigurationError: The file or a configuration is invalid, or methods differ in data, network or number of
            network calls.
        DataError: The data cannot be read or downloaded.
        WalkbackError: A run failed. A run that diverges raises no error; the table gives the reason.
    """
    return carry_out(CompareJob(Path(path), path_or_none(out), published, device), progress)
