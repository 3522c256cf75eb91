"""Components of processes other than the tied one; importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Iterator

from walkback.component import Component, Recipe
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
    # Each transition has rows at all levels, or is as good as another: an update after each learns K times as fast.
    local = {"objective": {"name": "walkback"}, "training": {"updates": "online"}}
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
            # One step must be able to forget the state, and the network to know how much of the example it contains.
            "operator": {"sigma_share": 1.0},
            "schedule": {"name": "geometric", "factor": 1.15, "n1": 0, "max_temperature": 10.0},
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
    """Temperatures of known noise."""
    yield Component(
        "betas",
        "walkback_processes.betas:BetasSchedule",
        "Variance-preserving noise by its β_t: linear, cosine, sqrt-linear, sigmoid, or given (DDPM)",
    )
    yield Component(
        "learned",
        "walkback_processes.learned:LearnedSchedule",
        "Levels of a diffusion, learned with the operator for the bound (VDM)",
    )


@hookimpl
def walkback_recipes() -> Iterator[Recipe]:
    """One recipe a process, on the same data with the same network."""
    for name, method in (
        ("dae", "a denoising autoencoder"),
        ("gsn", "walkback training of a generative stochastic network"),
        ("infusion", "infusion training"),
        ("vdm", "a diffusion of 32 learned levels"),
    ):
        summary = f"Real 8×8 digits with {method}, about two minutes on two cores"
        yield Recipe(f"digits-{name}", f"walkback_processes:recipes/digits-{name}.toml", summary)
