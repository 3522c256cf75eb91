"""Laws of ranges: buffers for which a modified checkpoint could hold invalid values declare their range.

See `walkback.support.constraints`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

import torch
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.state import leaves
from walkback.support.constraints import constraints_of, violation
from walkback.support.seeding import generator
from walkback.testing.cases import Case, ConformanceError, Suite
from walkback.testing.kernels import COLD, HOT
from walkback.testing.operators import probes
from walkback.testing.priors import fitted
from walkback.testing.probes import describe

OPERATOR_RANGES = Suite()
PRIOR_RANGES = Suite()

_PROVES = "buffers that must not be negative declare their range, so that invalid checkpoints are refused"


@OPERATOR_RANGES.check("ranges", _PROVES)
@torch.no_grad()
def _operator(case: Case) -> None:
    for probe in probes(case):
        state = probe.states(3)

        def used() -> Iterable[Tensor]:
            for source in probe.sources():  # noqa: B023  called in this turn only
                for level in (COLD, HOT):
                    kernel = source.kernel(state, level)  # noqa: B023
                    found = kernel.sample(generator("cpu", 0, "ranges"))
                    yield from (*leaves(found), kernel.log_prob(found))

        _require(probe.operator, f"operator on {describe(probe.space)}", used)


@PRIOR_RANGES.check("ranges", _PROVES)
@torch.no_grad()
def _prior(case: Case) -> None:
    for space, prior in fitted(case):
        state = prior.sample(3, generator("cpu", 0, "ranges"))

        def used() -> Iterable[Tensor]:
            found = prior.sample(3, generator("cpu", 0, "ranges"))  # noqa: B023  called in this turn only
            return (*leaves(found), prior.log_prob(state))  # noqa: B023

        _require(prior, f"prior on {describe(space)}", used)


def _require(part: nn.Module, what: str, used: Callable[[], Iterable[Tensor]]) -> None:
    """Raise ConformanceError for a declared range that does not hold, or a buffer without range that -1 breaks."""
    problem = violation(part)
    if problem is not None:
        raise ConformanceError(
            f"Got a new {what} whose tensor {problem}, expected ranges that hold after fitting."
        )
    declared = set()
    for place, module in part.named_modules():
        own = {
            name
            for name, _ in chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
        }
        for name in constraints_of(module):
            if name not in own:
                raise ConformanceError(
                    f"Got a range of {name!r} in the {what}, which has no such tensor, expected its name."
                )
            declared.add(f"{place}.{name}" if place else name)
    stored = part.state_dict().keys()
    for name, buffer in part.named_buffers():
        if name in stored and name not in declared and buffer.is_floating_point():
            _require_usable(name, buffer, what, used)


def _require_usable(name: str, buffer: Tensor, what: str, used: Callable[[], Iterable[Tensor]]) -> None:
    kept = buffer.clone()
    buffer.fill_(-1.0)
    try:
        finite = all(bool(values.isfinite().all()) for values in used())
    except ConfigurationError:
        finite = True  # the value is refused, if only on use
    except Exception:
        finite = False
    finally:
        buffer.copy_(kept)
    if not finite:
        raise ConformanceError(
            f"Got NaN, infinity or an error from the {what} with its buffer {name!r} set to -1, as in a modified "
            "checkpoint; expected a range: derive from walkback.support.constraints.Constrained and declare it."
        )
