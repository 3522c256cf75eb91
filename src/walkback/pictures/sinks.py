"""The formats of recorded chains; `walkback.pictures.frames.open_sink` chooses one.

Streamed formats write each frame as it arrives, so 100,000 frames need no more memory than one.
"""

from __future__ import annotations

import contextlib
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, final

import numpy as np
import torch
from torch import Tensor

from walkback.data import DataInfo
from walkback.errors import WalkbackError
from walkback.pictures.archives import add_array, member
from walkback.pictures.gif import GIF_TRAILER, gif_comment, gif_frame, gif_header
from walkback.pictures.images import (
    Picture,
    Window,
    encode_png,
    grid,
    protocol_text,
    scatter,
    window_of,
)
from walkback.pictures.planes import Plane
from walkback.pictures.states import draw_frames, draw_states
from walkback.sampling.finite import require_finite
from walkback.storage.files import writing_to
from walkback.storage.migrations import SAMPLES
from walkback.storage.tensorheader import TensorSpec, encode_header


@dataclass(frozen=True, slots=True)
class Output:
    """The destination of a sink, and a description of what it writes.

    Attributes:
        path: Name of the file, for messages.
        file: Stream to write to.
        info: Description of the states.
        shape: `(F, N, *E)`: frames, chains, event shape.
        cleanup: Callbacks to run when the file is complete or writing fails.
        protocol: How the states were made, as plain JSON types; None writes none.
    """

    path: Path
    file: BinaryIO
    info: DataInfo
    shape: tuple[int, ...]
    cleanup: ExitStack
    protocol: Mapping[str, Any] | None = None


class FrameSink(ABC):
    """Writes F frames of N chains, in order.

    Each format is a final subclass: `_write` writes one frame `(N, *E)`, see `as_values`; `_end` completes the file.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._steps: list[int] = []

    @final
    def add(self, step: int, state: Tensor) -> None:
        """Add the next frame: the states `(N, *E)`, in the units of the data, after `step` steps.

        Raises:
            WalkbackError: The frame has another shape, exceeds the announced number, is not finite, or cannot be
                written.
        """
        if tuple(state.shape) != self._output.shape[1:] or len(self._steps) == self._output.shape[0]:
            raise WalkbackError(
                f"Got frame {len(self._steps) + 1} of shape {tuple(state.shape)}, "
                f"expected {self._output.shape[0]} frames of shape {self._output.shape[1:]}."
            )
        require_finite(state, f"{self._output.path} after step {step}")
        with writing_to(self._output.path):
            self._write(as_values(state))
        self._steps.append(step)

    @final
    def end(self) -> None:
        """Complete the file after the last frame.

        Raises:
            WalkbackError: Fewer frames than announced were added, or the file cannot be written.
        """
        if len(self._steps) != self._output.shape[0]:
            raise WalkbackError(f"Got {len(self._steps)} frames, expected {self._output.shape[0]}.")
        with writing_to(self._output.path):
            self._end()

    @abstractmethod
    def _write(self, frame: Tensor) -> None: ...

    @abstractmethod
    def _end(self) -> None: ...


@final
class FilmstripSink(FrameSink):
    """A `.png`: for images, one row per chain; otherwise, one scatter plot per frame; for a single frame, its states.

    The protocol is stored in the text chunk `walkback`.
    """

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._frames: list[Tensor] = []

    def _write(self, frame: Tensor) -> None:
        self._frames.append(frame.clone())  # the chain may reuse the memory of its state

    def _end(self) -> None:
        picture = self._picture(torch.stack(self._frames))
        self._output.file.write(encode_png(picture, self._output.protocol))

    def _picture(self, frames: Tensor) -> Picture:
        if len(frames) == 1:
            return draw_states(frames[0], self._output.info)
        return draw_frames(frames, self._output.info, self._steps)


@final
class FilmSink(FrameSink):
    """A `.gif`: each frame is encoded on arrival, with its own colors; the protocol is stored in the comment."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._view: tuple[Plane, Window] | None = None

    def _write(self, frame: Tensor) -> None:
        picture = grid(frame) if self._output.info.is_image else self._points(frame)
        if not self._steps:
            self._output.file.write(gif_header(picture))
            if self._output.protocol is not None:
                self._output.file.write(gif_comment(protocol_text(self._output.protocol)))
        self._output.file.write(gif_frame(picture))

    def _points(self, frame: Tensor) -> Picture:
        """Return points in the plane, and the window of the first frame."""
        if self._view is None:
            plane = Plane.of(frame, self._output.info)
            self._view = plane, window_of(plane.points(frame))
        plane, window = self._view
        return scatter(plane.points(frame), window=window, title=plane.label)

    def _end(self) -> None:
        self._output.file.write(GIF_TRAILER)


