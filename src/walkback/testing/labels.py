"""Laws of operators conditioned on class labels: each row uses its own label, and no label means unconditional.

The checks add classes to the spaces of the case, and skip the spaces on which the operator does not accept them.
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
    "a row's kernel depends on its own label only; a label of -1 and no context are both unconditional",
)
@torch.no_grad()
def _labels(case: Case) -> None:
    tried = False
    for space, operator in _with_classes(case):
        tried = True
        state = started(operator, space, _ROWS)
        if not any(
            _differ(operator, state, level, heats) for level in (COLD, HOT) for heats in (False, True)
        ):
            raise ConformanceError(
                "Got the same kernels for every label, expected different ones: use the context."
            )
    if not tried:
        raise NotApplicable("The operator is not conditioned on classes.")


def _differ(operator: TransitionOperator, state: State, level: Level, heats: bool) -> bool:
    """Return whether labels change the kernels of one direction; raises ConformanceError if they do so wrongly."""

    def kernel(rows: State, context: Context) -> Kernel:
        found = conditional(operator, rows, level, context)
        return found.heating(level) if heats else found.cooling(level)

    target = kernel(state, None).sample(generator("cpu", 0, "labels"))
    without, mixed, unknown = (
        kernel(state, context).log_prob(target) for context in (None, _LABELS, torch.full((_ROWS,), -1))
    )
    require_close(unknown, without, "rows of label -1 must have the kernels without context")
    for row in range(_ROWS):
        own = slice(row, row + 1)
        alone = kernel(_rows(state, own), _LABELS[own]).log_prob(_rows(target, own))
        require_close(mixed[own], alone, "the kernel of a row must not depend on the labels of other rows")
    return not same(without, mixed)


def _with_classes(case: Case) -> Iterator[tuple[StateSpace, TransitionOperator]]:
    """Yield the operator on each space with classes that it accepts, if it can be conditioned on them."""
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
