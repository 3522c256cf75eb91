"""Recorded chains without an operator, `(chains, draws, …)`: from arrays, files and ArviZ, and back.

.npy                      (chains, draws, …)
.npz                      the array `trace`, or the only one; or `states` (draws, chains, …) beside `steps`, as
`walkback sample --chain` writes it
InferenceData, DataTree   group `posterior`: variables (chain, draw, …), flattened side by side
"""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from walkback.errors import DataError
from walkback.measuring.estimates import require_enough
from walkback.report import Report
from walkback.support.extras import require
from walkback.support.text import one_line, printable

ENDINGS = (".npz", ".npy")
"""Files that recordings are read from."""

_FEWEST_DRAWS = 40


@dataclass(frozen=True, slots=True)
class Recording:
    """Recorded chains.

    Attributes:
        values: `(C, N, D)`, float64, finite: chains, draws, flattened entries.
        shape: Event shape.
        name: For protocols.
    """

    values: Tensor
    shape: tuple[int, ...]
    name: str

    def facts(self) -> dict[str, Any]:
        """What protocols say of it."""
        chains, draws, _ = self.values.shape
        return {"trace": self.name, "chains": chains, "draws": draws, "shape": list(self.shape)}


class MeasuresRecordings(ABC):
    """Capability of a diagnostic: it also measures recorded chains, without an operator and without data."""

    @abstractmethod
    def measure_recording(self, recording: Recording) -> Report:
        """Measure recorded chains; options on how chains are run do not apply."""


def recording_of(values: Any, name: str = "array") -> Recording:
    """Make a recording of an array or tensor `(chains, draws, …)`, or of an InferenceData or DataTree of ArviZ.

    Raises:
        ConfigurationError: There are too few chains for standard errors.
        DataError: The values cannot be used.
    """
    if hasattr(values, "posterior") or hasattr(values, "children"):
        return recording_of(_of_posterior(values), "posterior")
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim < 2 or array.dtype.kind not in "biuf" or array.shape[1] < _FEWEST_DRAWS or not array.size:
        raise DataError(
            f"Got a trace {printable(name)} of shape {array.shape} and type {array.dtype}, expected numbers (chains, "
            f"draws, …) with at least {_FEWEST_DRAWS} draws."
        )
    require_enough(len(array), "chains", "the number of chains in the trace")
    flat = torch.from_numpy(array.reshape(*array.shape[:2], -1).astype(np.float64))
    if not bool(flat.isfinite().all()):
        raise DataError(f"Got a trace {printable(name)} with NaN or infinity, expected finite numbers.")
    return Recording(flat, tuple(array.shape[2:]), name)


def read_recording(path: Path, array: str | None = None) -> Recording:
    """Read a recording from a `.npy` or `.npz` file; nothing is unpickled.

    Args:
        path: The file.
        array: Name of the array `(chains, draws, …)` in a `.npz` file; None: see the module's docstring.

    Raises:
        ConfigurationError: See `recording_of`.
        DataError: The file cannot be read, or holds something else.
    """
    name = printable(path.name)
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return recording_of(found, path.name)
        with found:
            return recording_of(_member(found, array, name), path.name)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {printable(str(path))}: check the path.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"The trace {name} cannot be read ({one_line(error)}): write it again.") from error


def _member(archive: Any, array: str | None, name: str) -> npt.NDArray[Any]:
    names = list(archive.files)
    if array is None and {"states", "steps"} <= set(names):
        frames: npt.NDArray[Any] = np.swapaxes(archive["states"], 0, 1)
        return frames
    wanted = array or ("trace" if "trace" in names else names[0] if len(names) == 1 else None)
    if wanted is None or wanted not in names:
        listing = ", ".join(map(printable, names[:10])) or "none"
        raise DataError(
            f"Got the arrays {listing} in {name}, expected one called 'trace', or the name of one (--array)."
        )
    chosen: npt.NDArray[Any] = archive[wanted]
    return chosen


def _of_posterior(tree: Any) -> npt.NDArray[np.float64]:
    """The variables of a posterior side by side, `(chains, draws, D)`."""
    try:
        group = tree["posterior"]
        names = list(group.data_vars)
        columns = [np.asarray(group[name].transpose("chain", "draw", ...).values) for name in names]
    except (KeyError, ValueError, AttributeError) as error:
        raise DataError(
            f"Got no group 'posterior' with dimensions chain and draw ({one_line(error)}), expected one."
        ) from error
    if not columns:
        raise DataError("Got a posterior without variables, expected at least one.")
    return np.concatenate([np.asarray(c, dtype=np.float64).reshape(*c.shape[:2], -1) for c in columns], -1)


def to_arviz(frames: Tensor, name: str = "state") -> Any:
    """Return recorded frames `(draws, chains, …)` as ArviZ has them: a DataTree with a group `posterior`.

    Raises:
        MissingLibraryError: arviz-base is not installed.
    """
    base = require("arviz_base", "arviz")
    return base.from_dict({"posterior": {name: frames.detach().cpu().swapaxes(0, 1).numpy()}})
