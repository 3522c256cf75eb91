"""Checks of datasets: disjoint splits, states in range that depend only on the generator, a correct description."""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from walkback.data import SPLITS, Augmented, Centred, DataInfo, Dataset, Labelled, Split
from walkback.errors import DataError
from walkback.state import Space
from walkback.support.seeding import generator
from walkback.testing.cases import Case, ConformanceError, NotApplicable, Suite
from walkback.testing.probes import drawn_from, require_state, same

DATASETS = Suite()

_SHARED = 0.01  # share of a held-out split: real data contain a few duplicates
_ROWS = 64
_DRAWS = 64


def _prepared(case: Case) -> Dataset:
    dataset: Dataset = case.build("dataset")
    dataset.prepare()
    return dataset


def _keys(rows: Tensor) -> Counter[bytes]:
    return Counter(row.tobytes() for row in rows.contiguous().numpy())


@DATASETS.check("builds", "it is a dataset, built from its options, that can be prepared twice")
def _builds(case: Case) -> None:
    dataset = _prepared(case)
    before = dataset.info
    dataset.prepare()
    if dataset.info != before:
        raise ConformanceError(
            "Got another info after a second prepare, expected the same: prepare is idempotent."
        )


@DATASETS.check("info", "name, shape, counts and fingerprint are those of the data, and survive JSON")
def _info(case: Case) -> None:
    dataset = _prepared(case)
    info = dataset.info
    counts = {split: len(dataset.examples(split)) for split in SPLITS}
    if dict(info.splits) != counts:
        raise ConformanceError(
            f"Got info.splits = {dict(info.splits)}, expected {counts}, the numbers of examples."
        )
    if not (info.name and info.fingerprint):
        raise ConformanceError(
            f"Got the name {info.name!r} and the fingerprint {info.fingerprint!r}, expected both: figures are "
            "stamped with them."
        )
    if DataInfo.from_dict(info.to_dict()) != info:
        raise ConformanceError("Got another info back from JSON, expected the same: use plain types.")


@DATASETS.check("examples", "examples are (N, *E), uint8 or float32, on the CPU, the same every time")
def _examples(case: Case) -> None:
    dataset, again = _prepared(case), _prepared(case)
    for split in SPLITS:
        rows = dataset.examples(split)
        if rows.dtype not in (torch.uint8, torch.float32) or rows.device.type != "cpu" or not len(rows):
            raise ConformanceError(
                f"Got {len(rows)} {split} examples of {rows.dtype} on {rows.device}, expected some of torch.uint8 or "
                "torch.float32 on the CPU."
            )
        if not (torch.equal(rows, dataset.examples(split)) and torch.equal(rows, again.examples(split))):
            raise ConformanceError(
                f"Got other {split} examples of a second dataset of the same options, expected the same: splits are "
                "deterministic."
            )
    if dataset.info.fingerprint != again.info.fingerprint:
        raise ConformanceError("Got two fingerprints of the same data, expected one.")


@DATASETS.check("splits", "no example is in two splits, except for a few duplicates in the data themselves")
def _splits(case: Case) -> None:
    dataset = _prepared(case)
    keys = {split: _keys(dataset.examples(split)) for split in SPLITS}
    own = 1 - len(keys["train"]) / keys["train"].total()
    pairs: tuple[tuple[Split, Split], ...] = (
        ("train", "validation"),
        ("train", "test"),
        ("validation", "test"),
    )
    for first, second in pairs:
        shared = sum(count for key, count in keys[second].items() if key in keys[first])
        share = shared / keys[second].total()
        if share > max(_SHARED, 2 * own):
            raise ConformanceError(
                f"Got {shared} of {keys[second].total()} {second} examples ({share:.1%}) in the {first} split too, "
                "expected none: figures on held-out data would mean nothing."
            )


@DATASETS.check("states", "states are (B, *E), float32, within the support that info names")
def _states(case: Case) -> None:
    dataset = _prepared(case)
    info = dataset.info
    for split in SPLITS:
        rows = dataset.examples(split)[:_ROWS]
        found = dataset.states(rows, generator("cpu", 0, "states"))
        require_state(found, info.space, len(rows), f"states of the {split} split")
        low, high = float(found.min()), float(found.max())
        if info.bins is not None and not (low >= 0 and high <= 1):
            raise ConformanceError(
                f"Got states from {low:.4g} to {high:.4g} of data with {info.bins} levels, expected 0 to 1: bits/dim "
                "count on levels of width 1 / bins."
            )


