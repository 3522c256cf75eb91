"""Recording of chains frame by frame, in a format chosen by the file name.

    .png            a filmstrip: row = chain, column = frame       in memory, so limited in size
                    (one frame: its states in a grid)
    .gif            a film: all chains in a grid, frame by frame   streamed
    .npz            arrays `steps` (F,) and `states` (F, N, *E)    streamed
    .safetensors    the same, as tensors                           streamed
    .npy            states (N, *E); (F, N, *E) if F > 1            in memory
    .csv, .parquet  named columns; if F > 1 also the chain         in memory
                    and the step of each row

Values are in the units of the data.

Files are written atomically: an interrupted chain leaves no file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from walkback.data import DataInfo
from walkback.errors import ConfigurationError
from walkback.pictures.sinks import (
    FilmSink,
    FilmstripSink,
    FrameSink,
    NpzSink,
    Output,
    SafetensorsSink,
)
from walkback.pictures.states import PANEL
from walkback.pictures.values import CsvSink, NpySink, ParquetSink
from walkback.storage.files import atomic_file, require_target, writing_to
from walkback.support.formats import CSV, GIF, NPY, NPZ, PARQUET, PNG, SAFETENSORS, STATES, listed

_MAX_FILMSTRIP_VALUES = 2**26
"""Largest number of pixel values of a filmstrip."""

_FORMATS: Mapping[str, type[FrameSink]] = {
    PNG: FilmstripSink,
    GIF: FilmSink,
    NPZ: NpzSink,
    SAFETENSORS: SafetensorsSink,
    NPY: NpySink,
    CSV: CsvSink,
    PARQUET: ParquetSink,
}


def open_sink(
    path: Path,
    info: DataInfo,
    *,
    num_frames: int,
    num_chains: int,
    overwrite: bool = False,
    protocol: Mapping[str, Any] | None = None,
) -> AbstractContextManager[FrameSink]:
    """Return a sink for `num_frames` frames of `num_chains` chains, in the format of the extension of `path`.

    Arguments are checked immediately. The `with` block writes a temporary file, which is moved to `path` on success.

    Args:
        path: The file.
        info: Description of the states.
        num_frames: Number of frames, F.
        num_chains: Number of chains, N.
        overwrite: Whether an existing file may be replaced.
        protocol: How the states were made, as plain JSON types. It is stored in the text chunk `walkback` of a `.png`,
            the comment of a `.gif`, the array `protocol` of a `.npz`, and the header of a `.safetensors`.

    Raises:
        ConfigurationError: The file cannot be written (see `require_target`), or there are too many states for a
            filmstrip.
    """
    require_target(path, _FORMATS, overwrite=overwrite)
    kind = _FORMATS[path.suffix.lower()]
    shape = (num_frames, num_chains, *info.shape)
    values = math.prod(shape) if info.is_image else num_frames * 3 * PANEL**2
    if kind is FilmstripSink and values > _MAX_FILMSTRIP_VALUES:
        raise ConfigurationError(
            f"{num_frames} frames of {num_chains} chains are too many for one picture: "
            f"record fewer, or write a {listed((GIF, *STATES))} file."
        )
    return _opened(kind, path, info, shape, protocol)


@contextmanager
def _opened(
    kind: type[FrameSink],
    path: Path,
    info: DataInfo,
    shape: tuple[int, ...],
    protocol: Mapping[str, Any] | None,
) -> Iterator[FrameSink]:
    with atomic_file(path) as file, ExitStack() as cleanup:
        with writing_to(path):
            sink = kind(Output(path, file, info, shape, cleanup, protocol))
        yield sink
        sink.end()
