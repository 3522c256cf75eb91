"""Tables and arrays in files: .npy, .npz, .csv, .tsv, .parquet and .arrow.

Importing this module imports neither torch nor pandas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from walkback.component import Component, DatasetSource
from walkback.hookspecs import hookimpl

_ROWS = "walkback.data.tensors"

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "operator": {
        "name": "gaussian-mlp",
        "mean": "linear",
        "basis": "eigenvectors",
        "sigma_share": 0.15,
        "mixture": 8,
        "network": {"hidden": 128, "depth": 3},
    },
    "prior": {"name": "gaussian", "basis": "eigenvectors"},
    "schedule": {"name": "doubling", "n1": 2},
    "process": {"name": "tied"},
    "objective": {"name": "walkback"},
    "training": {
        "steps": 1200,
        "batch_size": 128,
        "updates": "online",
        "lr": 2e-3,
        "lr_schedule": "cosine",
        "warmup": 100,
        "ema": 0.9995,
        "validate_every": 200,
        "validation_examples": 500,
        "checkpoint_every": 400,
    },
    "samples": {"num": 500, "chains": 200},
    "run": {"threads": 1},
}
"""What learns a table: it starts at the best Gaussian of the columns, and the network learns what is left.

Online updates reach the same bound in half the time of one update a walk. The cooling kernel has several modes because
tables have clusters: with a single one, the table with two modes of docs/tables.md stays 0.3 nats from its law.
"""

_OF_ARRAYS: Mapping[str, Mapping[str, Any]] = {
    "prior": {"name": "gaussian", "basis": "auto"},
    "training": {
        "steps": 3000,
        "batch_size": 128,
        "lr": 1e-3,
        "lr_schedule": "cosine",
        "warmup": 100,
    },
}
"""Of arrays of any shape: the operator is the default recipe's, and the prior has its directions."""


@hookimpl
def walkback_datasets() -> Iterator[Component]:
    """Numbers under two names, since rows of numbers and larger arrays are learned differently; and categories."""
    target = "walkback_tables.dataset:TableFile"
    yield Component(
        "table",
        target,
        "Columns of numbers in a file: .csv, .parquet, .arrow, .npy or .npz (option path).",
        defaults=_DEFAULTS,
        instances=(f"{_ROWS}:TableData",),
    )
    yield Component(
        "array",
        target,
        "Series, images, volumes or other arrays (N, …) in a .npy or .npz file (option path).",
        defaults=_OF_ARRAYS,
        instances=(f"{_ROWS}:TensorData",),
    )
    yield Component(
        "categories",
        "walkback_tables.categories:CategoryFile",
        "Columns of categories in a file, as one-hot symbols (L, S) (option path).",
        defaults={"operator": {"name": "categorical"}},
        instances=("walkback.data.category_tables:CategoryData",),
    )


@hookimpl
def walkback_dataset_source(source: str) -> DatasetSource | None:
    """Reads files with the endings of tables; parquet files only if none of their columns holds images."""
    from walkback_tables.sources import component_for

    name = component_for(source)
    return None if name is None else DatasetSource(name, {"path": source})
