"""Components of the paper's plugin: lightweight records; importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from walkback.component import Component, Recipe
from walkback.hookspecs import hookimpl

_GAUSSIAN = {
    "prior": {"name": "gaussian"},
    "schedule": {"name": "doubling"},
    "process": {"name": "tied"},
    "objective": {"name": "walkback"},
}
_BERNOULLI = {**_GAUSSIAN, "prior": {"name": "bernoulli"}, "data": {"binarize": "stochastic"}}

_CATEGORICAL: Mapping[str, Mapping[str, Any]] = {
    **_GAUSSIAN,
    "prior": {"name": "categorical"},
    "training": {
        "updates": "stacked",
        "steps": 1000,
        "batch_size": 256,
        "lr": 3e-3,
        "lr_schedule": "cosine",
        "ema": 0.99,
    },
}

_SHARE = 0.03163069
"""σ/σ_d of the first step of the linear schedule of 100 steps: √(-log(1 - 0.001))."""

_DDPM: Mapping[str, Mapping[str, Any]] = {
    "prior": {"name": "gaussian"},
    "schedule": {"name": "betas", "form": "linear", "num_steps": 100},
    "process": {"name": "diffusion", "noise": "preserving"},
    "objective": {"name": "denoising"},
    "training": {"updates": "online", "ema": 0.999},
}

_RENAMED = {
    "smoothing": "smoothed",
    **{
        option: f"network.{option}"
        for option in (
            *("hidden", "depth", "dropout", "conditioning", "level_norms", "norms_per_doubling"),
            *("channels", "norm", "blocks", "patch", "attention"),
        )
    },
}
"""Options of the first format, when an operator and its network were one component, and was told the noise."""

_RECIPES = (
    ("digits", "Real 8×8 digits in about two minutes on two cores", True),
    ("digits-ddpm", "Real 8×8 digits as a diffusion model, two to four minutes on one core", False),
    ("mnist", "MNIST with a small U-Net, under an hour on two cores", False),
    ("mnist-local", "The same network with the paper's local rule", False),
    ("cifar10", "CIFAR-10 with a U-Net, for a CUDA device", False),
    ("cifar10-linear", "CIFAR-10 on one core: reverse the walk of the linear operator", False),
    ("cifar10-tied", "CIFAR-10 on one core, the tied walk; starts from cifar10-linear", False),
    ("celeba", "CelebA 64×64 with a U-Net, for a CUDA device", False),
    ("swiss-roll", "A Swiss roll, about seven minutes on one core", False),
    ("circle", "A circle, about three minutes on one core", False),
    ("mog", "A mixture of eight Gaussians, about five minutes on one core", False),
    ("paper-mnist", "MNIST with the paper's settings (Table 2, figure 3)", False),
    ("paper-mnist-bound", "The MNIST model whose bound the paper reports (appendix E.1)", False),
    ("paper-cifar10", "CIFAR-10 with the paper's settings (Table 4, figure 5)", False),
    ("paper-svhn", "SVHN with the paper's settings (Table 5, figure 6)", False),
    ("paper-celeba", "CelebA with the paper's settings (Table 3, figures 2, 4 and 9 to 15)", False),
    ("paper-swiss-roll", "A Swiss roll with the paper's settings (figure 7)", False),
    ("paper-circle", "A circle with the paper's settings (figure 8)", False),
    ("paper-mog", "A mixture of Gaussians with the paper's settings (appendix I)", False),
)


@hookimpl
def walkback_operators() -> Iterable[Component]:
    """The paper's operators for real and binary data, with any network and with each built-in one by name."""
    yield _gaussian("gaussian", "mlp", "Gaussian operator with any network (option network)")
    yield _bernoulli(
        "bernoulli", "mlp", "Bernoulli operator for binary data with any network (option network)"
    )
    for name, network, words in (
        ("mlp", "mlp", "residual MLP that knows its temperature"),
        ("conv", "encoder-decoder", "the paper's convolutional encoder-decoder (Tables 2 to 5)"),
        ("unet", "unet", "residual U-Net that knows its temperature"),
        ("plain-mlp", "plain-mlp", "the paper's fully connected network (2×1200 units, batch norm)"),
    ):
        yield _gaussian(f"gaussian-{name}", network, f"Gaussian operator, {words}")
        yield _bernoulli(f"bernoulli-{name}", network, f"Bernoulli operator for binary data, {words}")
    for name, words in (("mlp", "residual MLP"), ("unet", "residual U-Net")):
        preset = {
            "network": {"name": name},
            "temperature_law": {"name": "variance"},
            "mean": "epsilon",
            "variance": "large",
            "sigma_share": _SHARE,
        }
        yield Component(
            f"ddpm-{name}",
            "walkback_paper.gaussian:Gaussian",
            f"Gaussian operator that predicts noise, as in DDPM, {words}",
            defaults=_DDPM,
            preset=preset,
        )
    yield Component(
        "categorical",
        "walkback_paper.categorical:Categorical",
        "Categorical operator for one-hot data with any network (option network)",
        defaults=_CATEGORICAL,
        preset={"network": {"name": "mlp", "hidden": 128, "depth": 2}},
    )


