"""Do cooling walks pass through the states of heating walks, level by level?

    D_t = 2 E|x - y| - E|x - x'| - E|y - y'|        x, x' ~ s_t of heating walks,   y, y' ~ s_t of cooling walks

D is the energy distance (Székely and Rizzo, 2013): 0 if and only if both laws are one. Where D_t rises as cooling goes
down, levels are missing there; where it is large at t = K already, T_max is too low or the prior is off. The estimate
compares state i of a group of walks with state i + 1 of it, so it is unbiased (and may be negative); groups are
independent, which gives its standard error. |·| is the root of the mean square over dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor

from walkback.diagnostics import Diagnostic, Subject
from walkback.errors import WalkbackError
from walkback.measuring.estimates import mean_figure
from walkback.operators import initial_state, visible
from walkback.report import Report, Series
from walkback.sampling import anneal
from walkback.walk import Start

_UNIT = "units of the data"


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased terms of D from groups of independent states `(G, N, *E)`: one for each group, `(G,)`."""
    x, y = x.double().flatten(2), y.double().flatten(2)

    def apart(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean(-1).sqrt().mean(1)

    across = apart(x, y) + apart(x, y.roll(1, 1))
    return across - apart(x, x.roll(1, 1)) - apart(y, y.roll(1, 1))


@final
class LevelMatch(Diagnostic):
    """D_t at every level, 0 included, where cooling ends and the data are; see the module's equation.

    Args:
        groups: G, independent groups of walks.
        walks: Heating walks in each group, and as many cooling walks.
    """

    def __init__(
        self,
        *,
        groups: Annotated[int, Field(ge=4)] = 10,
        walks: Annotated[int, Field(ge=2)] = 100,
    ) -> None:
        self._groups = groups
        self._walks = walks

    def measure(self, subject: Subject) -> Report:
        """The largest D_t over levels, with the standard error that it has there."""
        levels = subject.model.levels()
        temperatures = [0.0, *(float(level.temperature) for level in levels)]
        heated, cooled = (list(walks) for walks in (self._heated(subject), self._cooled(subject)))
        pairs = zip(heated, reversed(cooled), strict=True)
        terms = [energy_distance(*(self._grouped(part) for part in pair)) for pair in pairs]
        if not all(bool(term.isfinite().all()) for term in terms):
            raise WalkbackError(
                "Got walks that are not finite, expected finite states: the operator diverges."
            )
        found = [mean_figure(f"level_{step}", term, _UNIT) for step, term in enumerate(terms)]
        worst = max(range(len(found)), key=lambda step: found[step].value)
        meaning = f"Largest, at level {worst} (T = {temperatures[worst]:g}); 0 if cooling undoes heating"
        ends = {"data": 0, "prior": len(levels)}
        series = Series(
            "level_match",
            tuple(float(step) for step in range(len(found))),
            tuple(figure.value for figure in found),
            "level (0: data)",
            f"energy distance of cooling to heating ({_UNIT})",
            error=tuple(figure.error or 0.0 for figure in found),
        )
        figures = [mean_figure("largest_mismatch", terms[worst], _UNIT, meaning)]
        for name, step in ends.items():
            words = f"The same at the {name}"
            figures.append(mean_figure(f"mismatch_at_{name}", terms[step], _UNIT, words))
        protocol = {"groups": self._groups, "walks": self._walks, "temperatures": temperatures[1:]}
        return Report("level-match", "largest_mismatch", tuple(figures), (series,), protocol=protocol)

    def _grouped(self, states: Tensor) -> Tensor:
        return states.reshape(self._groups, self._walks, *states.shape[1:])

    @torch.no_grad()
    def _heated(self, subject: Subject) -> Iterator[Tensor]:
        """Data s_0, s_1 … s_K, visible parts."""
        model = subject.model
        data = subject.held_out("test", self._groups * self._walks)
        state, _ = initial_state(model.operator, data.states, subject.generator("latent"))
        yield visible(model.operator, state)
        noise = subject.generator("heat")
        for step in model.walk(Start(state, context=data.context), model.levels(), noise):
            yield visible(model.operator, step.target)

    def _cooled(self, subject: Subject) -> Iterator[Tensor]:
        """Draws of the prior s_K, then s_{K-1} … s_0, visible parts."""
        model, num = subject.model, self._groups * self._walks
        noise, labels = subject.generator("cool"), subject.labels(num)
        for state in anneal(model.operator, model.prior, model.levels(), num, noise, labels):
            yield visible(model.operator, state)
