"""Laws of networks: the requested number of outputs, each shaped like the state; rows do not affect one another.

A new network may return zeros (heads are often initialized to zero). Its weights are perturbed first, so that no law
holds just because of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from walkback.networks import Network, Ports, Told
from walkback.state import Space, StateSpace, leaves, spaces
from walkback.support.seeding import generator
from walkback.testing.cases import Case, ConformanceError, NotApplicable, Suite
from walkback.testing.probes import (
    accepted,
    data_like,
    drawn_from,
    require_close,
    require_state,
    same,
    through_file,
    untouched,
)

NETWORKS = Suite()

_ROWS = 5
_CLASSES = 3
_HEADS = (1, 2, 3)


def _spaces(case: Case) -> list[StateSpace]:
    """Return the case's spaces as spaces of one tensor each: a network takes a single tensor."""
    return [leaf for space in case.spaces for leaf in spaces(space)]


def _module(case: Case, ports: Ports, seed: int = 0) -> nn.Module:
    network: Network = case.build("network")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = network.build(ports)
    if not isinstance(module, nn.Module):
        raise ConformanceError(f"Got {type(module).__name__} of build, expected a torch.nn.Module.")
    return module


def _modules(case: Case, heads: int = 2, classes: int = 0) -> Iterator[tuple[Space, nn.Module]]:
    """Yield a module on each space that the network accepts, with perturbed weights, in evaluation mode."""

    def build(space: StateSpace) -> nn.Module:
        (leaf,) = spaces(space)
        return _module(case, Ports(leaf.shape, heads, classes))

    for space, module in accepted(case, build, _spaces(case)):
        (leaf,) = spaces(space)
        _stir(module)
        yield leaf, module.eval()


@torch.no_grad()
def _stir(module: nn.Module) -> None:
    noise = generator("cpu", 0, "weights")
    for weight in module.parameters():
        weight.add_(0.02 * torch.randn(weight.shape, generator=noise).to(weight))


def _state(space: Space, rows: int = _ROWS) -> Tensor:
    return leaves(data_like(space, rows))[0]


def _temperatures(rows: int) -> Tensor:
    return torch.linspace(0.0, 4.0, rows)


def _run(module: nn.Module, state: Tensor, told: Told) -> tuple[Tensor, ...]:
    outputs = module(state, told)
    if not isinstance(outputs, tuple) or not all(isinstance(output, Tensor) for output in outputs):
        raise ConformanceError(
            f"Got {type(outputs).__name__} from a network, expected a tuple of tensors, one per head: `(output,)` for "
            "one head."
        )
    return outputs


@NETWORKS.check("builds", "it is a network, built from its options, that builds modules for points or images")
def _builds(case: Case) -> None:
    for _ in _modules(case):
        pass


@NETWORKS.check("shapes", "there is one output per head, each (B, *E) and finite, for every B, in float32")
@torch.no_grad()
def _shapes(case: Case) -> None:
    for heads in _HEADS:
        for space, module in _modules(case, heads):
            for rows in (1, 2, _ROWS):
                for temperature in (torch.zeros(1), _temperatures(rows)):
                    outputs = _run(module, _state(space, rows), Told(temperature))
                    if len(outputs) != heads:
                        raise ConformanceError(f"Got {len(outputs)} outputs, expected {heads}, one per head.")
                    for output in outputs:
                        require_state(output, Space(space.shape), rows, "an output")


@NETWORKS.check("rows-alone", "in evaluation mode the outputs of a row do not depend on other rows")
@torch.no_grad()
def _rows_alone(case: Case) -> None:
    for space, module in _modules(case):
        state, told = _state(space), Told(torch.ones(1))
        together = _run(module, state, told)
        for row in range(_ROWS):
            for output, alone in zip(together, _run(module, state[row : row + 1], told), strict=True):
                require_close(
                    output[row],
                    alone[0],
                    "the outputs of a row must not depend on other rows: chains in one batch are independent",
                )