@final
class NpzSink(FrameSink):
    """A `.npz` that `numpy.load(path)` reads without pickle; the protocol is stored as the JSON text `protocol`."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._archive = zipfile.ZipFile(output.file, "w")
        output.cleanup.callback(_close_quietly, self._archive)
        # The shape of the array is known, but its values are streamed, so the header is written by hand. The member is
        # zip64 from the start: a zip file cannot switch to it later if the member turns out to be large.
        self._states = self._archive.open(member("states"), "w", force_zip64=True)
        output.cleanup.callback(_close_quietly, self._states)
        header = {"descr": _dtype(output.info), "fortran_order": False, "shape": output.shape}
        np.lib.format.write_array_header_1_0(self._states, header)

    def _write(self, frame: Tensor) -> None:
        self._states.write(_bytes_of(frame, self._output.info))

    def _end(self) -> None:
        self._states.close()
        add_array(self._archive, "steps", np.array(self._steps, np.int64))
        if self._output.info.columns:
            add_array(self._archive, "columns", np.array(self._output.info.columns))
        if self._output.protocol is not None:
            add_array(self._archive, "protocol", np.array(protocol_text(self._output.protocol)))
        self._archive.close()


@final
class SafetensorsSink(FrameSink):
    """A `.safetensors`: steps precede the states and are filled in at the end; the protocol is in the metadata."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        steps = TensorSpec("I64", output.shape[:1])
        metadata = {**SAMPLES.stamp(), "data": output.info.to_dict()}
        if output.protocol is not None:
            metadata["protocol"] = dict(output.protocol)
        # Readers map tensors at the offsets of the header, so it must hold the final number of frames; `end` checks it.
        header = encode_header(
            {"steps": steps, "states": TensorSpec(_TENSOR_TYPES[_dtype(output.info)], output.shape)}, metadata
        )
        output.file.write(header + bytes(steps.num_bytes))
        self._steps_at = len(header)

    def _write(self, frame: Tensor) -> None:
        self._output.file.write(_bytes_of(frame, self._output.info))

    def _end(self) -> None:
        self._output.file.seek(self._steps_at)
        self._output.file.write(np.array(self._steps, "<i8").data)


def as_values(state: Tensor) -> Tensor:
    """Return values on the CPU: in float64 if they are float64, like those of standardized states, else in float32."""
    return state.detach().to("cpu", torch.float64 if state.dtype is torch.float64 else torch.float32)


_TENSOR_TYPES = {"<f4": "F32", "<f8": "F64"}


def _dtype(info: DataInfo) -> str:
    """Return the NumPy type of values in files; standardized values may vary little around a large mean: float64."""
    return "<f4" if info.standardized is None else "<f8"


def _bytes_of(frame: Tensor, info: DataInfo) -> memoryview:
    return frame.contiguous().numpy().astype(_dtype(info), copy=False).data


def _close_quietly(part: IO[bytes] | zipfile.ZipFile) -> None:
    """Close an archive or a member now: its finalizer would run later, on a file that is already closed."""
    with contextlib.suppress(OSError, ValueError):
        part.close()
