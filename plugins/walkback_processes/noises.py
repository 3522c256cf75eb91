"""The noise of a process whose kind follows the states, and whose size follows the operator.

auto         flips for bits, symbols for one-hot symbols, else exploding
exploding    Gaussian noise with the variance T σ² of the operator, `walkback.noising.gaussian`
preserving   the same, and the state shrinks so that the variance of the data stays
flips        bits, replaced by uniform ones, `walkback.noising.discrete`
symbols      one-hot symbols, the same
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, final

import torch
from pydantic import Field
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.noising import BitNoise, GaussianNoise, SymbolNoise
from walkback.noising.gaussian import FORGOTTEN
from walkback.operators import Noisy, TransitionOperator
from walkback.schedules import Level
from walkback.state import Space, Support
from walkback.support.readings import Numbers
from walkback.walk import Start

Positive: TypeAlias = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NoiseName: TypeAlias = Literal["auto", "exploding", "preserving", "flips", "symbols"]

AnyNoise: TypeAlias = GaussianNoise | BitNoise | SymbolNoise

_SUPPORTS: tuple[Support, ...] = ("real", "binary", "one-hot")


def operator_variance(operator: TransitionOperator) -> Tensor:
    """Return σ² of an operator's noise at T = 1, averaged over entries, a scalar in float64.

    Raises:
        ConfigurationError: The operator's noise is unknown, or does not grow like the temperature.
    """
    if not isinstance(operator, Noisy):
        raise ConfigurationError(
            f"The size of the noise of {type(operator).__name__} is not known: set process.sigma."
        )
    cold, hot = (operator.noise(Level(1, temperature)).double() for temperature in (1.0, 4.0))
    if not torch.allclose(hot, 4 * cold, rtol=1e-4):
        raise ConfigurationError(
            "Got a temperature law with which T does not multiply the variance, expected "
            "operator.temperature_law = 'variance': the noise of this process grows like the temperature."
        )
    return cold.mean()


def forgetting_temperature(noise: AnyNoise, numbers: Numbers) -> float | None:
    """Return the T at which a single step forgets the state; None if noise explodes, for which it is the operator's.

    Args:
        noise: The noise.
        numbers: Reads the buffers of Gaussian noise.
    """
    if not isinstance(noise, GaussianNoise):
        return max(1.0, FORGOTTEN / noise.rate)
    if noise.form == "exploding":
        return None
    spread, variance = numbers(noise.spread, noise.variance)
    return max(1.0, FORGOTTEN * spread / variance)


def require_support(name: str, wanted: Support, start: Start) -> None:
    """Raise ConfigurationError unless states are of the noise's support, as far as the prior of `start` tells."""
    if start.prior is None:
        return
    space = start.prior.space
    if not isinstance(space, Space) or space.support != wanted:
        found = "several tensors" if isinstance(space, tuple) else f"{space.support} values"
        raise ConfigurationError(
            f"Got states of {found} for process.noise = '{name}', expected one tensor of {wanted} values: "
            "choose 'exploding' or 'preserving' for numbers, 'flips' for bits, 'symbols' for one-hot symbols."
        )


@final
class ChosenNoise(nn.Module):
    """Noise of a chosen kind; see the module's docstring.

    Args:
        name: Kind of noise.
        sigma: σ, standard deviation of Gaussian noise at T = 1; None takes the operator's.
        rate: r, rate at which bits or symbols are replaced at T = 1.
    """

    kind: Tensor

    def __init__(self, name: NoiseName, sigma: float | None, rate: float) -> None:
        super().__init__()
        self._name: NoiseName = name
        self._sigma = sigma
        form: Literal["exploding", "preserving"] = "preserving" if name == "preserving" else "exploding"
        self.gaussian = GaussianNoise(form, variance=(sigma or 1.0) ** 2)
        self._discrete = (BitNoise(rate), SymbolNoise(rate))
        number = {"flips": 1.0, "symbols": 2.0}.get(name, 0.0)
        self.register_buffer("kind", torch.tensor(number, dtype=torch.float64))
        self._kind, self._numbers = Numbers(), Numbers()

    @property
    def current(self) -> AnyNoise:
        """The noise."""
        number = self._number
        return self._discrete[number - 1] if number else self.gaussian

    @property
    def max_temperature(self) -> float | None:
        """The operator's if noise explodes; else the T at which a single step forgets the state."""
        return forgetting_temperature(self.current, self._numbers)

    @torch.no_grad()
    def fit_data(self, data: Tensor) -> None:
        """Choose the kind from examples `(N, *E)`, and set the center and variance that are preserved."""
        self.gaussian.fit_data(data)
        if self._name == "auto":
            zeros_and_ones = bool(((data == 0) | (data == 1)).all())
            one_hot = data.dim() > 2 and bool((data.sum(-1) == 1).all())
            self.kind.fill_(0 if not zeros_and_ones else 2 if one_hot else 1)

    @torch.no_grad()
    def fit_operator(self, operator: TransitionOperator) -> None:
        """Set σ to the operator's, unless it is an option.

        Raises:
            ConfigurationError: The operator's noise is unknown, or does not grow like the temperature.
        """
        if self._name == "auto" and isinstance(operator, Noisy):
            self.kind.fill_(0)
        if self._number or self._sigma is not None:
            return
        self.gaussian.variance.copy_(operator_variance(operator))

    def require_fitting(self, start: Start) -> None:
        """Raise ConfigurationError unless the noise is that of the states, as far as the prior of `start` tells."""
        require_support(self._name, _SUPPORTS[self._number], start)

    @property
    def _number(self) -> int:
        return int(self._kind(self.kind, self.kind)[0])
