"""The content of a page about a run, read from its directory or from a checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from walkback.errors import CheckpointError, ConfigurationError, WalkbackError
from walkback.report import Report
from walkback.reporting.page import CAPTIONS, PageContent, Picture
from walkback.reporting.record import read_run
from walkback.storage.description import Description, read_description
from walkback.storage.store import checkpoint_in
from walkback.support.numbers import is_number
from walkback.support.text import one_line
from walkback.support.textfile import read_text
from walkback.training.metrics_file import FILE_NAME, read_records

_MOST_PICTURE = 16 * 2**20
"""Maximum size of an embedded picture, in bytes."""

_MOST_PICTURES = 24 * 2**20
"""Size in bytes of all pictures of a page."""

_MOST_MIDWAY = 12
"""Maximum number of pictures of samples during training; if there are more, they are evenly spaced."""

_MOST_RECORDS = 200_000
"""Maximum number of records of metrics."""

_MOST_REPORT = 2**24

_APART, _MOST_LISTED = ("classes", "standardized", "categories"), 20
"""Facts on data that are formatted by themselves, and most columns of these."""

_PNG, _HEADER = b"\x89PNG\r\n\x1a\n", 33
"""Signature of PNG files, and the length of signature and first chunk, which contains the size of the picture."""


def content_of(path: Path) -> PageContent:
    """Read the content of a page; damaged and foreign files are omitted and named.

    Raises:
        CheckpointError: `path` is a file, but not a checkpoint.
    """
    if not path.is_dir():
        description = read_description(path)
        return PageContent(read_run(path), facts=_facts(description))
    left_out: list[str] = []
    history: tuple[Mapping[str, Any], ...] = ()
    try:
        history = history_in(path)
    except OSError as error:
        left_out.append(f"{FILE_NAME} cannot be read: {error.strerror}.")
    facts: list[tuple[str, str]] = []
    try:
        facts = _facts(read_description(checkpoint_in(path)))
    except CheckpointError as error:
        left_out.append(f"There is no provenance: {one_line(error)}.")
    return PageContent(
        run=read_run(path),
        history=history,
        pictures=_pictures_in(path / "samples", left_out),
        reports=_reports_in(path, left_out),
        facts=facts,
        left_out=left_out,
    )


def history_in(directory: Path) -> tuple[Mapping[str, Any], ...]:
    """Return the records of `metrics.jsonl`, at most 200,000; empty without the file.

    Raises:
        OSError: The file cannot be read.
    """
    path = directory / FILE_NAME
    return tuple(islice(read_records(path), _MOST_RECORDS)) if path.is_file() else ()


def _facts(description: Description) -> list[tuple[str, str]]:
    data = description.data
    rows = [
        ("written by", f"walkback {description.walkback}, torch {description.torch}"),
        ("weights", "running average" if description.weights == "ema" else "last"),
        ("progress", ", ".join(f"{value:,} {name}" for name, value in description.progress.items())),
        *(
            (str(key), _plain(value))
            for key, value in data.items()
            if value is not None and key not in _APART
        ),
        *_columns(data.get("standardized")),
    ]
    origins = description.components.items()
    return rows + [(section, f"{o.name} of {o.distribution} {o.version}") for section, o in origins]


def _columns(standardized: object) -> list[tuple[str, str]]:
    """Mean and deviation of the columns of a table."""
    if not isinstance(standardized, dict):
        return []
    names, means, deviations = (_list(standardized.get(key)) for key in ("columns", "mean", "deviation"))
    rows = zip(names or [f"{n}" for n in range(len(means))], means, deviations, strict=False)
    told = [
        f"{name}: {mean:.5g} ± {deviation:.4g}"
        for name, mean, deviation in islice(rows, _MOST_LISTED)
        if is_number(mean) and is_number(deviation)
    ]
    more = [f"… ({len(means)} in all)"] if len(means) > _MOST_LISTED else []
    return [("mean ± deviation of training data", "; ".join([*told, *more]))]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _plain(value: object) -> str:
    match value:
        case list():
            return ", ".join(map(_plain, value))
        case dict():
            return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
        case _:
            return str(value)


def _pictures_in(directory: Path, left_out: list[str]) -> list[Picture]:
    """Return the final pictures, followed by those during training."""
    if not directory.is_dir():
        return []
    found = {path.stem: path for path in sorted(directory.glob("*.png"))}
    midway = sorted(
        (name for name in found if re.fullmatch(r"step-\d+", name)), key=lambda name: int(name[5:])
    )
    every = max(1, -(-len(midway) // _MOST_MIDWAY))
    first = [name for name in CAPTIONS if name in found]
    others = [name for name in found if name not in (*first, *midway)]
    pictures: list[Picture] = []
    room, crowded = _MOST_PICTURES, 0
    for name in (*first, *others, *midway[::-1][::every][::-1]):
        try:
            picture = Picture(name, read_png(found[name]))
        except ConfigurationError as error:
            left_out.append(str(error))
            continue
        if len(picture.png) > room:
            crowded += 1
            continue
        room -= len(picture.png)
        pictures.append(picture)
    if crowded:
        left_out.append(
            f"{crowded} more pictures are in {directory}; the page has {_MOST_PICTURES // 2**20} MiB."
        )
    return pictures


def read_png(path: Path) -> bytes:
    """Read a PNG file; raises ConfigurationError if it is not one, is too large or not a regular file."""
    if path.is_symlink() or not path.is_file():
        raise ConfigurationError(f"{path} is not a regular file.")
    if path.stat().st_size > _MOST_PICTURE:
        raise ConfigurationError(f"{path} is larger than {_MOST_PICTURE / 2**20:g} MiB.")
    content = path.read_bytes()
    if not content.startswith(_PNG) or len(content) < _HEADER:
        raise ConfigurationError(f"{path} is not a PNG file.")
    return content


def _reports_in(directory: Path, left_out: list[str]) -> list[Report]:
    """Return the reports among the JSON files of a directory (`walkback evaluate RUN --json > RUN/evaluate.json`)."""
    reports = []
    for path in sorted(directory.glob("*.json")):
        try:
            document = json.loads(read_text(path, _MOST_REPORT))
        except (WalkbackError, ValueError, RecursionError) as error:
            left_out.append(f"{path} cannot be read: {one_line(error)}.")
            continue
        if not isinstance(document, dict) or not {"headline", "figures"} <= document.keys():
            continue  # another kind of file: result.json, files of users
        try:
            reports.append(report_from(document))
        except (ValidationError, ValueError, WalkbackError) as error:
            left_out.append(f"{path} is not a report: {one_line(error)}.")
    return sorted(reports, key=lambda report: report.name != "evaluate")


def report_from(document: Mapping[str, Any]) -> Report:
    """Invert `Report.to_dict`; further keys are ignored.

    Raises:
        ValueError: The document is not a report.
    """
    known = {key: document[key] for key in Report.__dataclass_fields__ if key in document}
    return TypeAdapter(Report).validate_python(known)