@DATASETS.check("generator", "states depend only on the rows and the generator, and rows are unchanged")
def _generator(case: Case) -> None:
    dataset = _prepared(case)
    rows = dataset.examples("train")[:_ROWS]
    before = rows.clone()
    drawn_from(lambda noise: dataset.states(rows, noise), "states of the dataset")
    if not same(before, dataset.examples("train")[:_ROWS]):
        raise ConformanceError("Got examples that `states` changed in place, expected them untouched.")


@DATASETS.check("rows", "states follow the order of their rows")
def _rows(case: Case) -> None:
    dataset = _prepared(case)
    rows = dataset.examples("train")[:_ROWS]
    turned = rows.flip(0)
    # The noise of a row depends on its position in the batch; the average over draws must not.
    first, second = (_draws(dataset, part).mean(0) for part in (rows, turned.contiguous()))
    spread = float(first.std()) if first.numel() > 1 else 1.0
    if not torch.allclose(first, second.flip(0), atol=max(0.5 * spread, 1e-3)):
        raise ConformanceError(
            "Got states that do not follow the order of their rows, expected state i to come from row i."
        )


def _draws(dataset: Dataset, rows: Tensor) -> Tensor:
    """Return several draws of the states of the same rows, `(draws, B, *E)`."""
    return torch.stack([dataset.states(rows, generator("cpu", 0, "average", draw)) for draw in range(_DRAWS)])


@DATASETS.check("centres", "the mean of an example's states is its centre")
def _centres(case: Case) -> None:
    dataset = _prepared(case)
    if not isinstance(dataset, Centred):
        raise NotApplicable("The data do not define centres.")
    rows = dataset.examples("train")[:_ROWS]
    centres = dataset.centres(rows)
    # A centre of binary data is a probability, hence a real state whatever the support of the data.
    require_state(centres, Space(dataset.info.shape), len(rows), "centres of the train split")
    draws = _draws(dataset, rows)
    missed = float((draws.mean(0) - centres).abs().max())
    allowed = 6 * float(draws.std(0).max()) / math.sqrt(_DRAWS) + 1e-6
    if missed > allowed:
        raise ConformanceError(
            f"Got a centre {missed:.4g} away from the mean of {_DRAWS} states of its example in one dimension, "
            f"expected at most {allowed:.2g} (6 standard errors): centre i is the mean of the states of row i."
        )


@DATASETS.check("augmented", "changed examples are examples: of the same type and shape, and row by row")
def _augmented(case: Case) -> None:
    dataset = _prepared(case)
    if not isinstance(dataset, Augmented):
        raise NotApplicable("The data do not change examples.")
    rows = dataset.examples("train")[:_ROWS]
    before = rows.clone()
    found, again = (dataset.augmented(rows, generator("cpu", 0, "augmented")) for _ in range(2))
    if found.dtype != rows.dtype or found.shape != rows.shape:
        raise ConformanceError(
            f"Got changed examples {tuple(found.shape)} of {found.dtype}, expected {tuple(rows.shape)} of {rows.dtype}."
        )
    if not torch.equal(rows, before):
        raise ConformanceError("Got stored examples changed in place, expected new ones.")
    if not torch.equal(found, again):
        raise ConformanceError(
            "Got different results with equal generators, expected equal ones: draw all randomness from the generator."
        )


@DATASETS.check("labels", "each example has a class, and class names are unique")
def _labels(case: Case) -> None:
    dataset = _prepared(case)
    if not isinstance(dataset, Labelled):
        raise NotApplicable("The data have no classes.")
    try:
        classes = dataset.classes
    except DataError as error:
        raise NotApplicable(f"The data have no classes: {error}") from error
    told = dataset.info.classes
    counts = torch.bincount(dataset.labels("train").clamp(min=-1) + 1, minlength=len(classes) + 1)[
        1:
    ].tolist()
    if told and (tuple(told) != classes or list(told.values()) != counts):
        raise ConformanceError(
            f"Got info.classes = {dict(told)!r:.200}, expected the names and the numbers of training examples: "
            "walkback.data.conditioned makes them."
        )
    if len(set(classes)) != len(classes):
        raise ConformanceError(f"Got the classes {classes!r:.100}, expected different names.")
    for split in SPLITS:
        labels, num = dataset.labels(split), len(dataset.examples(split))
        if tuple(labels.shape) != (num,) or labels.dtype != torch.int64:
            raise ConformanceError(
                f"Got {split} labels of shape {tuple(labels.shape)} and {labels.dtype}, expected ({num},) of "
                "torch.int64, one an example."
            )
        if int(labels.min()) < -1 or int(labels.max()) >= len(classes):
            raise ConformanceError(
                f"Got {split} labels from {int(labels.min())} to {int(labels.max())}, expected 0 to "
                f"{len(classes) - 1}, numbers of classes, or -1 for an example without one."
            )
