"""Components of processes other than the tied one; importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Iterator

from walkback.component import Component
from walkback.hookspecs import hookimpl


@hookimpl
def walkback_processes() -> Iterator[Component]:
    """Noise that does not depend on the operator."""
    yield Component(
        "diffusion",
        "walkback_processes.diffusion:DiffusionProcess",
        "Noise that does not depend on the operator, with known marginals (NET, DDPM)",
        defaults={"objective": {"name": "kl"}, "training": {"updates": "batch"}},
    )


@hookimpl
def walkback_objectives() -> Iterator[Component]:
    """Terms of the bound in closed form."""
    yield Component(
        "kl",
        "walkback_processes.objectives:PosteriorDivergence",
        "KL(q(s_{t-1} | s_t, s_0) || p_T(s_{t-1} | s_t)), the exact term of the bound",
    )
    yield Component(
        "denoising",
        "walkback_processes.denoising:DenoisingLoss",
        "Squared error of the predicted noise or data, in several weights (DDPM)",
    )


@hookimpl
def walkback_schedules() -> Iterator[Component]:
    """Temperatures of variance-preserving noise."""
    yield Component(
        "betas",
        "walkback_processes.betas:BetasSchedule",
        "Variance-preserving noise by its β_t: linear, cosine, sqrt-linear, sigmoid, or given (DDPM)",
    )
