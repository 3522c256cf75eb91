"""A device that is not the CPU, on any machine: tensors that say they are on `cuda:0`, and what CUDA would refuse.

    with standin() as machine:
        x = torch.randn(3, device=DEVICE, generator=torch.Generator(DEVICE))
        x + torch.zeros(3)      # DeviceError: two devices
        x.sum().item()          # noted in machine.waits: the CPU waits for the device

All numbers are computed on the CPU, the very ones that a CPU run has, so that both can be compared bit for bit. What is
pretended is where a tensor is: every storage has a place, from the call that made it or from what it was computed of.
A function mode hears the calls from Python (`device=`, `.to`, `.device`), a dispatch mode every operation behind them,
those of the backward pass and of fused optimizers included.

Found: operations on two devices, a generator of one device for numbers on another, reading a tensor of the device as if
it were on the CPU, reading what a copy that does not wait has not brought yet, and everything that makes the CPU wait
(`machine.waits`), as `torch.cuda.set_sync_debug_mode` would: `.item()`, `bool(tensor)`, copies to the CPU, copies to
the device that wait or are of memory that is not pinned, and operations whose output's shape depends on values.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("cuda", 0)
CPU = torch.device("cpu")

WAITING = (
    *("_local_scalar_dense", "equal", "nonzero", "nonzero_numpy", "masked_select", "bincount", "multinomial"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive", "histc"),
    *("_linalg_check_errors", "linalg_eigvals", "linalg_eig", "_linalg_eigh", "linalg_lstsq", "_linalg_svd"),
)
"""Operations that read values of the device on the CPU, whatever they are given."""

COPIES = ("copy_", "_to_copy")
"""Operations that may have tensors of two places."""

PLACES: dict[int, torch.device] = {}
"""Where generators are, by the address of what is behind them."""

HERE = Path(__file__).name


class DeviceError(RuntimeError):
    """What CUDA would refuse, or give wrong numbers for."""


@dataclass(eq=False)
class Place:
    """Where a storage is.

    Attributes:
        device: CPU, or the stand-in.
        pinned: Whether it is pinned memory of the CPU.
    """

    device: torch.device
    pinned: bool = False


@final
class Machine:
    """Where every storage is, and what has been waited for.

    Attributes:
        waits: What made the CPU wait for the device, with the line that asked for it, oldest first.
        draws: State of the device's own generator: the seed, and how many times it has been drawn from since.
        most_drawn: The largest number of times.
        dtypes: Types that matrix products of the device were computed in.
    """

    def __init__(self) -> None:
        self.waits: list[str] = []
        self.draws: tuple[int, int] = (0, 0)
        self.most_drawn = 0
        self.dtypes: set[torch.dtype] = set()
        self.peak = 3 * 2**20
        self._places: dict[int, tuple[Place, StorageWeakRef]] = {}
        self._making = [CPU]

    def place(self, tensor: Tensor) -> Place:
        """Where a tensor is; one that was made before the stand-in was there is on the CPU."""
        found = self._places.get(tensor.untyped_storage()._cdata)
        return Place(CPU) if found is None else found[0]

    def put(self, tensor: Tensor, device: torch.device, *, pinned: bool = False) -> Tensor:
        """Note where a tensor is."""
        storage = tensor.untyped_storage()
        # The weak reference keeps the address from being used again while it is a key here.
        self._places[storage._cdata] = Place(device, pinned), StorageWeakRef(storage)
        return tensor

    def knows(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._places

    def on_device(self, tensor: Tensor) -> bool:
        return self.place(tensor).device.type == DEVICE.type

    def wait(self, what: str) -> None:
        self.waits.append(f"{what} ({_line()})")

    @property
    def making(self) -> torch.device:
        """Where a new tensor is made that depends on no other."""
        return self._making[-1]

    @contextlib.contextmanager
    def makes(self, device: torch.device) -> Iterator[None]:
        """New tensors are on `device` inside."""
        self._making.append(device)
        try:
            yield
        finally:
            self._making.pop()

    def moved(self, source: Tensor, result: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        """`result`, a conversion of `source`, as it is on `device`."""
        before = self.place(source)
        if before.device.type == device.type:
            return result
        if result.untyped_storage()._cdata == source.untyped_storage()._cdata:
            result = result.clone()
        if device.type == "cpu":
            if non_blocking:
                raise DeviceError("a copy to the CPU that is not waited for: whoever reads it is too early")
            self.wait("copy to the CPU")
        elif not (non_blocking and before.pinned):
            self.wait("copy to the device" if before.pinned else "copy of pageable memory to the device")
        return self.put(result, device)


def _line() -> str:
    """The innermost line that is neither torch's nor ours."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if "torch" not in path.parts and path.name not in (HERE, "contextlib.py"):
            return f"{path.name}:{frame.lineno} {frame.line}"
    return "?"


