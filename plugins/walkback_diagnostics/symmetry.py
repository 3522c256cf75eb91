"""Symmetry: whether the drift is the gradient of an energy (section 6.3 of the paper).

    m(s) natural parameters of p_T(· | s),  J = ∂m/∂s      asymmetry = ‖J - Jᵀ‖_F / ‖J + Jᵀ‖_F,   0 if m = -∇U

    ‖A‖_F² = E‖A v‖²,   v = ±1 independently (Hutchinson)       J v and Jᵀ v by automatic differentiation

m is the mean of a normal kernel or the logits of a Bernoulli kernel. A mean is s + drift, and if steps are small the
identity hides the drift in J. For normal kernels J - I, which has the same antisymmetric part, is therefore reported as
well. The asymmetry is 0 for a gradient, 1 for independent entries, and larger if rotation dominates.

Mirrored layers: cos(W, W'ᵀ) of the first linear map from s to m and the last, the second and the last but one, …
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, TypeGuard, final

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from walkback.diagnostics import ChainStart, Diagnostic, Subject
from walkback.errors import ConfigurationError, WalkbackError
from walkback.kernels import BernoulliKernel, Expecting, Kernel, NormalKernel, ProductKernel, Reparametrized
from walkback.measuring.estimates import ratio_figure, require_enough
from walkback.measuring.traces import cold_level
from walkback.operators import TransitionOperator
from walkback.report import Figure, Report, Series
from walkback.schedules import Level
from walkback.state import batch_size, leaves, map_context, map_state
from walkback.walk import Start
from walkback_diagnostics.mirrored import mirrored_layers

_NOTHING = 1e-20
"""Ratio of squared norms below which the smaller is attributed to rounding."""

_ROUNDING = 1e-2

_NO_SECOND = ("not implemented", "differentiate twice")
"""Text of torch's error for an operation without a second derivative."""


@final
class Symmetry(Diagnostic):
    """Asymmetry of the Jacobian of the operator's mean map.

    Args:
        examples: Number of states at which the Jacobian is evaluated.
        probes: Random directions per state.
        temperature: T.
        start: States cooled from the prior, or held-out data.
        batch: States per batch.
    """

    def __init__(
        self,
        *,
        examples: PositiveInt = 100,
        probes: PositiveInt = 8,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        start: ChainStart = "data",
        batch: PositiveInt = 50,
    ) -> None:
        require_enough(examples, "examples", "--set examples=…")
        self._examples = examples
        self._probes = probes
        self._temperature = temperature
        self._start: ChainStart = start
        self._batch = batch

    def measure(self, subject: Subject) -> Report:
        """Returns the figures and warnings of the module's docstring.

        Raises:
            ConfigurationError: The kernel is neither normal nor Bernoulli nor a product of these.
            WalkbackError: The map is constant, cannot be differentiated twice, or there are too few states.
        """
        level = cold_level(subject, self._temperature)
        operator = subject.model.operator
        with subject.model.evaluating(), torch.autocast(subject.device.type, enabled=False):
            start = subject.start(self._start, self._examples)
            one = _rows(start, slice(1))
            with torch.no_grad():
                kernel = operator(one.state, level, one.context).cooling(level)
            natural_parameters(kernel)
            norms = self._norms(subject, start, level)
            cosines, layers, warnings = mirrored_layers(operator, one, level, natural_parameters)
        figures, further = _asymmetries(norms, _normal(kernel))
        protocol = {
            "examples": self._examples,
            "probes": self._probes,
            "temperature": self._temperature,
            "start": self._start,
        }
        series: tuple[Series, ...] = () if layers is None else (layers,)
        everything = (*figures, *(() if cosines is None else (cosines,)))
        return Report("symmetry", figures[0].name, everything, series, (*further, *warnings), protocol)

    def _norms(self, subject: Subject, start: Start, level: Level) -> Tensor:
        """Returns `squared_norms` of all states, `(N, 3)`; each batch is cached."""
        found = []
        subject.watch.stage("Jacobians", self._examples)
        for number, first in enumerate(range(0, self._examples, self._batch)):
            some = _rows(start, slice(first, first + self._batch))
            kept = subject.cache.read(f"jacobian-{number}")
            if kept is None:
                noise = subject.generator("probes", number)
                norms = squared_norms(subject.model.operator, some, level, self._probes, noise)
                kept = {"norms": norms.double().cpu()}
                subject.cache.write(f"jacobian-{number}", kept)
            found.append(kept["norms"])
            subject.watch.advance(first + batch_size(some.state), {})
        return torch.cat(found)


