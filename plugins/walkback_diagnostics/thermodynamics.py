"""Work, free energy and dissipation of walks between the data and the prior (section 3.1 of the paper).

    s_0 cooled from the prior, W_cool of that path;   W_heat of P paths that heat s_0;   F(s_0) = -log p(s_0)

    W_heat - F          its mean is KL(heating ‖ cooling), the gap of the bound (eq. 6): dissipated work of heating
    F - W_cool          its mean is KL(cooling ‖ heating): dissipated work of cooling
    D = W_heat - W_cool its mean, the hysteresis, is the sum of both: no free energy is needed

Swapping the two paths of a pair that share s_0 turns D into -D, so ρ(D) / ρ(-D) = exp(D), Crooks' theorem. -log of the
mean of exp(-W) over P heating paths is above F(s_0) on average (Jarzynski), and below it if the cooling path replaces
one of them, for any P and any distribution of W. F is estimated by their midpoint; half their distance, which the bias
cannot exceed, is included in its error. (With χ² the variance of exp(F - W), both are off by χ² / 2P to first order, in
opposite directions; if χ² is infinite, as for walks far from equilibrium, only the bracket remains.) Bennett's ratio,
for which one cooling path has little information, lies between the same ends.

overlap  2 E[1 / (1 + exp(D))] = ∫ 2 ρ(D) ρ(-D) / (ρ(D) + ρ(-D)) dD is 1 if heating and cooling are the same, and 0 if
their paths have nothing in common; then no number of paths determines F.

The gap is split as in eq. 8: the entropy production of chains held at each T_t (irreversibility), and the rest (excess
heat).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, final

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from walkback.data import draw_labels
from walkback.diagnostics import Diagnostic, Subject
from walkback.errors import DataError, WalkbackError
from walkback.known import require_density
from walkback.measuring.estimates import require_enough
from walkback.measuring.traces import settle, trace
from walkback.measuring.work import PathWork, cooling_work, heating_work, reheating_work
from walkback.report import Report
from walkback.sampling import anneal, last
from walkback.schedules import Level
from walkback.state import dimensions, map_state
from walkback.support.sizes import require_room
from walkback.walk import Start
from walkback_diagnostics.free_energy import bar
from walkback_diagnostics.thermodynamic_report import Measured, thermodynamic_report


@final
class Thermodynamics(Diagnostic):
    """Work of heating and cooling.

    Args:
        examples: Number of states s_0 cooled from the prior, and maximum number of held-out examples to heat.
        paths: P, heating paths per state.
        batch: States per batch.
        data: Whether held-out data are heated as well.
        chains: Number of chains held at each level to measure entropy production.
        stationary_steps: Recorded steps of each of them; 0 skips them, and with them the split of the gap.
        burn_in: Steps of each before recording.
        bennett: Whether to compute Bennett's ratio; requires pymbar.
    """

    def __init__(
        self,
        *,
        examples: PositiveInt = 500,
        paths: Annotated[int, Field(ge=2)] = 16,
        batch: PositiveInt = 100,
        data: bool = True,
        chains: PositiveInt = 100,
        stationary_steps: NonNegativeInt = 20,
        burn_in: NonNegativeInt = 20,
        bennett: bool = True,
    ) -> None:
        require_enough(examples, "examples", "--set examples=…")
        if stationary_steps:
            require_enough(chains, "chains", "--set chains=…")
        require_room(f"--set paths={paths}", 2 * examples * paths)  # works in double precision
        self._examples = examples
        self._paths = paths
        self._batch = batch
        self._data = data
        self._chains = chains
        self._stationary_steps = stationary_steps
        self._burn_in = burn_in
        self._bennett = bennett

    def measure(self, subject: Subject) -> Report:
        """Returns the figures and warnings of the module's docstring.

        Raises:
            WalkbackError: A work is not finite, states are clipped, or there are too few examples or chains.
        """
        state = subject.model.prior.sample(1, subject.generator("density"))
        require_density(subject.model.operator, state, "the work of a path")
        warnings: list[str] = []
        available = self._available(subject, warnings) if self._data else 0
        with subject.model.evaluating():
            cooled = self._cooled(subject)
            data = self._held_out(subject, available) if available else None
            stationary = self._stationary(subject) if self._stationary_steps else None
        measured = Measured(
            cooled_heating=cooled.heating,
            cooled_cooling=cooled.cooling,
            heating_production=cooled.heating_production,
            cooling_production=cooled.cooling_production,
            bennett=_bennett(cooled.heating, cooled.cooling, warnings) if self._bennett else None,
            data_heating=None if data is None else data[0],
            data_production=None if data is None else data[1],
            stationary=stationary,
            dimensions=dimensions(subject.model.prior.space),
            data_dimensions=subject.info.space.size,
        )
        protocol = {
            "examples": self._examples,
            "data_examples": 0 if data is None else len(data[0]),
            "paths": self._paths,
            "temperatures": [float(level.temperature) for level in subject.model.levels()],
            "chains": self._chains if self._stationary_steps else 0,
            "burn_in": self._burn_in,
            "stationary_steps": self._stationary_steps,
        }
        return thermodynamic_report(measured).stamped(protocol, warnings)

    def _cooled(self, subject: Subject) -> _Cooled:
        """Draws cooling paths, and heating paths from their ends."""
        model, levels = subject.model, subject.model.levels()

        def compute(number: int, num: int) -> dict[str, Tensor]:
            context = draw_labels(subject.info, num, subject.generator("labels", number))
            state, path = cooling_work(model, num, levels, subject.generator("cooling", number), context)
            noise = subject.generator("reheating", number)
            paths = [reheating_work(model, state, levels, noise, context) for _ in range(self._paths)]
            return {
                "cooling": _work(path),
                "cooling_production": path.production.double(),
                "heating": torch.stack([_work(heated) for heated in paths], 1),
                "heating_production": torch.stack([heated.production.double() for heated in paths]).mean(0),
            }

        found = _collect(subject, "work", self._examples, self._batch, compute)
        return _Cooled(**found)

    def _available(self, subject: Subject, warnings: list[str]) -> int:
        """Returns the number of held-out examples to heat; 0 if they are not available.

        Raises:
            ConfigurationError: There are too few for an error.
        """
        try:
            num = min(self._examples, len(subject.data().examples("test")))
        except DataError as error:
            warnings.append(f"Held-out data are left out: {error}")
            return 0
        require_enough(num, "held-out examples", "their number, or leave them out with --set data=false")
        return num

    def _held_out(self, subject: Subject, num: int) -> tuple[Tensor, Tensor]:
        """Returns works `(N, P)` and entropy productions `(N, K)` of heating from data."""
        rows = subject.held_out("test", num)
        model, levels = subject.model, subject.model.levels()

        def compute(number: int, size: int) -> dict[str, Tensor]:
            some = rows[number * self._batch : number * self._batch + size]
            noise = subject.generator("heating", number)
            paths = [
                heating_work(model, some.states, levels, noise, some.context) for _ in range(self._paths)
            ]
            return {
                "heating": torch.stack([_work(heated) for heated in paths], 1),
                "production": torch.stack([heated.production.double() for heated in paths]).mean(0),
            }

        found = _collect(subject, "data", num, self._batch, compute)
        return found["heating"], found["production"]

    def _stationary(self, subject: Subject) -> Tensor:
        """Returns the mean entropy production per step of chains held at each level, `(C, K)`, nats."""
        found = []
        for number, (level, heated) in enumerate(_heated_states(subject, self._chains), start=1):
            settled = settle(subject, heated, level, self._burn_in, name=f"burn-in-at-level-{number}")
            held = trace(
                subject,
                settled,
                level,
                self._stationary_steps,
                lambda step: (step.log_q - step.log_p)[:, None],
                name=f"chains-at-level-{number}",
                blocks=1,
            )
            found.append(held.values.mean(0)[:, 0])
        return torch.stack(found, 1)


@dataclass(frozen=True, slots=True)
class _Cooled:
    """For cooled s_0: works `(N,)` of cooling and `(N, P)` of heating, entropy productions `(N, K)`, nats."""

    cooling: Tensor
    cooling_production: Tensor
    heating: Tensor
    heating_production: Tensor


@torch.no_grad()
def _heated_states(subject: Subject, num: int) -> Iterator[tuple[Level, Start]]:
    """Yields each level with states at it, `(num, *E)`, from separate heating paths that start at cooled s_0."""
    model = subject.model
    levels, noise = model.levels(), subject.generator("heated-states")
    context = subject.labels(num)
    origin = last(anneal(model.operator, model.prior, levels, num, noise, context))
    for step in model.walk(Start(origin, context=context), levels, noise):
        yield step.level, Start(map_state(torch.clone, step.target), context=context)


def _work(path: PathWork) -> Tensor:
    """Returns W `(B,)`, summed in double precision."""
    return path.production.double().sum(1) + path.boundary.double()


def _collect(
    subject: Subject, name: str, num: int, batch: int, compute: Callable[[int, int], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Joins the pieces that `compute(number, rows)` returns for batches of `num` rows; each piece is cached."""
    pieces: list[dict[str, Tensor]] = []
    subject.watch.stage(f"Paths ({name})", num)
    for number, first in enumerate(range(0, num, batch)):
        size = min(batch, num - first)
        piece = subject.cache.read(f"{name}-{number}")
        if piece is None:
            piece = {key: value.cpu() for key, value in compute(number, size).items()}
            _require_finite(piece, name)
            subject.cache.write(f"{name}-{number}", piece)
        pieces.append(piece)
        subject.watch.advance(first + size, {"work": float(piece["heating"].mean())})
    return {key: torch.cat([piece[key] for piece in pieces]) for key in pieces[0]}


def _require_finite(piece: dict[str, Tensor], name: str) -> None:
    for key, value in piece.items():
        if not bool(value.isfinite().all()):
            raise WalkbackError(
                f"Got {int((~value.isfinite()).sum())} of {value.numel()} values of {name}: {key} that are not "
                "finite, expected finite log-densities: the operator diverges, or its kernel has no density."
            )


def _bennett(heating: Tensor, cooling: Tensor, warnings: list[str]) -> Tensor | None:
    """Returns F(s_0) `(N,)` by Bennett's ratio of P heating paths and one cooling path each; None if it fails."""
    try:
        found = [bar(heats, -cools[None]) for heats, cools in zip(heating, cooling, strict=True)]
    except WalkbackError as error:
        warnings.append(f"Bennett's ratio is left out: {error}")
        return None
    return torch.tensor(found, dtype=torch.float64)