def _tensors(values: object) -> Iterator[Tensor]:
    """The tensors among values, however deep in lists, tuples and tables."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


# --- what Python asks for


def _device(argument: object) -> torch.device | None:
    """A device argument as CPU or stand-in; None where it is none."""
    if isinstance(argument, str | torch.device):
        named = torch.device(argument)
        return DEVICE if named.type == DEVICE.type else named
    return None


def _to(machine: Machine, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Tensor.to in all of its forms: (device, dtype, …), (dtype, …), (other, …)."""
    other = kwargs.pop("other", None)
    if args and isinstance(args[0], Tensor):
        other, args = args[0], args[1:]
    first = () if other is not None or (args and isinstance(args[0], torch.dtype)) else ("device",)
    rest = () if other is not None else ("dtype",)
    named = {**dict(zip((*first, *rest, "non_blocking", "copy"), args, strict=False)), **kwargs}
    device, non_blocking = _device(named.pop("device", None)), bool(named.pop("non_blocking", False))
    if other is not None:
        device, named["dtype"] = machine.place(other).device, other.dtype
    dtype = named.pop("dtype", None) or tensor.dtype
    with machine.makes(machine.place(tensor).device):
        result = tensor.to(dtype, **named)
    return machine.moved(tensor, result, device or machine.place(tensor).device, non_blocking)