@NETWORKS.check("row-levels", "rows at different temperatures have the same outputs as on their own")
@torch.no_grad()
def _row_levels(case: Case) -> None:
    for space, module in _modules(case):
        state, temperatures = _state(space), _temperatures(_ROWS)
        together = _run(module, state, Told(temperatures))
        for row in range(_ROWS):
            own = slice(row, row + 1)
            for output, alone in zip(
                together, _run(module, state[own], Told(temperatures[own])), strict=True
            ):
                require_close(
                    output[row],
                    alone[0],
                    "an output changes if rows are at different temperatures: log2_temperature is (1,) or (B,)",
                )


@NETWORKS.check(
    "repeats", "in evaluation mode equal states have equal outputs, independent of global randomness"
)
@torch.no_grad()
def _repeats(case: Case) -> None:
    for space, module in _modules(case):
        run = partial(_run, module, _state(space))
        drawn_from(lambda _, run=run: run(Told(torch.zeros(1))), "a network in evaluation")  # type: ignore[misc]


@NETWORKS.check(
    "seeds", "weights are drawn from torch's global generator: the same seed builds the same network"
)
def _seeds(case: Case) -> None:
    def build(space: StateSpace, seed: int = 0) -> nn.Module:
        (leaf,) = spaces(space)
        return _module(case, Ports(leaf.shape, 1), seed)

    for space, first in accepted(case, build, _spaces(case)):
        pairs = zip(first.state_dict().values(), build(space).state_dict().values(), strict=True)
        if not all(same(a, b) for a, b in pairs):
            raise ConformanceError(
                "Got different weights from equal seeds, expected the same: initialize with torch.nn.init."
            )


@NETWORKS.check("file", "saving and loading its state_dict preserves its outputs")
@torch.no_grad()
def _file(case: Case) -> None:
    for space, module in _modules(case):
        new = _module(case, Ports(space.shape, 2), seed=1).eval()
        through_file(module, new)
        state, told = _state(space), Told(_temperatures(_ROWS))
        if not same(_run(module, state, told), _run(new, state, told)):
            raise ConformanceError(
                "Got different outputs after a round trip through a file, expected equal ones: keep what is learned "
                "in parameters and buffers."
            )


@NETWORKS.check("gradient", "its outputs have finite gradients with respect to the state and the weights")
def _gradient(case: Case) -> None:
    for space, module in _modules(case):
        module.train()
        state = _state(space).requires_grad_()
        outputs = _run(module, state, Told(torch.zeros(1)))
        torch.autograd.backward(torch.stack([output.square().sum() for output in outputs]).sum())
        grads = [state.grad, *(weight.grad for weight in module.parameters() if weight.requires_grad)]
        known = [grad for grad in grads if grad is not None]
        if state.grad is None or not any(bool(grad.any()) for grad in known[1:]):
            raise ConformanceError(
                "Got outputs without gradient, expected gradients with respect to the state and the weights."
            )
        if not all(bool(grad.isfinite().all()) for grad in known):
            raise ConformanceError("Got a gradient with nan or infinity, expected finite numbers.")


@NETWORKS.check("labels", "with classes, no label and a label of -1 in a row mean the same")
@torch.no_grad()
def _labels(case: Case) -> None:
    try:
        modules = list(_modules(case, classes=_CLASSES))
    except ConformanceError as error:
        raise NotApplicable("The network takes no labels.") from error
    for space, module in modules:
        state, temperature = _state(space), torch.zeros(1)
        run = partial(_run, module, state)
        silent = run(Told(temperature))
        none = run(Told(temperature, torch.full((_ROWS,), -1)))
        label = torch.arange(_ROWS) % (_CLASSES + 1) - 1
        mixed = run(Told(temperature, label))
        for without, unknown, output in zip(silent, none, mixed, strict=True):
            require_close(unknown, without, "the label -1 means no label")
            require_close(
                output[label < 0],
                without[label < 0],
                "a row of label -1 must not depend on the labels of other rows",
            )
        if all(same(without, output) for without, output in zip(silent, mixed, strict=True)):
            raise ConformanceError(
                "Got the same outputs for every label, expected different ones: use `told.label`."
            )


@NETWORKS.check("untouched", "no state is changed in place")
@torch.no_grad()
def _untouched(case: Case) -> None:
    for space, module in _modules(case):
        state = _state(space)
        with untouched(state, "the network"):
            _run(module, state, Told(torch.zeros(1)))
