"""Visible and latent units, updated in turn (section 6.5 of the paper).

    s = (v, h),   v in R^E,   h in {0, 1}^H,   s_0 = (data, h_0),   h_0 ~ q(h | data)

    heating   v' ~ N(a v, T σ²),              then h' ~ q_T(h | v') = Bern(γ (W v' + c) / T)          q fixed
    cooling   h' ~ softmax(g(v, log T)),       then v' ~ N(a² v + b f(v, h', log T), T σ² r(v, h', log T))

around the data's mean, with a² = σ_d² / (T σ² + σ_d²) and b² = T σ² a². At every level h is a draw from the posterior
given the v beside it, as the paper asks of h_0: the bound of a walk is that of v alone, less the sum over steps of
KL(q(h | v_{t-1}) || p(h | v_{t-1}, v_t)), in which p(h | …) is what cooling believes of a code.

The posterior is H soft half-planes with random directions and offsets, and is not learned: the walkback rule has no
gradient through samples, and a posterior that were learned by log p alone would make h ever easier to predict, until it
says nothing. What is learned is the way back: which h a state came from, and which v, given that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, final

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.kernels import Kernel, bernoulli_at, normal_at
from walkback.operators import Conditional, DataAware, Latent, TransitionOperator
from walkback.schedules import Level
from walkback.state import Context, Space, State, StateSpace, leaves
from walkback.support.constraints import Constrained, Constraint, positive
from walkback_latent.kernel import BlockedKernel, CodeKernel

_SHARPNESS = 6.0
_COLD = Level(1, 1.0)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers; the outputs are 0 at first."""
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        *(nn.Linear(inputs, hidden), nn.SiLU()), *(nn.Linear(hidden, hidden), nn.SiLU()), last
    )


@final
class Blocked(TransitionOperator, DataAware, Latent, Constrained):
    """Gaussian visible units with binary latent ones; see the module's equations.

    Args:
        space: One real tensor.
        latents: H, number of latent bits.
        sigma: σ, standard deviation of the noise at T = 1, in the units of the data.
        hidden: Units of each layer of both networks.

    Raises:
        ConfigurationError: The data are binary, or have parts.
    """

    directions: Tensor
    offsets: Tensor
    noise_variance: Tensor
    data_mean: Tensor
    data_variance: Tensor
    max_variance: Tensor

    def __init__(
        self,
        space: StateSpace,
        *,
        latents: Annotated[int, Field(ge=1, le=8)] = 4,
        sigma: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 0.05,
        hidden: PositiveInt = 128,
    ) -> None:
        super().__init__()
        if isinstance(space, tuple) or space.support != "real":
            raise ConfigurationError("Got binary or composite data for 'blocked', expected one real tensor.")
        self._space, self._latents = space, latents
        self.code = mlp(space.size + 1, hidden, 2**latents)
        self.network = mlp(space.size + latents + 1, hidden, 2 * space.size)
        self.register_buffer("directions", nn.functional.normalize(torch.randn(latents, space.size)))
        self.register_buffer("offsets", torch.randn(latents))
        self.register_buffer("noise_variance", torch.full((1,) * (len(space.shape) + 1), sigma**2))
        self.register_buffer("data_mean", torch.zeros(space.shape))
        self.register_buffer("data_variance", torch.ones(()))
        self.register_buffer("max_variance", torch.ones(()))

    @property
    def state_space(self) -> StateSpace:
        """Data, and H bits."""
        return self._space, Space((self._latents,), "binary")

    @property
    def max_temperature(self) -> float:
        """σ_max² / σ²."""
        return max(1.0, (self.max_variance / self.noise_variance).item())

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """Variances are positive; a checkpoint in which they are not is refused."""
        return dict.fromkeys(("noise_variance", "data_variance", "max_variance"), positive)

    @torch.no_grad()
    def fit_data(self, data: Tensor) -> None:
        """Take m, σ_d² and the variance in the widest direction from examples `(N, *E)`."""
        rows = (data - data.mean(0)).flatten(1).double()
        self.data_mean.copy_(data.mean(0))
        self.data_variance.copy_(rows.square().mean().clamp(min=1e-10))
        self.max_variance.copy_(torch.linalg.matrix_norm(rows, ord=2).square() / len(rows))

    def initial_state(self, data: Tensor, generator: torch.Generator) -> tuple[State, Tensor]:
        """h_0 ~ q(h | data) at T = 1."""
        posterior = bernoulli_at(self.posterior_logits(data), _COLD)
        h = posterior.sample(generator)
        return (data, h), posterior.log_prob(h)

    def visible(self, state: State) -> Tensor:
        """v."""
        return leaves(state)[0]

    def posterior_logits(self, v: Tensor) -> Tensor:
        """Of q(h | v) at T = 1, `(B, H)`."""
        rows = (v - self.data_mean).flatten(1) / self.data_variance.sqrt()
        return _SHARPNESS * (rows @ self.directions.T + self.offsets)

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        """The kernels at (v, h) `(B, *E)`, `(B, H)`; they look at v alone, and at the h' that they draw."""
        v, _ = leaves(state)
        noise = self.noise_variance * level.temperature_like(v)
        shrink = self.data_variance / (noise + self.data_variance)
        return BlockedConditional(self, v, level, shrink)


@final
class BlockedConditional(Conditional):
    """The operator at v, which was met at `level`."""

    def __init__(self, operator: Blocked, v: Tensor, level: Level, shrink: Tensor) -> None:
        self._operator, self._v, self._shrink = operator, v, shrink
        rows = (v - operator.data_mean).flatten(1) / operator.data_variance.sqrt()
        log_t = level.temperature_like(rows).log().expand(len(rows), 1)
        self._seen = torch.cat([rows * shrink.sqrt().reshape(-1, 1), log_t], dim=1)
        self._scale = (operator.noise_variance * level.temperature_like(v) * shrink).sqrt()
        self._code = operator.code(self._seen).to(v.dtype)

    def heating(self, level: Level) -> Kernel:
        """v' from v, then h' from v': neither is learned."""
        at = self._operator
        mean = at.data_mean + self._shrink.sqrt() * (self._v - at.data_mean)
        return BlockedKernel(
            "v",
            normal_at(mean, at.noise_variance, level),
            lambda v: bernoulli_at(at.posterior_logits(v), level),
        )

    def cooling(self, level: Level) -> Kernel:
        """h' from v, then v' from both."""
        return BlockedKernel(
            "h",
            CodeKernel(self._code),
            lambda h: self._visible(h, level),
        )

    def _visible(self, h: Tensor, level: Level) -> Kernel:
        at = self._operator
        outputs = at.network(torch.cat([self._seen, h], dim=1)).to(self._v.dtype)
        shift, log_ratio = (part.reshape(self._v.shape) for part in outputs.chunk(2, dim=1))
        mean = at.data_mean + self._shrink * (self._v - at.data_mean) + self._scale * shift
        return normal_at(mean, at.noise_variance * log_ratio.exp(), level)
