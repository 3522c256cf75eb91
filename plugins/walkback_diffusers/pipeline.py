"""A `DDPMPipeline` as a model of walkback.

    its images  x in [-1, 1]        states  s = (x + 1) / 2,   m = ½,   σ_d = ½

    T_t = log(1 - β_t) / log(1 - β_1),    σ² = -σ_d² log(1 - β_1)     so that T_t σ²/σ_d² = -log(1 - β_t)

The timestep of its network is t - 1, the place of log₂ τ_t in a table. Its first step adds no noise; the variance of
the decoder -log p(s_0 | s_1) is κ v_1 with κ = β_2 / (1 - ᾱ_2), the variance of the second step, as in Ho et al. (2020)
and Nichol and Dhariwal (2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from walkback_diffusers.folder import Pipeline, Prediction, VarianceType

_CENTER, _DEVIATION = 0.5, 0.5
_ONE_STEP = 0.5  # κ of a single step, which has no second one

_MEANS: Mapping[Prediction, str] = {"epsilon": "epsilon", "sample": "x", "v_prediction": "v"}
_VARIANCES: Mapping[VarianceType, str] = {
    "fixed_small": "fixed",
    "fixed_small_log": "fixed",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned": "direct",
    "learned_range": "range",
}


def components(pipeline: Pipeline) -> dict[str, str]:
    """Returns the names of the components of a model, by section."""
    return {
        "operator": "gaussian",
        "schedule": "explicit",
        "process": "diffusion",
        "prior": "broad-gaussian",
        "data": f"real:{','.join(map(str, pipeline.shape))}",
    }


def settings(pipeline: Pipeline, betas: Tensor) -> dict[str, Any]:
    """Returns the options of the components, for β_t `(K,)`."""
    scheduler = pipeline.scheduler
    network = {"name": "diffusers-unet", **pipeline.options, "num_train_timesteps": len(betas)}
    found: dict[str, Any] = {
        "operator.network": network,
        "operator.mean": _MEANS[scheduler.prediction_type],
        "operator.variance": _VARIANCES[scheduler.variance_type],
        "operator.diffusion": "preserving",
        "operator.sigma": _variance(betas) ** 0.5,
        "schedule.temperatures": _temperatures(betas).tolist(),
        "process.noise": "preserving",
        "prior.std": _DEVIATION,
    }
    if scheduler.clip_sample:
        reach = _DEVIATION * scheduler.clip_sample_range
        found["operator.clip"] = [_CENTER - reach, _CENTER + reach]
    return found


def tensors(pipeline: Pipeline, betas: Tensor) -> dict[str, Tensor]:
    """Returns the parameters and buffers of the components."""
    unet = {f"operator.network.unet.{name}": weight for name, weight in pipeline.weights.items()}
    noise = {
        "variance": _number(_variance(betas)),
        "center": _number(_CENTER),
        "spread": _number(_DEVIATION**2),
    }
    own = {
        "operator.network.log2_times": _temperatures(betas).cumsum(0).log2(),
        "operator.parametrization.first_share": _number(_first_share(betas)),
        "operator.parametrization.max_variance": _number(_DEVIATION**2),
        "prior.mean": torch.full(pipeline.shape, _CENTER),
        "prior.std": torch.tensor(_DEVIATION),
    }
    for prefix in ("operator.parametrization.noise_model", "process.noise"):
        own |= {f"{prefix}.{name}": value for name, value in noise.items()}
    return unet | own


def _temperatures(betas: Tensor) -> Tensor:
    """Returns T_t, `(K,)`."""
    rates = torch.log1p(-betas)
    return rates / rates[0]


def _variance(betas: Tensor) -> float:
    """Returns σ²."""
    return -(_DEVIATION**2) * torch.log1p(-betas[0]).item()


def _first_share(betas: Tensor) -> float:
    """Returns κ."""
    if len(betas) == 1:
        return _ONE_STEP
    both = -torch.log1p(-betas[:2]).sum().expm1()
    return (betas[1] / both).item()


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
