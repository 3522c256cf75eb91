"""Laws of operators that are told classes: a context goes with its rows, and none is what it was without.

Checked on the spaces of the case with classes added to them, as far as the operator takes any there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel
from walkback.operators import ClassConditional, TransitionOperator
from walkback.schedules import Level
from walkback.state import Context, State, StateSpace, map_state
from walkback.support.seeding import generator
from walkback.testing.cases import Case, ConformanceError, NotApplicable, Suite
from walkback.testing.kernels import COLD, HOT
from walkback.testing.operators import built, conditional, started
from walkback.testing.probes import require_close, same

LABELS = Suite()

_CLASSES, _ROWS = 3, 8
_LABELS = torch.arange(_ROWS) % (_CLASSES + 1) - 1


@LABELS.check(
    "labels",
    "told classes, a row's kernel is that of its own label; -1 in a row, and no context, are no label",
)
@torch.no_grad()
def _labels(case: Case) -> None:
    told = False
    for space, operator in _told_classes(case):
        told = True
        state = started(operator, space, _ROWS)
        if not any(
            _differ(operator, state, level, heats) for level in (COLD, HOT) for heats in (False, True)
        ):
            raise ConformanceError("Got the same kernels for every label, expected others: use the context.")
    if not told:
        raise NotApplicable("The operator is told no classes.")


def _differ(operator: TransitionOperator, state: State, level: Level, heats: bool) -> bool:
    """Whether labels make a difference to the kernels of one direction, which have to be sound."""

    def kernel(rows: State, context: Context) -> Kernel:
        found = conditional(operator, rows, level, context)
        return found.heating(level) if heats else found.cooling(level)

    target = kernel(state, None).sample(generator("cpu", 0, "labels"))
    silent, mixed, unknown = (
        kernel(state, context).log_prob(target) for context in (None, _LABELS, torch.full((_ROWS,), -1))
    )
    require_close(unknown, silent, "rows of label -1 have the kernels of no context")
    for row in range(_ROWS):
        own = slice(row, row + 1)
        alone = kernel(_rows(state, own), _LABELS[own]).log_prob(_rows(target, own))
        require_close(mixed[own], alone, "the kernel of a row depends on the labels of the rows beside it")
    return not same(silent, mixed)


def _told_classes(case: Case) -> Iterator[tuple[StateSpace, TransitionOperator]]:
    """The operator on its spaces with classes, where it can be told any; it may refuse them."""
    for space in case.spaces:
        if isinstance(space, tuple):
            continue
        try:
            operator = built(case, replace(space, classes=_CLASSES))
        except ConfigurationError:
            continue
        if isinstance(operator, ClassConditional) and operator.num_classes:
            if operator.num_classes != _CLASSES:
                raise ConformanceError(
                    f"Got num_classes = {operator.num_classes}, expected the space's {_CLASSES}."
                )
            yield space, operator


def _rows(state: State, rows: slice) -> State:
    return map_state(lambda leaf: leaf[rows], state)
