"""Samples as numbers for other programs: named columns in the units of the data, without the protocol.

.npy        (N, *E); (F, N, *E) if there are several frames
.csv        one row per sample; if there are several frames, the columns `chain` and `step` come first
.parquet    the same columns

Categories are written by name; symbols without a category are missing.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from walkback.pictures.sinks import FrameSink, Output


class _InMemory(FrameSink):
    """Collects all frames in memory."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._frames: list[Tensor] = []

    def _write(self, frame: Tensor) -> None:
        self._frames.append(frame.clone())  # the chain may reuse the memory of its state

    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return all values by column, each `(F N,)`, with chain and step if there are several frames."""
        frames, info = torch.stack(self._frames), self._output.info
        num_frames, num = frames.shape[:2]
        found: dict[str, npt.NDArray[Any]] = {}
        if num_frames > 1:
            found = {
                "chain": np.tile(np.arange(num), num_frames),
                "step": np.repeat(np.array(self._steps), num),
            }
        if info.categories is not None:
            return found | info.categories.columns_of(frames.flatten(0, 1).numpy())
        rows = frames.reshape(num_frames * num, -1).numpy()
        names = info.columns or tuple(
            "_".join(("x", *map(str, index))) if len(index) > 1 else f"x{index[0]}"
            for index in np.ndindex(*info.shape)
        )
        fitted = info.standardized
        whole = () if fitted is None else fitted.whole * (len(names) // len(fitted.whole))
        for index, name in enumerate(names):
            column = rows[:, index]
            exact = bool(whole) and whole[index] and bool((np.abs(column) < 2**63).all())
            found[name] = column.astype(np.int64) if exact else column
        return found


@final
class NpySink(_InMemory):
    """A `.npy` that `numpy.load(path)` reads without pickle."""

    def _end(self) -> None:
        frames = torch.stack(self._frames)
        np.save(self._output.file, (frames[0] if len(frames) == 1 else frames).numpy(), allow_pickle=False)


@final
class CsvSink(_InMemory):
    """A `.csv` with a header; numbers are written with all digits."""

    def _end(self) -> None:
        import pandas as pd

        text = pd.DataFrame(self._columns()).to_csv(index=False, lineterminator="\n")
        self._output.file.write(text.encode())


@final
class ParquetSink(_InMemory):
    """A `.parquet` with the same columns as a `.csv`."""

    def _end(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = BytesIO()
        pq.write_table(pa.table(self._columns()), buffer)
        self._output.file.write(buffer.getvalue())
