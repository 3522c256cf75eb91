"""A `DDPMPipeline` as a model of walkback.

Its images have x = 2 v/(n - 1) - 1 for gray levels v = 0 … n - 1. States s = m + σ_d x are such that level v is
[v/n, (v + 1)/n), as in dequantized data, and x its middle:

    m = ½,   σ_d = (n - 1) / 2n                     ½ if there are no gray levels

    σ² = -σ_d² log(1 - β_1)         T_t σ²/σ_d² = -log(1 - β_t)

Noise starts from the middle of a level, and the last step is discretized. The timestep of the network is t - 1, the
place of log₂ τ_t in a table. The last step of a pipeline adds no noise; the variance of p(s_0 | s_1) is κ v_1 with
κ = β_2 / (1 - ᾱ_2), that of q(s_1 | s_2, s_0), as in Ho et al. (2020) and Nichol and Dhariwal (2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from walkback_diffusers.folder import Pipeline, Prediction, VarianceType

_CENTER = 0.5
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
        "schedule": "betas",
        "process": "diffusion",
        "prior": "broad-gaussian",
        "data": f"real:{','.join(map(str, pipeline.shape))}",
    }


@final
class Units:
    """β_t `(K,)`, and the scale of states for n gray levels; None for images that are not quantized."""

    def __init__(self, betas: Tensor, gray_levels: int | None) -> None:
        self.betas = betas
        self.gray_levels = gray_levels
        self.deviation = 0.5 if gray_levels is None else (gray_levels - 1) / (2 * gray_levels)

    @property
    def variance(self) -> float:
        """σ²."""
        return -(self.deviation**2) * torch.log1p(-self.betas[0]).item()

    @property
    def log2_times(self) -> Tensor:
        """log₂ τ_t, `(K,)`."""
        rates = torch.log1p(-self.betas)
        return (rates / rates[0]).cumsum(0).log2()

    @property
    def first_share(self) -> float:
        """κ."""
        if len(self.betas) == 1:
            return _ONE_STEP
        both = -torch.log1p(-self.betas[:2]).sum().expm1()
        return (self.betas[1] / both).item()


def settings(pipeline: Pipeline, units: Units) -> dict[str, Any]:
    """Returns the options of the components."""
    scheduler = pipeline.scheduler
    network = {"name": "diffusers-unet", **pipeline.options, "num_train_timesteps": len(units.betas)}
    found: dict[str, Any] = {
        "operator.network": network,
        "operator.mean": _MEANS[scheduler.prediction_type],
        "operator.variance": _VARIANCES[scheduler.variance_type],
        "operator.diffusion": "preserving",
        "operator.sigma": units.variance**0.5,
        "schedule.betas": units.betas.tolist(),
        "process.noise": "preserving",
        "prior.std": units.deviation,
    }
    if scheduler.clip_sample:
        reach = units.deviation * scheduler.clip_sample_range
        found["operator.clip"] = [_CENTER - reach, _CENTER + reach]
    if units.gray_levels is not None:
        found["operator.last"] = "discretized"
        found["process.middles"] = found["data.bins"] = units.gray_levels
    return found


def tensors(pipeline: Pipeline, units: Units) -> dict[str, Tensor]:
    """Returns the parameters and buffers of the components."""
    unet = {f"operator.network.unet.{name}": weight for name, weight in pipeline.weights.items()}
    noise = {
        "variance": _number(units.variance),
        "center": _number(_CENTER),
        "spread": _number(units.deviation**2),
    }
    own = {
        "operator.network.log2_times": units.log2_times,
        "operator.parametrization.first_share": _number(units.first_share),
        "operator.parametrization.max_variance": _number(units.deviation**2),
        "prior.mean": torch.full(pipeline.shape, _CENTER),
        "prior.std": torch.tensor(units.deviation),
    }
    for prefix in ("operator.parametrization.noise_model", "process.noise"):
        own |= {f"{prefix}.{name}": value for name, value in noise.items()}
    return unet | own


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
