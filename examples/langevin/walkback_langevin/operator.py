"""Langevin steps down a learned energy.

    s' = s - ½ v ∇E_T(s) + √v ε,   v = T σ²,   ε ~ N(0, I)                      heating; cooling has √(v r_T) ε

    E_T(s) = ½ |x|² + (σ_d / √v) f(x, log T),   x = (s - m) / σ_d

f is a small network; m and σ_d² are the data's mean and its variance per dimension, so that with f = 0 the operator is
Langevin dynamics in the best isotropic Gaussian. The factor before f makes its share of the drift, ½ √v ∇f, as large as
the noise at every temperature. r_T > 0 is learned, one number a level.

As σ → 0 the chain at T = 1 has the density exp(-E_1) / Z, and with a rejection step it would be MALA at any σ: here
nothing is rejected, the operator learns to make up for the length of its steps.

The drift is the gradient of a scalar, so its Jacobian, the Hessian of E, is symmetric whatever is learned: the drift
itself drives no circulation. ∇E is computed inside the forward, also where gradients are off (sampling); in training
the graph of ∇E is kept, and the loss is differentiated through it a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, final

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, normal_at
from walkback.operators import Conditional, DataAware, TransitionOperator
from walkback.schedules import Level
from walkback.state import Context, State, StateSpace, leaves
from walkback.support.constraints import Constrained, Constraint, positive


@final
class LangevinConditional(Conditional):
    """Mean `(B, *E)`, σ², and log r_T `(1 or B, 1, …)` of cooling."""

    def __init__(self, mean: Tensor, variance: Tensor, log_ratio: Tensor) -> None:
        self._mean, self._variance, self._log_ratio = mean, variance, log_ratio

    def cooling(self, level: Level) -> Kernel:
        """N(s - ½ v ∇E, v r_T)."""
        return normal_at(self._mean, self._variance * self._log_ratio.exp(), level)

    def heating(self, level: Level) -> Kernel:
        """N(s - ½ v ∇E, v): the noise of heating is not learned."""
        return normal_at(self._mean, self._variance, level)


@final
class Langevin(TransitionOperator, DataAware, Constrained):
    """Gaussian operator whose drift is minus the gradient of an energy; see the module's equations.

    Args:
        space: One real tensor of any shape.
        sigma: σ, standard deviation of the noise at T = 1, in the units of the data.
        hidden: Units of each of the two layers of f.

    Raises:
        ConfigurationError: The data are binary, or the state has several parts.
    """

    noise_variance: Tensor
    data_mean: Tensor
    data_variance: Tensor
    max_variance: Tensor

    def __init__(
        self,
        space: StateSpace,
        *,
        sigma: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 0.05,
        hidden: PositiveInt = 128,
    ) -> None:
        super().__init__()
        if isinstance(space, tuple) or space.support != "real":
            raise ConfigurationError("Got binary or composite data for 'langevin', expected one real tensor.")
        self.network = nn.Sequential(
            *(nn.Linear(space.size + 1, hidden), nn.SiLU()),
            *(nn.Linear(hidden, hidden), nn.SiLU()),
            nn.Linear(hidden, 1, bias=False),
        )
        self.log_ratio = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 1))
        for linear in (self.network[-1], self.log_ratio[-1]):
            nn.init.zeros_(linear.get_parameter("weight"))  # at first f = 0
        nn.init.zeros_(self.log_ratio[-1].get_parameter("bias"))  # and r = 1
        self.register_buffer("noise_variance", torch.full((1,) * (len(space.shape) + 1), sigma**2))
        self.register_buffer("data_mean", torch.zeros(space.shape))
        self.register_buffer("data_variance", torch.ones(()))
        self.register_buffer("max_variance", torch.ones(()))

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """Variances are positive; a checkpoint in which they are not is refused."""
        return dict.fromkeys(("noise_variance", "data_variance", "max_variance"), positive)

    @torch.no_grad()
    def fit_data(self, data: Tensor) -> None:
        """Take m, σ_d² and the variance in the widest direction from examples `(N, *E)`."""
        rows = data.flatten(1).double()
        widest = torch.linalg.matrix_norm(rows - rows.mean(0), ord=2).square() / len(rows)
        self.data_mean.copy_(data.mean(0))
        self.data_variance.copy_((data - self.data_mean).square().mean().clamp(min=1e-10))
        self.max_variance.copy_(widest)

    @property
    def max_temperature(self) -> float:
        """σ_max² / σ²."""
        return max(1.0, (self.max_variance / self.noise_variance).item())

    def energy(self, state: Tensor, level: Level) -> Tensor:
        """E_T(s) up to a constant, `(B,)`, nats."""
        x = (state - self.data_mean).flatten(1) / self.data_variance.sqrt()
        temperature = level.temperature_like(x)
        log_t = temperature.log().expand(len(x), 1)
        scale = (self.data_variance / (temperature * self.noise_variance.flatten())).sqrt()
        # The energy stays in the state's precision whatever autocast does to the network.
        learned = self.network(torch.cat([x, log_t], dim=1)).to(x.dtype)
        energy: Tensor = 0.5 * x.square().sum(1) + (scale * learned)[:, 0]
        return energy

    def gradient(self, state: Tensor, level: Level) -> Tensor:
        """∇E_T(s), `(B, *E)`; differentiable once more where gradients are on."""
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            position = state if state.requires_grad else state.detach().requires_grad_()
            energy = self.energy(position, level).sum()
            (gradient,) = torch.autograd.grad(energy, position, create_graph=training)
        return gradient

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        """The kernels at `state` `(B, *E)`."""
        (s,) = leaves(state)
        variance = self.noise_variance * level.temperature_like(s)
        ratio = self.log_ratio(level.temperature_like(s).flatten().log()[:, None]).to(s.dtype)
        mean = s - 0.5 * variance * self.gradient(s, level)
        return LangevinConditional(mean, self.noise_variance, ratio.reshape(-1, *(1,) * (s.dim() - 1)))
