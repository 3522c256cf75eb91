"""Laws of processes that reconstruct, and of those that are fitted to the operator.

corruption      q(s_t | s_0) is a density, wider if hotter
examples        every transition leads back to s_0
fit-operator    what is set from the operator is kept, and the operator unchanged
"""

from __future__ import annotations

import torch

from walkback.processes import OperatorAware, Reconstructing
from walkback.testing import kernels
from walkback.testing.cases import Case, ConformanceError, NotApplicable, Suite
from walkback.testing.kernels import Source
from walkback.testing.probes import data_like, describe, flat, same, through_file
from walkback.testing.processes import ROWS, built, path_of, states_of, trials

RECONSTRUCTING = Suite()


@RECONSTRUCTING.check("corruption", "the corruption is a normalized density of its samples, wider if hotter")
@torch.no_grad()
def _corruption(case: Case) -> None:
    for space, process, _ in trials(case):
        if not isinstance(process, Reconstructing):
            raise NotApplicable("The process is not Reconstructing.")
        source = Source("corruption", space, states_of(space), process.corruption)
        kernels.shapes(source)
        kernels.normalized([source])
        for law in (kernels.samples, kernels.row_levels, kernels.rows_alone, kernels.repeats):
            law(source)
        kernels.hotter_is_wider(source)


@RECONSTRUCTING.check("examples", "the source of every transition is the example")
@torch.no_grad()
def _examples(case: Case) -> None:
    for space, process, operator in trials(case):
        if not isinstance(process, Reconstructing):
            raise NotApplicable("The process is not Reconstructing.")
        if not all(same(step.source, data_like(space, ROWS)) for step in path_of(process, operator, space)):
            raise ConformanceError(
                f"Got a transition on {describe(space)} whose source is not the example, expected s_0 of the start: "
                "operators learn to return to it in one step."
            )


@RECONSTRUCTING.check(
    "fit-operator", "what is set from the operator is kept in buffers, and the operator unchanged"
)
@torch.no_grad()
def _fit_operator(case: Case) -> None:
    for space, process, operator in trials(case):
        if not isinstance(process, OperatorAware):
            raise NotApplicable("The process is not OperatorAware.")
        before = {name: value.clone() for name, value in operator.state_dict().items()}
        process.fit_operator(operator)
        changed = [name for name, value in operator.state_dict().items() if not same(value, before[name])]
        if changed:
            raise ConformanceError(
                f"Got an operator whose {changed[0]} was changed by fit_operator, expected it untouched."
            )
        new = built(case, space, seed=1)
        through_file(process, new)
        paths = [
            torch.cat([flat(step.target) for step in path_of(part, operator, space)])
            for part in (process, new)
        ]
        if not same(*paths):
            raise ConformanceError(
                f"Got a different path on {describe(space)} after saving and loading the state_dict, expected the same "
                "bits: keep what is set from the operator in (persistent) buffers."
            )