def _gaussian(name: str, network: str, summary: str) -> Component:
    """The Gaussian operator with a built-in network."""
    preset = {"network": {"name": network}, "temperature_law": {"name": "variance"}}
    target = "walkback_paper.gaussian:Gaussian"
    return Component(name, target, summary, defaults=_GAUSSIAN, preset=preset, renamed=_RENAMED)


def _bernoulli(name: str, network: str, summary: str) -> Component:
    """The Bernoulli operator with a built-in network."""
    preset = {"network": {"name": network}}
    target = "walkback_paper.bernoulli:Bernoulli"
    return Component(name, target, summary, defaults=_BERNOULLI, preset=preset, renamed=_RENAMED)


@hookimpl
def walkback_temperature_laws() -> Iterable[Component]:
    """Temperature laws: what T multiplies."""
    yield Component("variance", "walkback.temperature:VarianceLaw", "T multiplies the variance (Algorithm 1)")
    yield Component(
        "std",
        "walkback.temperature:StandardDeviationLaw",
        "T multiplies the standard deviation (section 3.3)",
    )


@hookimpl
def walkback_schedules() -> Iterable[Component]:
    """Algorithm 1's schedule, those of the paper's experiments, and plain lists."""
    yield Component(
        "doubling",
        "walkback_paper.schedules:DoublingSchedule",
        "n + 1 steps at T = 1, then T doubles up to T_max; n uniform in 0..N1 (Algorithm 1)",
    )
    yield Component(
        "geometric",
        "walkback_paper.schedules:GeometricSchedule",
        "n + 1 steps at T = 1, then T grows by a factor up to T_max; n uniform in 0..N1",
    )
    yield Component(
        "sqrt2",
        "walkback_paper.schedules:Sqrt2Schedule",
        "T = 1, √2, 2, … for a fixed number of steps (appendix F)",
    )
    yield Component(
        "constant",
        "walkback_paper.schedules:ConstantSchedule",
        "All steps at one temperature, plus n further steps; n uniform in 0..N1",
    )
    yield Component(
        "explicit", "walkback_paper.schedules:ExplicitSchedule", "An explicit list of temperatures"
    )


@hookimpl
def walkback_priors() -> Iterable[Component]:
    """Factorized priors: two track the last states of the heating walks, two are fixed."""
    yield Component(
        "gaussian", "walkback_paper.priors:GaussianPrior", "Diagonal Gaussian with the tracked moments of s_K"
    )
    yield Component(
        "bernoulli", "walkback_paper.priors:BernoulliPrior", "Independent bits with the tracked means of s_K"
    )
    yield Component(
        "broad-gaussian",
        "walkback_paper.priors:BroadGaussianPrior",
        "Fixed isotropic Gaussian with the data's mean and its largest variance",
    )
    yield Component("fair-bits", "walkback_paper.priors:FairBitsPrior", "Fixed independent fair coins")
    symbols = "walkback_paper.symbol_priors"
    yield Component(
        "categorical",
        f"{symbols}:CategoricalPrior",
        "Independent symbols with the tracked frequencies of s_K",
    )
    yield Component("uniform-symbols", f"{symbols}:UniformSymbolsPrior", "Fixed equally likely symbols")


@hookimpl
def walkback_processes() -> Iterable[Component]:
    """The tied walk, and that of an operator's linear part."""
    yield Component("tied", "walkback.processes:TiedProcess", "Heat with the operator itself (Algorithm 1)")
    yield Component(
        "linear",
        "walkback_paper.linear_walk:LinearWalk",
        "Heat with the linear part of an operator around the linear mean; learns from jumps",
        defaults={
            "operator": {"mean": "linear", "basis": "auto"},
            "prior": {"name": "gaussian", "basis": "auto"},
            "objective": {"name": "kl"},
            "training": {"updates": "online"},
        },
    )


@hookimpl
def walkback_objectives() -> Iterable[Component]:
    """The paper's local rule, and the bound."""
    yield Component(
        "walkback",
        "walkback_paper.objectives:WalkbackLoss",
        "-log p_T(s_{t-1} | s_t), the paper's local rule",
    )
    yield Component(
        "conditional",
        "walkback_paper.conditional:ConditionalLoss",
        "The local rule with E[s_{t-1} | s_t, example] as the target of the mean, without the walk's noise",
    )
    yield Component(
        "elbo",
        "walkback_paper.objectives:NegativeBound",
        "The full bound, including -log q and log p*, differentiated through the walk",
    )


@hookimpl
def walkback_recipes() -> Iterable[Recipe]:
    """Complete settings by name: the paper's, and those that learn best."""
    for name, summary, default in _RECIPES:
        yield Recipe(name, f"walkback_paper:recipes/{name}.toml", summary, default=default)
