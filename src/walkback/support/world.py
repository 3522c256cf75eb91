"""Several processes that do one job: what they agree on and exchange, besides gradients (`training.engines`)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from walkback.errors import WalkbackError
from walkback.support.processes import world_size

_LOOK: Final = 0.02  # seconds between looks for processes that start

_ARRIVAL: Final = 1800.0
"""Seconds to wait for processes to start, as long as torch waits for them."""


@dataclass(frozen=True, slots=True)
class World:
    """The place of this process among those that do one job; `World()` is a single process.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        shards: Whether processes divide weights, gradients and moments of the optimizer among them.
    """

    rank: int = 0
    size: int = 1
    shards: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints messages."""
        return self.rank == 0

    def mean(self, number: Tensor) -> Tensor:
        """Return the mean over processes of a scalar on the device, without synchronizing the device."""
        total = number.clone()
        dist.all_reduce(total)
        return total / self.size

    def gather(self, rows: Tensor) -> Tensor:
        """Concatenate the rows `(B, …)` of all processes in the order of ranks; all have the same number."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set on any process."""
        if self.size == 1:
            return flag
        value = torch.tensor(
            float(flag)
        )  # on the CPU: reading from the device would synchronize it at every walk
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def from_main(self, value: float) -> float:
        """Return the value of rank 0, exactly."""
        if self.size == 1:
            return value
        # In float64: processes compare the value with a limit, and all must reach the same decision.
        shared = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(shared, src=0)
        return shared.item()

    def text_from_main(self, text: str) -> str:
        """Return the text of rank 0."""
        return text if self.size == 1 else self._bytes_from(0, text.encode()).decode()

    def tensors_from(self, source: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of the process `source` on the CPU, whatever other processes pass."""
        if self.size == 1:
            return dict(tensors)
        own = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        content = safetensors.torch.save(own) if self.rank == source else b""
        found = self._bytes_from(source, content)
        return own if self.rank == source else safetensors.torch.load(found)

    def _bytes_from(self, source: int, content: bytes) -> bytes:
        size = torch.tensor(len(content))
        dist.broadcast(size, src=source)
        if not size:
            return b""
        shared = torch.empty(int(size), dtype=torch.uint8)
        if self.rank == source:
            shared.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        dist.broadcast(shared, src=source)
        return shared.numpy().tobytes()

    def copy_from_main(self, *modules: nn.Module) -> None:
        """Overwrite parameters and buffers with those of rank 0."""
        if self.size == 1:
            return
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor.detach(), src=0)

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.size > 1:
            dist.barrier()


def local_device(name: str) -> str:
    """Return the device name for this process: with several processes on CUDA, the device of its local rank."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{rank}"


@contextmanager
def joined_world(device: torch.device, shards: bool = False) -> Iterator[World]:
    """Join the processes that a launcher announced by RANK and WORLD_SIZE; without these, a single process.

    Args:
        device: Device of the walks of this process.
        shards: See `World`.
    """
    if world_size() == 1:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # the device of NCCL and of FSDP
    # NCCL reduces tensors on devices. gloo shares small decisions on the CPU without synchronizing the devices.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _naming_lost_process():
        store, rank, size = next(rendezvous("env://"))
        dist.init_process_group(backend, store=fresh_store(store, rank, size), rank=rank, world_size=size)
        try:
            yield World(rank, size, shards)
        finally:
            dist.destroy_process_group()


def fresh_store(store: Store, rank: int, size: int) -> Store:
    """Return a part of a store that processes of earlier attempts have not written to; called by all processes.

    An agent of torchrun that restarts its processes (`--max-restarts`) keeps its store, in which the new ones would
    find the addresses of the old ones (https://github.com/pytorch/pytorch/issues/167288). They cannot be told apart by
    the number of restarts, which agents on several machines count differently. So rank 0 chooses a new name, and hands
    it to each other rank under a key that no earlier process of this rank has used.

    Raises:
        WalkbackError: A process has not arrived within half an hour.
    """
    starts = store.add(f"starts/{rank}", 1)
    if rank:
        name = store.get(f"name/{rank}/{starts}").decode()
        store.set(f"taken/{name}/{rank}", "")
        return PrefixStore(name, store)
    name, waiting = uuid4().hex, set(range(1, size))
    deadline = time.monotonic() + _ARRIVAL
    while waiting:
        if time.monotonic() > deadline:
            raise WalkbackError(f"Waited for process {min(waiting) + 1} of {size}, which has not started.")
        for other in waiting:
            # Until it is taken, it may have been left to a process that ended before.
            store.set(f"name/{other}/{store.add(f'starts/{other}', 0)}", name)
        waiting = {other for other in waiting if not store.check([f"taken/{name}/{other}"])}
        time.sleep(_LOOK)
    return PrefixStore(name, store)


@contextmanager
def _naming_lost_process() -> Iterator[None]:
    """Turn the error of a connection to a process that has ended into a sentence."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise WalkbackError("Another process of this job has ended: its own message says why.") from error
        raise
