"""Readouts: show a state itself, or the mean of one step from it.

    state     s
    mean      E[s' | s],   s' ~ p_1(· | s)
    mean@T    E[s' | s],   s' ~ p_T(· | s)

Every step adds noise, so states carry the noise of their last step even where the data have none, such as the
background of a digit. The mean removes it; samples of denoising autoencoders and generative stochastic networks are
shown in the same way. A step at T forgets directions thinner than its noise, so its mean is free of noise of variance
σ²T: for data that were smoothed by noise ν, T = ν²/σ² shows the data before smoothing. The readout does not affect the
chain, which continues from the states.
"""

from __future__ import annotations

import torch
from torch import Tensor

from walkback.errors import ConfigurationError
from walkback.kernels import expectation
from walkback.model import Model
from walkback.operators import TransitionOperator, visible
from walkback.sampling.wrapped import single
from walkback.schedules import Level
from walkback.state import Context, State
from walkback.support.readouts import Readout, readout_temperature
from walkback.support.seeding import generator


@torch.no_grad()
def read_out(operator: TransitionOperator, state: State, readout: Readout, context: Context = None) -> Tensor:
    """Return the readout of states `(B, *E)`: the data part, `(B, *E)`.

    Args:
        operator: The operator in evaluation mode.
        state: States of its chain.
        readout: See the module's equations.
        context: Context that the rows of `state` are conditioned on.

    Raises:
        ConfigurationError: The readout is unknown, or the operator's kernels have no mean in closed form.
    """
    try:
        temperature = readout_temperature(readout)
    except ValueError as error:
        raise ConfigurationError(f"Got readout = {readout!r}, {error}.") from error
    if temperature is None:
        return visible(operator, state)
    level = Level(1, temperature)
    kernel = single(operator)(state, level, context).cooling(level)
    mean = expectation(kernel)
    if mean is None:
        raise ConfigurationError(
            f'Got readout "{readout}" with kernels of type {type(kernel).__name__}, which do not report their mean; '
            'expected readout "state" (or kernels that derive from walkback.kernels.Expecting).'
        )
    return visible(operator, mean)


def require_readout(model: Model, readout: Readout) -> None:
    """Check, before any work, that the readout is valid and that the model's kernels support it.

    Raises:
        ConfigurationError: The readout is unknown, or the operator's kernels have no mean in closed form.
    """
    with model.evaluating():
        # One state from the prior is enough: whether a kernel has a mean depends on its class.
        state = model.prior.sample(1, generator(model.device, 0, "readout"))
        read_out(model.operator, state, readout)