def _rows(start: Start, rows: slice) -> Start:
    """Selects some of the states, with their context."""
    context = map_context(lambda leaf: leaf[rows], start.context)
    return Start(map_state(lambda leaf: leaf[rows], start.state), context=context)


def natural_parameters(kernel: Kernel) -> Tensor:
    """Returns m, `(B, D)`: the mean of a normal kernel, the logits of a Bernoulli kernel; for a product, those of its
    parts.

    In a product, means are divided by their variance (as a constant), which makes them natural parameters, as the
    logits are. Only then does detailed balance make the cross derivatives of two parts each other's transpose.

    Raises:
        ConfigurationError: It is any other kernel.
    """
    if _normal(kernel):
        return kernel.mean.flatten(1)
    if isinstance(kernel, BernoulliKernel):
        return kernel.logits.flatten(1)
    if isinstance(kernel, ProductKernel):
        return torch.cat([_part(part) for part in kernel.kernels], 1)
    raise ConfigurationError(
        f"Got an operator with a {type(kernel).__name__}, expected a normal or Bernoulli kernel, or a product of "
        "such: the symmetry of others is not defined."
    )


def _normal(kernel: Kernel) -> TypeGuard[NormalKernel]:
    """Returns whether a kernel is noise of its own around `mean`, with independent dimensions or in another basis."""
    around = isinstance(kernel, Reparametrized) and isinstance(kernel, Expecting)
    return isinstance(kernel, NormalKernel) or (around and isinstance(getattr(kernel, "mean", None), Tensor))


def _part(kernel: Kernel) -> Tensor:
    if isinstance(kernel, NormalKernel):
        return (kernel.mean / kernel.variance.detach()).flatten(1)
    return natural_parameters(kernel)


def squared_norms(
    operator: TransitionOperator, start: Start, level: Level, probes: int, generator: torch.Generator
) -> Tensor:
    """Returns unbiased estimates of ‖J - Jᵀ‖², ‖J + Jᵀ‖² and ‖J + Jᵀ - 2 I‖² (Frobenius) at states `(B, *E)`: `(B, 3)`.

    Rows must be independent of one another. J v is the backward pass of the backward pass Jᵀ u, which is linear in u:
    more operations support double backward than forward-mode differentiation.

    Raises:
        WalkbackError: The map is constant, cannot be differentiated twice, or a derivative is not finite.
    """
    with torch.enable_grad():
        inputs = tuple(leaf.detach().clone().requires_grad_() for leaf in leaves(start.state))
        state = inputs if isinstance(start.state, tuple) else inputs[0]
        kernel = operator(state, level, start.context).cooling(level)
        m = natural_parameters(kernel)
        if not m.requires_grad:
            raise WalkbackError(
                f"Got a {type(kernel).__name__} whose parameters do not depend on the state, so there is no drift "
                "to test; expected parameters that depend on it."
            )
        found = torch.zeros(len(m), 3, dtype=torch.float64, device=m.device)
        try:
            for forward, back, v in _products(m, inputs, probes, generator):
                parts = (forward - back, forward + back, forward + back - 2 * v)
                found += torch.stack([part.detach().double().square().sum(1) for part in parts], 1) / probes
        except RuntimeError as error:
            if not any(words in str(error) for words in _NO_SECOND):
                raise
            raise WalkbackError(
                f"Got a network whose gradient has no gradient ({error}), expected one that can be differentiated "
                "twice: choose another attention or activation."
            ) from error
    if not bool(found.isfinite().all()):
        raise WalkbackError(
            f"Got {int((~found.isfinite()).any(1).sum())} of {len(found)} states with derivatives that are not "
            "finite, expected finite ones: the operator diverges."
        )
    return found


