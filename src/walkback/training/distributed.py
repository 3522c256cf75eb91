"""Several processes training one operator, with plain `torch.distributed`.

    gradient = mean over processes of their gradients, reduced in one flat buffer before every update

Gradients are averaged explicitly after the backward pass, not by a wrapper around the operator: a walk calls the
operator in many ways, and a wrapper whose forward is bypassed would silently leave gradients unsynchronized.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from walkback.state import State, map_state
from walkback.support.processes import world_size


@dataclass(frozen=True, slots=True)
class World:
    """The place of this process among those that train together; `World()` is a single process."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints messages."""
        return self.rank == 0

    def average_gradients(
        self, parameters: Sequence[nn.Parameter], number: Tensor | None = None
    ) -> Tensor | None:
        """Replace each gradient by its mean over processes (a missing gradient counts as zero).

        Args:
            parameters: Parameters of this process.
            number: A scalar to average in the same message.

        Returns:
            The mean of `number`, a scalar; None if there is a single process.
        """
        if self.size == 1:
            return None
        # A process may lack a gradient that others have, but all must reduce buffers of the same size.
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        if number is not None:
            flat = torch.cat([flat, number.to(flat).reshape(1)])
        dist.all_reduce(flat)
        flat /= self.size
        mean = None
        if number is not None:
            flat, mean = flat[:-1], flat[-1]
        pieces = torch.split(flat, [p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.reshape(parameter.shape)
        return mean

    def gather(self, state: State) -> State:
        """Concatenate the states of all processes along the batch, in the order of ranks."""
        return state if self.size == 1 else map_state(self._gather, state)

    def _gather(self, leaf: Tensor) -> Tensor:
        parts = [torch.empty_like(leaf) for _ in range(self.size)]
        dist.all_gather(parts, leaf.contiguous())
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
        if self.size == 1:
            return text
        content = text.encode()
        size = round(self.from_main(len(content)))
        shared = torch.zeros(size, dtype=torch.uint8)
        if self.is_main:
            shared.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        dist.broadcast(shared, src=0)
        return bytes(shared.tolist()).decode()

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
def joined_world(device: torch.device) -> Iterator[World]:
    """Join the processes that a launcher announced by RANK and WORLD_SIZE; without these, a single process."""
    if world_size() == 1:
        yield World()
        return
    # NCCL reduces tensors on devices. gloo shares small decisions on the CPU without synchronizing the devices.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