def _pin_memory(machine: Machine, tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    if machine.on_device(tensor):
        raise DeviceError("pinned memory of the device: only memory of the CPU can be pinned")
    return machine.put(tensor.clone(), CPU, pinned=True)


def _read(name: str) -> Callable[..., Any]:
    def read(machine: Machine, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if machine.on_device(tensor):
            raise DeviceError(f"Tensor.{name} of a tensor that is on the device: copy it to the CPU first")
        return getattr(tensor, name)(*args, **kwargs)

    return read


def _tolist(machine: Machine, tensor: Tensor) -> Any:
    if machine.on_device(tensor):
        machine.wait("tolist")
    return tensor.tolist()


def _deepcopy(machine: Machine, tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    if id(tensor) not in memo:
        with machine.makes(machine.place(tensor).device):
            memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    return memo[id(tensor)]


SPECIAL: Mapping[Any, Callable[..., Any]] = {
    Tensor.device.__get__: lambda machine, tensor, *_: machine.place(tensor).device,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__: lambda machine, tensor, *_: machine.on_device(tensor),  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: lambda machine, tensor, *_: not machine.on_device(tensor),  # type: ignore[attr-defined]
    Tensor.get_device: lambda machine, tensor: 0 if machine.on_device(tensor) else -1,
    Tensor.is_pinned: lambda machine, tensor, *_: machine.place(tensor).pinned,
    Tensor.pin_memory: _pin_memory,
    Tensor.to: _to,
    Tensor.cpu: lambda machine, tensor, *_, **__: _to(machine, tensor, CPU),
    Tensor.cuda: lambda machine, tensor, *_, **__: _to(machine, tensor, DEVICE),
    Tensor.numpy: _read("numpy"),
    Tensor.__array__: _read("__array__"),
    Tensor.tolist: _tolist,
    Tensor.__deepcopy__: _deepcopy,
}


@final
class _Calls(TorchFunctionMode):
    """Hears what Python asks torch for."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        machine, kwargs = self._machine, dict(kwargs or {})
        if func in SPECIAL:
            return SPECIAL[func](machine, *args, **kwargs)
        wanted = _device(kwargs.pop("device", None))
        tensors = [*_tensors(args), *_tensors(kwargs)]
        there = any(machine.on_device(tensor) for tensor in tensors)
        if func in (torch.tensor, torch.as_tensor) and wanted == DEVICE and not there:
            machine.wait("copy of pageable memory to the device")
        if func is Tensor.new_tensor and there and wanted != CPU:
            machine.wait("copy of pageable memory to the device")
        with machine.makes(wanted or (DEVICE if there else CPU)):
            result = func(*args, **kwargs)
            for tensor in _tensors(result):
                if not machine.knows(tensor):
                    machine.put(tensor, machine.making)
        return result


# --- what is computed


@final
class _Operations(TorchDispatchMode):
    """Sees every operation."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            tensors = [*_tensors(args), *_tensors(kwargs)]
            device = self._checked(func, tensors, args, kwargs)
            result = func(*args, **kwargs)
            given = {tensor.untyped_storage()._cdata for tensor in tensors}
            for tensor in _tensors(result):
                if tensor.untyped_storage()._cdata not in given:
                    self._machine.put(tensor, device)
        return result

    def _checked(self, func: Any, tensors: list[Tensor], args: Any, kwargs: Any) -> torch.device:
        """Where the operation computes.

        Raises:
            DeviceError: It would not, on CUDA.
        """
        machine, name = self._machine, func.overloadpacket.__name__
        there = [tensor for tensor in tensors if machine.on_device(tensor)]
        device = DEVICE if there else CPU if tensors else machine.making
        if name in ("new_zeros", "new_full", "new_empty", "new_ones") or name.endswith("_like"):
            device = machine.making if tensors else device
        if name in COPIES:
            _copied(machine, name, tensors, kwargs, args)
        elif there and len(there) < len(tensors):
            _require_one_place(machine, func, name, tensors, args)
        if torch.Tag.nondeterministic_seeded in func.tags:
            _require_own_generator(machine, name, device, kwargs.get("generator"))
        if there and _waits(func, name, args):
            machine.wait(name)
        if there and name in ("mm", "addmm", "bmm", "convolution"):
            machine.dtypes.add(there[0].dtype)
        return device


def _copied(machine: Machine, name: str, tensors: list[Tensor], kwargs: Any, args: Any) -> None:
    if name != "copy_" or len(tensors) < 2:
        return
    target, source = machine.place(tensors[0]), machine.place(tensors[1])
    if target.device.type == source.device.type:
        return
    waits_not = bool(kwargs.get("non_blocking", False) or (len(args) > 2 and args[2]))
    if target.device.type == "cpu":
        machine.wait("copy to the CPU")
    elif not (waits_not and source.pinned):
        machine.wait("copy of pageable memory to the device")


def _require_one_place(machine: Machine, func: Any, name: str, tensors: list[Tensor], args: Any) -> None:
    """Numbers `()` of the CPU may stand among tensors of the device where an operation goes entry by entry."""
    strangers = [tensor for tensor in tensors if not machine.on_device(tensor)]
    if all(tensor.dim() == 0 for tensor in strangers) and torch.Tag.pointwise in func.tags:
        return
    if name in ("index", "index_put_", "_index_put_impl_") and machine.on_device(args[0]):
        machine.wait(f"{name} by numbers that are on the CPU")
        return
    shapes = ", ".join(f"{tuple(t.shape)} on {machine.place(t).device}" for t in tensors)
    raise DeviceError(f"tensors of two devices in {func}: {shapes} ({_line()})")


def _require_own_generator(machine: Machine, name: str, device: torch.device, own: object) -> None:
    if own is None:
        if device == DEVICE:
            machine.draws = (machine.draws[0], machine.draws[1] + 1)
            machine.most_drawn = max(machine.most_drawn, machine.draws[1])
        return
    where = PLACES.get(own._cdata, CPU)  # type: ignore[attr-defined]  # operations get the generator in another coat
    if where.type != device.type:
        raise DeviceError(f"a generator on {where} for {name} on {device} ({_line()})")


def _waits(func: Any, name: str, args: Any) -> bool:
    if name in ("index", "index_put_", "index_put", "_index_put_impl_"):
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    if name == "repeat_interleave":
        return func._overloadname == "Tensor"
    if name == "normal":
        return func._overloadname.startswith("Tensor")  # it checks that the deviations are not negative
    return name in WAITING


# --- what else torch has of a device


class _Generator(torch.Generator):
    """A generator of the CPU that says where it is."""

    _where: torch.device

    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        self = super().__new__(cls)
        self._where = PLACES[self._cdata] = _device(device) or CPU
        return self

    def __del__(self) -> None:
        PLACES.pop(self._cdata, None)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._where


def _patch_cuda(machine: Machine, patch: pytest.MonkeyPatch) -> None:
    """torch.cuda as it is where there is one device."""

    def seed(number: int) -> None:
        machine.draws = (int(number), 0)

    def restore(state: Tensor, device: object = None) -> None:
        machine.draws = (int(state[0]), int(state[1]))

    replacements: Mapping[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_bf16_supported": lambda *_, **__: True,
        "get_device_name": lambda *_: "stand-in",
        "device": lambda *_: contextlib.nullcontext(),
        "synchronize": lambda *_: machine.wait("synchronize"),
        "manual_seed": seed,
        "manual_seed_all": seed,
        "get_rng_state": lambda *_: torch.tensor(machine.draws),
        "set_rng_state": restore,
        "memory_allocated": lambda *_: 2**20,
        "max_memory_allocated": lambda *_: machine.peak,
        "reset_peak_memory_stats": lambda *_: None,
        "empty_cache": lambda: None,
    }
    for name, function in replacements.items():
        patch.setattr(torch.cuda, name, function)
    cast = torch.autocast

    def autocast(device_type: str, *args: Any, enabled: bool = True, **kwargs: Any) -> Any:
        """Of the device: what the CPU does; of the CPU: nothing, as no network is there."""
        return cast("cpu", *args, enabled=enabled and device_type == DEVICE.type, **kwargs)

    group = torch._C._group_tensors_by_device_and_dtype

    def grouped(lists: Any, indices: bool) -> Any:
        """By the devices that tensors say they are on; ours are all on one."""
        with torch._C.DisableTorchFunction():
            found = group(lists, indices)
        return {
            (machine.place(columns[0][0]).device, dtype): (columns, numbers)
            for (_, dtype), (columns, numbers) in found.items()
        }

    patch.setattr(torch._C, "_group_tensors_by_device_and_dtype", grouped)
    patch.setattr(torch, "autocast", autocast)
    patch.setattr(torch, "Generator", _Generator)


@contextlib.contextmanager
def standin() -> Iterator[Machine]:
    """The stand-in is there inside the block; see the module."""
    machine = Machine()
    with pytest.MonkeyPatch.context() as patch:
        _patch_cuda(machine, patch)
        with _Calls(machine), _Operations(machine):
            yield machine
