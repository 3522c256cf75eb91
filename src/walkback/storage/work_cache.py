"""Work cache: finished pieces of a long measurement, so that it can be resumed after an interruption.

    directory/protocol.json          description of the measurement; other measurements reject the directory
    directory/<entry>.safetensors    finished pieces, each written atomically

Without a directory nothing is cached. Several processes divide the pieces among them; the first one has the directory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, final

from torch import Tensor

from walkback.errors import CheckpointError, ConfigurationError
from walkback.storage.files import remove_abandoned, write_json, writing_to
from walkback.storage.migrations import WORK_CACHE
from walkback.storage.tensorfile import read_tensors, save_tensors
from walkback.support.textfile import read_text
from walkback.support.world import World

_PROTOCOL = "protocol.json"


@final
class WorkCache:
    """Finished pieces of a measurement, by name.

    Args:
        directory: Created if it does not exist; None caches nothing.
        protocol: Description of the measurement, in plain JSON types.

    Raises:
        ConfigurationError: The directory holds something else, or pieces of another measurement.
        WalkbackError: The directory cannot be written.
    """

    def __init__(self, directory: Path | None = None, protocol: Mapping[str, Any] | None = None) -> None:
        self._directory = directory
        self._world = World()
        if directory is None:
            return
        file = directory / _PROTOCOL
        with writing_to(directory):
            directory.mkdir(parents=True, exist_ok=True)
            remove_abandoned(directory)
        wanted = json.loads(json.dumps(dict(protocol or {})))
        if file.exists():
            if _protocol_in(file) != wanted:
                raise ConfigurationError(
                    f"Got {directory}, which holds pieces of another measurement, expected an empty directory "
                    "or one of the same checkpoint, data and options: choose another."
                )
            return
        if any(directory.iterdir()):
            raise ConfigurationError(
                f"Got {directory}, which holds other files, expected an empty directory: choose another."
            )
        write_json(file, WORK_CACHE.stamp() | {"protocol": wanted})

    def divided(self, world: World) -> WorkCache:
        """Return the same cache for processes that call its methods together."""
        found = copy(self)
        found._world = world
        return found

    def pieces(
        self, names: Sequence[str], compute: Callable[[int], Mapping[str, Tensor]]
    ) -> Iterator[dict[str, Tensor]]:
        """Yield pieces on the CPU, in order: finished ones, others from `compute(number)`, which are stored.

        Each piece is computed by one process, and yielded in all of them.
        """
        world = self._world
        for first in range(0, len(names), world.size):
            group = range(first, min(first + world.size, len(names)))
            found = {number: piece for number in group if (piece := self._kept(names[number])) is not None}
            missing = json.loads(world.text_from_main(json.dumps([n for n in group if n not in found])))
            owners = {number: owner for owner, number in enumerate(missing)}
            mine = {number: compute(number) for number in missing if owners[number] == world.rank}
            for number in group:
                owner = owners.get(number, 0)
                piece = world.tensors_from(owner, mine.get(number) or found.get(number) or {})
                if number in owners:
                    self.write(names[number], piece)
                yield piece

    def read(self, entry: str) -> dict[str, Tensor] | None:
        """Return a finished piece on the CPU, or None if it is missing or cannot be read."""
        return self._world.tensors_from(0, self._kept(entry) or {}) or None

    def _kept(self, entry: str) -> dict[str, Tensor] | None:
        if self._directory is None or not self._file(entry).exists():
            return None
        try:
            return read_tensors(self._file(entry))[0]
        except CheckpointError:
            return None

    def write(self, entry: str, tensors: Mapping[str, Tensor]) -> None:
        """Store a piece, replacing any of the same name; raises WalkbackError if it cannot be written."""
        if self._directory is not None:
            save_tensors(self._file(entry), tensors, {"entry": entry})

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Add a note to a signal that ends the block, which says where the finished pieces are."""
        try:
            yield
        except KeyboardInterrupt as stopped:
            if self._directory is not None:
                stopped.add_note(
                    f"finished pieces are kept in {self._directory}, and the same command goes on from them"
                )
            raise

    def _file(self, entry: str) -> Path:
        if self._directory is None:
            raise ValueError("Got a cache without a directory.")
        return self._directory / f"{entry}.safetensors"


def _protocol_in(file: Path) -> object:
    """Return the protocol in a file; None if it cannot be read."""
    try:
        document = json.loads(read_text(file))
    except (ConfigurationError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    return WORK_CACHE.migrated(document, file, ConfigurationError).get("protocol")
