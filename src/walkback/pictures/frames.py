"""Recording of chains frame by frame, in a format chosen by the file name.

    .png            a filmstrip: a row a chain, a column a frame   in memory, so limited in size
                    (one frame: its states in a grid)
    .gif            a film: all chains in a grid, frame by frame   streamed
    .npz            arrays `steps` (F,) and `states` (F, N, *E)    streamed
    .safetensors    the same, as tensors                           streamed
    .npy            states (N, *E), or (F, N, *E) of more frames   in memory
    .csv, .parquet  columns by name; of more frames also the       in memory
                    chain and the step of each row

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
    """A sink for `num_frames` frames of `num_chains` chains, chosen by the extension of `path`.

    The request is checked immediately. The `with` block opens the file, which appears when the block succeeds.

    Args:
        path: The file.
        info: What the states are.
        num_frames: F.
        num_chains: N.
        overwrite: Whether a file that is there may be replaced.
        protocol: How the states were made, plain JSON types: a `.png` has it as its text chunk `walkback`, a
            `.gif` as its comment, a `.npz` as the text `protocol`, `.safetensors` in the header.

    Raises:
        ConfigurationError: The file cannot be written, see `require_target`, or the states are too many for a
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