def _products(
    m: Tensor, inputs: tuple[Tensor, ...], probes: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Returns (J v, Jᵀ v, v), `(B, D)` each, for v with independent random signs."""
    u = torch.zeros_like(m, requires_grad=True)
    transposed = _flat(torch.autograd.grad(m, inputs, u, create_graph=True, materialize_grads=True))
    if transposed.shape != m.shape:
        raise WalkbackError(
            f"Got a map from {transposed.shape[1]} to {m.shape[1]} dimensions, expected as many: its Jacobian has no "
            "transpose to compare with."
        )
    for _ in range(probes):
        v = 2.0 * torch.randint(2, m.shape, generator=generator, device=m.device).to(m) - 1
        back = _flat(torch.autograd.grad(m, inputs, v, retain_graph=True, materialize_grads=True))
        forward = torch.zeros_like(m)
        if transposed.requires_grad:  # else J = 0
            (forward,) = torch.autograd.grad(transposed, u, v, retain_graph=True, materialize_grads=True)
        _require_transposes(forward, back, v)
        yield forward, back, v


def _require_transposes(forward: Tensor, back: Tensor, v: Tensor) -> None:
    """Checks vᵀ (J v) = (Jᵀ v)ᵀ v: if an operation hides its second derivative, torch silently returns zeros."""
    difference = ((forward - back) * v).sum().abs()
    scale = (forward.norm() + back.norm()) * v.norm()
    hidden = bool((back != 0).any()) and not bool((forward != 0).any())
    if hidden or bool(difference > _ROUNDING * scale):
        raise WalkbackError(
            "Got a network whose gradient has no gradient (or the wrong one), expected one that can be "
            "differentiated twice: choose another attention or activation."
        )


def _flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.flatten(1) for part in parts], 1)


def _asymmetries(norms: Tensor, normal: bool) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """Returns the asymmetries, first that of the drift if any, whose rotation the identity in J hides."""
    of_map = _root_ratio(
        "asymmetry",
        norms[:, 0],
        norms[:, 1],
        "‖J - Jᵀ‖ / ‖J + Jᵀ‖ of the mean map: 0 if a gradient; small steps have J near I, which hides it"
        if normal
        else "‖J - Jᵀ‖ / ‖J + Jᵀ‖ of the natural parameters (logits; means over variances): 0 if a gradient",
    )
    of_drift = None
    if normal:
        of_drift = _root_ratio(
            "drift_asymmetry",
            norms[:, 0],
            norms[:, 2],
            "the same of the drift, whose Jacobian is J - I: 0 where it is -∇U, 1 for independent entries",
        )
    warnings = []
    if of_map is None:
        warnings.append("J + Jᵀ vanishes: the asymmetry of the map is infinite, and left out.")
    if normal and of_drift is None:
        warnings.append("J + Jᵀ - 2 I vanishes: the asymmetry of the drift is infinite or 0/0, and left out.")
    figures = tuple(figure for figure in (of_drift, of_map) if figure is not None)
    if not figures:
        raise WalkbackError(
            "Got a Jacobian that is antisymmetric, expected one that is not: its asymmetry is infinite."
        )
    return figures, tuple(warnings)


def _root_ratio(name: str, above: Tensor, below: Tensor, meaning: str) -> Figure | None:
    """Returns √(mean(above) / mean(below)), by the delta method; None if the denominator is 0."""
    if below.mean() <= _NOTHING * (above.mean() + 1):
        return None
    squared = ratio_figure(name, above, below, "1")
    root = math.sqrt(squared.value)
    error = (squared.error or 0.0) / (2 * root) if root else 0.0
    low, high = squared.interval or (squared.value, squared.value)
    return Figure(name, root, "1", error, (math.sqrt(max(low, 0.0)), math.sqrt(max(high, 0.0))), meaning)
