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
    local = {"objective": {"name": "walkback"}, "training": {"updates": "batch"}}
    yield Component(
        "dae",
        "walkback_processes.reconstructing:DenoisingProcess",
        "Denoising autoencoder: noise at every level, and back to the example in one step",
        defaults=local,
    )
    yield Component(
        "gsn",
        "walkback_processes.reconstructing:WalkbackProcess",
        "Walkback of generative stochastic networks: a chain of noise and reconstructions, back to the example",
        defaults=local,
    )
    yield Component(
        "infusion",
        "walkback_processes.infusion:InfusionProcess",
        "Walks from the prior, infused with the example",
        defaults={
            **local,
            # The network sees the example through little more than noise: one step must be able to forget the state.
            "operator": {"sigma_share": 1.0},
            "schedule": {"name": "constant", "num_steps": 15},
        },
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
