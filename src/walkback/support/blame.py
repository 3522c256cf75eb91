"""Suspects: the parts that an unexpected error may be the fault of. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from walkback.errors import WalkbackError


@contextmanager
def suspecting(*parts: object) -> Iterator[None]:
    """Note on exceptions of the block that `parts` may be at fault, as their attribute `suspects`.

    Errors of walkback are left as they are: they say themselves what is wrong.
    """
    try:
        yield
    except WalkbackError:
        raise
    except Exception as error:
        if not suspects_of(error):
            error.suspects = parts  # type: ignore[attr-defined]
        raise


def suspects_of(error: BaseException) -> tuple[object, ...]:
    """The parts that an exception may be the fault of."""
    found = getattr(error, "suspects", ())
    return found if isinstance(found, tuple) else ()
