"""What is shown of a state: the state itself, or where a step from it leads to on the average.

    state     s
    mean      E[s' | s],   s' ~ p_1(· | s)
    mean@T    E[s' | s],   s' ~ p_T(· | s)

Every step adds noise. Where the data have none, as the paper behind a digit, states carry that of their last step, and
the mean is the state without it: what denoising autoencoders and generative stochastic networks are shown by. A step
at T forgets directions thinner than its noise, so its mean is free of noise of variance σ²T: of data that were smoothed
by noise ν, T = ν²/σ² shows what was smoothed. The chain itself is not touched, and goes on from the states.
"""

from __future__ import annotations

import torch
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import expectation
from walkback.model import Model
from walkback.operators import TransitionOperator, visible
from walkback.schedules import Level
from walkback.state import Context, State
from walkback.support.readouts import Readout, readout_temperature
from walkback.support.seeding import generator


@torch.no_grad()
def read_out(operator: TransitionOperator, state: State, readout: Readout, context: Context = None) -> Tensor:
    """What is shown of states `(B, *E)`: the data part, `(B, *E)`.

    Args:
        operator: In evaluation mode.
        state: Of its chain.
        readout: See the module's equations.
        context: What the rows of `state` are conditioned on.

    Raises:
        ConfigurationError: There is no such readout, or the operator's kernels do not tell their mean.
    """
    try:
        temperature = readout_temperature(readout)
    except ValueError as error:
        raise ConfigurationError(f"Got readout = {readout!r}, {error}.") from error
    if temperature is None:
        return visible(operator, state)
    level = Level(1, temperature)
    kernel = operator(state, level, context).cooling(level)
    mean = expectation(kernel)
    if mean is None:
        raise ConfigurationError(
            f'Got readout "{readout}" with kernels of type {type(kernel).__name__}, which do not tell their mean; '
            'expected readout "state" (or kernels that derive from walkback.kernels.Expecting).'
        )
    return visible(operator, mean)


def require_readout(model: Model, readout: Readout) -> None:
    """Refuse, before any work, a readout that is unknown or that the model's kernels do not have.

    Raises:
        ConfigurationError: It is one of these.
    """
    with model.evaluating():
        state = model.prior.sample(1, generator(model.device, 0, "readout"))
        read_out(model.operator, state, readout)
