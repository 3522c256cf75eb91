"""How processes that train together average their gradients, with PyTorch's engines.

    alone        one process
    replicated   each process has all weights; DistributedDataParallel averages gradients in buckets, during backward
    sharded      each process has a part of weights, gradients and moments; FSDP2 gathers weights while they are used

An engine is a module whose forward calls a function that returns losses, and not a wrapper around the operator: a walk
calls the operator in many ways, with and without gradients, and a forward that bypasses the wrapper would silently
leave gradients unsynchronized. Engines hook into parameters, so it does not matter what the function calls, as long as
the losses are made in it. A parameter without a gradient in the last step of a walk is averaged like any other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, cast, final

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from walkback.errors import ConfigurationError
from walkback.support.batch_statistics import BatchStatistics
from walkback.support.world import World

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

_Losses = TypeVar("_Losses")


class Engine(ABC):
    """Abstract average of gradients over processes."""

    @abstractmethod
    def __call__(self, function: Callable[..., _Losses], *arguments: Any) -> _Losses:
        """Return `function(*arguments)`, in which all tensors are made whose backward pass follows.

        Args:
            function: Returns a tensor that requires gradients, or a tuple with one.
            arguments: Its arguments.
        """

    @abstractmethod
    def averaging(self, wanted: bool) -> AbstractContextManager[None]:
        """Average gradients over processes in the block if `wanted`, else add them to those of this process.

        Both the call of the engine and the backward pass belong into the block.
        """


@final
class Alone(Engine):
    """The engine of a single process."""

    def __call__(self, function: Callable[..., _Losses], *arguments: Any) -> _Losses:
        """See `Engine.__call__`."""
        return function(*arguments)

    def averaging(self, wanted: bool) -> AbstractContextManager[None]:
        """See `Engine.averaging`."""
        return nullcontext()


@final
class Replicated(Engine):
    """DistributedDataParallel.

    Args:
        parameters: The trained parameters, equal in all processes.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._module = DistributedDataParallel(
            _Call(nn.ParameterList(parameters)), find_unused_parameters=True, gradient_as_bucket_view=True
        )

    def __call__(self, function: Callable[..., _Losses], *arguments: Any) -> _Losses:
        """See `Engine.__call__`."""
        losses: _Losses = self._module(function, *arguments)
        return losses

    def averaging(self, wanted: bool) -> AbstractContextManager[None]:
        """See `Engine.averaging`."""
        return nullcontext() if wanted else self._module.no_sync()


@final
class Sharded(Engine):
    """Fully sharded data parallelism (`torch.distributed.fsdp.fully_shard`).

    The entries of each `nn.ModuleList` are gathered when they run, and all other weights of the operator for a walk.

    Args:
        operator: The operator; its parameters become DTensors, except within calls of the engine.
        device: Device of the walks.
    """

    def __init__(self, operator: nn.Module, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh  # with FSDP, half a second
        from torch.distributed.fsdp import fully_shard

        self._root = _Call(operator)
        self._weights = cast("FSDPModule", self._root)  # as `fully_shard` makes it
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for block in dict.fromkeys(_blocks(operator)):
            fully_shard(block, mesh=mesh)
        # The output of an operator is not a tensor, so FSDP could not gather these weights again before backward.
        fully_shard(self._root, mesh=mesh, reshard_after_forward=False)
        if device.type == "cpu":
            self._weights.set_force_sum_reduction_for_comms(True)  # gloo has no reduction to a mean

    def __call__(self, function: Callable[..., _Losses], *arguments: Any) -> _Losses:
        """See `Engine.__call__`."""
        losses: _Losses = self._root(function, *arguments)
        return losses

    @contextmanager
    def averaging(self, wanted: bool) -> Iterator[None]:
        """See `Engine.averaging`."""
        self._weights.set_requires_gradient_sync(wanted)
        self._weights.set_reshard_after_backward(wanted, recurse=False)
        yield


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the entries of the outermost module lists in `module`."""
    for child in module.children():
        if isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _blocks(child)


@final
class _Call(nn.Module):
    """A module whose forward calls the given function, so that an engine around it sees its losses."""

    def __init__(self, trained: nn.Module) -> None:
        super().__init__()
        self.trained = trained

    def forward(self, function: Callable[..., _Losses], *arguments: Any) -> _Losses:
        return function(*arguments)


def engine_for(
    world: World, operator: nn.Module, others: Sequence[nn.Module], device: torch.device
) -> Engine:
    """Return the engine that averages gradients over the processes of `world`.

    Args:
        world: The place of this process among others, and whether they divide the weights.
        operator: The operator.
        others: Further modules that are trained.
        device: Device of the walks.
    """
    if world.size == 1:
        return Alone()
    if world.shards:
        return Sharded(operator, device)
    return Replicated([p for module in (operator, *others) for p in module.parameters() if p.requires_grad])


def synchronize_norms(operator: nn.Module) -> None:
    """Let batch norms take their statistics in training over the rows of all processes."""
    for module in operator.modules():
        if isinstance(module, BatchStatistics):
            module.synchronize()
    nn.SyncBatchNorm.convert_sync_batchnorm(operator)  # type: ignore[no-untyped-call]


def require_synchronizable(operator: nn.Module, device: torch.device) -> None:
    """Check that the operator has batch norms, and that they can be synchronized on the device.

    Raises:
        ConfigurationError: It has none, or has one of torch's on a CPU.
    """
    kinds = (BatchStatistics, _BatchNorm)
    norms = {name: module for name, module in operator.named_modules() if isinstance(module, kinds)}
    if not norms:
        raise ConfigurationError(
            "Got run.sync_batch_norm = true and an operator without batch norm, expected one: set it to false."
        )
    for name, module in norms.items():
        if isinstance(module, _BatchNorm) and device.type != "cuda":
            raise ConfigurationError(
                f"Got run.sync_batch_norm = true and {name}, a {type(module).__name__}, which torch synchronizes on "
                f"CUDA devices only, on {device}: set it to false, or give each level its own norms."
            )


def require_shardable(operator: nn.Module, others: Sequence[nn.Module]) -> None:
    """Check that weights can be divided among processes.

    Raises:
        ConfigurationError: The operator has a parameter without dimensions, or other modules are trained too.
    """
    scalars = [name for name, weight in operator.named_parameters() if weight.dim() == 0]
    if scalars:
        raise ConfigurationError(
            f"Got run.shard = true and an operator with the scalar parameter {scalars[0]}, expected dimensions to "
            "divide: set run.shard = false."
        )
    if any(weight.requires_grad for module in others for weight in module.parameters()):
        raise ConfigurationError(
            "Got run.shard = true and weights of the prior, the process or the schedule that are trained, expected "
            "those of the operator alone: set run.shard = false."
        )
