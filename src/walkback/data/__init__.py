"""Data: examples in memory, and the states that walks start from.

dataset   the interface `Dataset`, its capabilities, and the description `DataInfo`
batches   examples of a split as states with their context
pixels    stored gray levels as states in [0, 1]
tables    columns of numbers, checked
categories, category_tables   columns of categories as symbols
tensors   arrays in memory
held_out  splits of data that come without any
deferred  datasets that are made when they are prepared
standardization   values in their own units as standardized states

The names of `dataset` and `batches` can be imported from `walkback.data`.
"""

from __future__ import annotations

from walkback.data.batches import (
    Batch,
    batch_of,
    context_of,
    draw_labels,
    labels_in_turn,
    require_examples,
    states_of,
)
from walkback.data.dataset import (
    SPLITS,
    Augmented,
    Centred,
    Condition,
    DataInfo,
    Dataset,
    Labelled,
    Split,
    Standardized,
    Watched,
    conditioned,
    has_classes,
    prepare_data,
)

__all__ = [
    "SPLITS",
    "Augmented",
    "Batch",
    "Centred",
    "Condition",
    "DataInfo",
    "Dataset",
    "Labelled",
    "Split",
    "Standardized",
    "Watched",
    "batch_of",
    "conditioned",
    "context_of",
    "draw_labels",
    "has_classes",
    "labels_in_turn",
    "prepare_data",
    "require_examples",
    "states_of",
]
