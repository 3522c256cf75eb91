"""Tools of checks: states to try, guards of randomness, comparisons of states, round trips through files."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.state import Space, State, StateSpace, leaves, map_state, spaces
from walkback.storage.tensorfile import read_tensors, save_tensors
from walkback.support.seeding import generator
from walkback.testing.cases import SPACES, SYMBOLS, Case, ConformanceError

_Answer = TypeVar("_Answer")

_TOLERANCE = 1e-3


def describe(space: StateSpace) -> str:
    """Return a space as text for messages.

    >>> from walkback.state import Space
    >>> describe((Space((2,)), Space((3,), "binary")))
    'real (2,) × binary (3,)'
    """
    return " × ".join(f"{leaf.support} {leaf.shape}" for leaf in spaces(space))


def data_like(space: StateSpace, num: int, stream: str = "data") -> State:
    """Return synthetic states `(num, *E)`: normal around ½, bits of probability 0.4, or equally likely symbols."""
    noise = generator("cpu", 0, stream)
    found = []
    for leaf in spaces(space):
        if leaf.support == "binary":
            found.append((torch.rand(num, *leaf.shape, generator=noise) < 0.4).float())
        elif leaf.support == "one-hot":
            found.append(symbols_like(leaf, torch.rand(num, *leaf.shape, generator=noise)))
        else:
            found.append(0.5 + 0.25 * torch.randn(num, *leaf.shape, generator=noise))
    return tuple(found) if isinstance(space, tuple) else found[0]


def symbols_like(space: Space, weights: Tensor) -> Tensor:
    """Return one-hot states `(B, *E)`: at each position, the symbol with the largest of the weights `(B, *E)`."""
    return torch.nn.functional.one_hot(weights.argmax(-1), space.shape[-1]).float()


def accepted(
    case: Case, build: Callable[[StateSpace], _Answer], choices: Sequence[StateSpace] | None = None
) -> Iterator[tuple[StateSpace, _Answer]]:
    """Yield each space that the component accepts, with what `build` returns there.

    Raises:
        ConformanceError: The component refuses every space.
    """
    refusal: ConfigurationError | None = None
    works = False
    usual = case.spaces if choices is None else choices
    for space in (*usual, *(SYMBOLS if case.spaces == SPACES else ())):
        if works and space in SYMBOLS:
            return
        try:
            part = build(space)
        except ConfigurationError as error:
            refusal = error
            continue
        works = True
        yield space, part
    if not works:
        raise ConformanceError(
            f"Got no space that {case.label!r} accepts (last refusal: {refusal}), expected one: name one with "
            "Case.of(…, spaces=[…]), or pass other options."
        ) from refusal


def require_state(found: object, space: StateSpace, num: int, what: str) -> None:
    """Raise ConformanceError unless `found` is a finite float32 state `(num, *E)` of the space."""
    parts = leaves(found) if isinstance(found, tuple | Tensor) else ()
    if isinstance(space, tuple) != isinstance(found, tuple) or len(parts) != len(spaces(space)):
        raise ConformanceError(
            f"Got {_kind(found)} as {what}, expected a state of {len(spaces(space))} part(s): {describe(space)}."
        )
    for leaf, own in zip(parts, spaces(space), strict=True):
        if tuple(leaf.shape) != (num, *own.shape):
            raise ConformanceError(
                f"Got the shape {tuple(leaf.shape)} of {what}, expected {(num, *own.shape)}: (B, *E)."
            )
        if leaf.dtype != torch.float32:
            raise ConformanceError(
                f"Got {leaf.dtype} as the dtype of {what}, expected torch.float32, that of its state: create "
                "tensors with the dtype and device of the state."
            )
        if not bool(leaf.isfinite().all()):
            raise ConformanceError(f"Got {what} with nan or infinity, expected finite numbers.")
        if own.support == "binary" and not bool(((leaf == 0) | (leaf == 1)).all()):
            raise ConformanceError(f"Got {what} with values other than 0 and 1, expected bits.")
        if own.support == "one-hot" and not _is_one_hot(leaf):
            raise ConformanceError(
                f"Got {what} that is not one-hot along the last dimension, expected a single 1 and zeros."
            )


def _is_one_hot(leaf: Tensor) -> bool:
    return bool(((leaf == 0) | (leaf == 1)).all() and (leaf.sum(-1) == 1).all())


def require_rows(found: object, num: int, what: str) -> Tensor:
    """Return `found`; raises ConformanceError unless it is a float32 tensor of one finite number per row."""
    if not isinstance(found, Tensor) or tuple(found.shape) != (num,):
        shape = tuple(found.shape) if isinstance(found, Tensor) else _kind(found)
        raise ConformanceError(
            f"Got the shape {shape} of {what}, expected ({num},): one number per row, summed over the event "
            "dimensions and not over the batch."
        )
    if found.dtype != torch.float32:
        raise ConformanceError(
            f"Got {found.dtype} as the dtype of {what}, expected torch.float32: keep the dtype of the state."
        )
    if not bool(found.isfinite().all()):
        raise ConformanceError(f"Got {what} with nan or infinity, expected finite numbers.")
    return found


def same(first: Any, second: Any) -> bool:
    """Return whether two states, or tensors, are equal bit for bit."""
    pairs = zip(leaves(first), leaves(second), strict=False)
    return len(leaves(first)) == len(leaves(second)) and all(torch.equal(a, b) for a, b in pairs)


def flat(state: State) -> Tensor:
    """Return all numbers of a state in one dimension."""
    return torch.cat([leaf.flatten() for leaf in leaves(state)])


def require_close(found: Tensor, wanted: Tensor, message: str) -> None:
    """Raise ConformanceError with `message` if values differ by more than rounding."""
    gap = (found.double() - wanted.double()).abs()
    if tuple(found.shape) != tuple(wanted.shape) or bool(
        (gap > _TOLERANCE * (1 + wanted.double().abs())).any()
    ):
        raise ConformanceError(f"Got {_listed(found)}, expected {_listed(wanted)}: {message}.")


@contextmanager
def untouched(state: State, what: str) -> Iterator[None]:
    """Raise ConformanceError if the body changes `state`."""
    before = map_state(torch.clone, state)
    yield
    if not same(before, state):
        raise ConformanceError(
            f"Got a state that {what} changed in place, expected it untouched: work on a new tensor (x + y "
            "instead of x += y)."
        )


def drawn_from(draw: Callable[[torch.Generator], Any], what: str) -> Any:
    """Return what `draw` returns for a generator, after checking that the result depends on the generator alone.

    Raises:
        ConformanceError: It reads or changes global randomness, or equal generators give different results.
    """
    results = []
    with _own_globals():
        for seed in (1, 2):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002 - to detect code that reads it
            random.seed(seed)
            before = _globals()
            results.append(draw(torch.Generator().manual_seed(5)))
            if _globals() != before:
                raise ConformanceError(
                    f"Got {what} that draws from global randomness, expected the generator to be the only source: "
                    "pass generator=generator to every draw."
                )
    if not same(results[0], results[1]):
        raise ConformanceError(
            f"Got two different results of {what} from equal generators, expected the same: draw from the "
            "generator that is passed in, and from nothing else."
        )
    return results[0]


def _globals() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), name, np.asarray(keys).tobytes(), rest, random.getstate()


@contextmanager
def _own_globals() -> Iterator[None]:
    """Restore global randomness at the end of the body."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def through_file(module: nn.Module, new: nn.Module) -> None:
    """Write the parameters and buffers of a module to a safetensors file and load them into a new module.

    Raises:
        ConformanceError: They do not fit the new module.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.safetensors"
        save_tensors(file, module.state_dict(), {})
        tensors, _ = read_tensors(file)
    try:
        new.load_state_dict(tensors)
    except RuntimeError as error:
        raise ConformanceError(
            f"Got a state_dict that does not fit a new {type(new).__name__} of the same options "
            f"({' '.join(str(error).split())[:200]}), expected it to: parameters and buffers may depend on options "
            "only."
        ) from error


def _kind(found: object) -> str:
    return f"a tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__


def _listed(values: Tensor) -> str:
    numbers = ", ".join(f"{value:.6g}" for value in values.detach().flatten()[:3].tolist())
    return f"[{numbers}{', …' if values.numel() > 3 else ''}]"
