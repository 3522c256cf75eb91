"""Checks of the shapes and dtypes that components return."""

from __future__ import annotations

from torch import Tensor

from walkback.errors import WalkbackError


def require_like(found: object, expected: Tensor | tuple[Tensor, ...], *givers: object) -> None:
    """Check that a state returned by a component has the leaves, shapes and dtypes of `expected`.

    Args:
        found: The returned state.
        expected: A state with the expected leaves.
        givers: Objects that may have returned it, as suspects of the error; the message names the last one.

    Raises:
        WalkbackError: The state differs.
    """
    parts = found if isinstance(found, tuple) else (found,)
    wanted = expected if isinstance(expected, tuple) else (expected,)
    fits = len(parts) == len(wanted) and all(
        isinstance(part, Tensor) and (part.shape, part.dtype) == (leaf.shape, leaf.dtype)
        for part, leaf in zip(parts, wanted, strict=True)
    )
    if not fits:
        got, like = (" and ".join(map(_described, state)) for state in (parts, wanted))
        raise WalkbackError(f"Got {got} from {type(givers[-1]).__name__}, expected {like}.").suspecting(
            *givers
        )


def _described(part: object) -> str:
    if not isinstance(part, Tensor):
        return f"a {type(part).__name__}"
    return f"a state of shape {tuple(part.shape)} and {str(part.dtype).removeprefix('torch.')}"
