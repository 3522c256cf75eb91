"""The law that compiling an operator with `torch.compile` preserves its gradients.

    g = ∇ -log p_T(s | s),   for each parameter:   |g_compiled - g| ≤ ½ |g| + 10 |g_rounded - g|

g is computed in float32 and g_rounded in the precision of training, both by the operator's own forward pass. A lost
path makes an error of |g|; rounding makes an error of |g_rounded - g|, the only one where g is 0 by symmetry.

A miscompiled backward pass raises no error: training continues, and part of the network does not learn. PyTorch 2.13
miscompiled the gradient of nearest interpolation next to other branches, in bfloat16 on a CPU. Weights are perturbed
first, because layers initialized to 0 hide the layers before them, and are restored bit for bit afterwards.
"""

from __future__ import annotations

import os
import shutil
import warnings
from typing import TypeAlias

import torch
from torch import Tensor

from walkback.levels import tensor_levels
from walkback.operators import TransitionOperator
from walkback.schedules import Level
from walkback.state import State, device_of
from walkback.support.seeding import derive_seed, generator
from walkback.testing.cases import Case, ConformanceError, NotApplicable
from walkback.testing.kernels import HOT
from walkback.testing.operators import OPERATORS as OPERATORS  # re-exported, with the law below added to it
from walkback.testing.operators import probes

Gradients: TypeAlias = dict[str, Tensor]

_SHARE, _ROUNDING = 0.5, 10.0
_NEGLIGIBLE = 1e-5  # share of the largest gradient: effectively 0 in float32
_REPEATED = (
    0.01  # share of a gradient: atomic additions on a CUDA device change less, a new dropout mask more
)
_DISTURBANCE = 0.02
_ROWS = 16


def require_same_gradients(operator: TransitionOperator, state: State, level: Level, seed: int) -> None:
    """Raise an error if the gradients of a compiled operator differ from those of its own `forward`.

    Compares gradients in training mode, or in evaluation mode if training is random (dropout). An operator that is
    random in both is not checked. Weights, buffers, mode and the global generators are restored; gradients are
    cleared. Call it under the autocast context of training.

    Args:
        operator: Compiled in place (`operator.compile()`).
        state: States `(B, *E)` of the operator's chain.
        level: A level whose temperature is a tensor, as in training.
        seed: Seed of the perturbation of the weights.

    Raises:
        ConformanceError: The error of a gradient exceeds the bound above.
    """
    before = {name: tensor.detach().clone() for name, tensor in operator.state_dict().items()}
    was_training = operator.training
    device = device_of(state)
    try:
        _disturb(operator, seed)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for training in (True, False):
                operator.train(training)
                # Seeded once: with dropout, the two eager passes draw different masks and disagree, and gradients are
                # then compared in evaluation mode.
                torch.manual_seed(derive_seed(seed, "compiled"))
                with torch.autocast(device.type, enabled=False):
                    exact, again = (_gradients(operator, state, level) for _ in range(2))
                if all(
                    (again[name] - exact[name]).norm() <= _REPEATED * size for name, size in _sizes(exact)
                ):
                    rounded = _gradients(operator, state, level)
                    _refuse_others(_gradients(operator, state, level, compiled=True), exact, rounded)
                    return
    finally:
        operator.load_state_dict(before)
        operator.train(was_training)
        operator.zero_grad(set_to_none=True)


@torch.no_grad()
def _disturb(operator: TransitionOperator, seed: int) -> None:
    # A head initialized to zero blocks the gradients of all layers before it: nothing would be compared.
    noise = generator("cpu", seed, "disturbed")
    for parameter in operator.parameters():
        parameter.add_(_DISTURBANCE * torch.randn(parameter.shape, generator=noise).to(parameter))


def _gradients(
    operator: TransitionOperator, state: State, level: Level, *, compiled: bool = False
) -> Gradients:
    """Return the gradient of the mean of -log p over the rows, by parameter name."""
    operator.zero_grad(set_to_none=True)
    conditional = operator(state, level) if compiled else operator.forward(state, level)
    loss = -conditional.cooling(level).log_prob(state).mean()
    if loss.requires_grad:
        loss.backward()
    torch.clear_autocast_cache()  # its cast copies of the weights belong to this graph, which backward has freed
    return {
        name: parameter.grad for name, parameter in operator.named_parameters() if parameter.grad is not None
    }


def _sizes(gradients: Gradients) -> list[tuple[str, float]]:
    """Return the norms of the gradients that are not negligible, by name."""
    sizes = {name: gradient.norm().item() for name, gradient in gradients.items()}
    least = _NEGLIGIBLE * max(sizes.values(), default=0.0)
    return [(name, size) for name, size in sizes.items() if size > least]


def _refuse_others(found: Gradients, exact: Gradients, rounded: Gradients) -> None:
    shares = {}
    for name, size in _sizes(exact):
        gradient = exact[name]
        error = (found.get(name, torch.zeros_like(gradient)) - gradient).norm().item()
        allowed = _SHARE * size + _ROUNDING * (rounded[name] - gradient).norm().item()
        if not error <= allowed:  # written so that NaN is refused too
            shares[name] = error / size
    if shares:
        name = max(shares, key=lambda name: shares[name])
        raise ConformanceError(
            f"Got wrong gradients from the compiled operator ({len(shares)} of {len(exact)} parameters, '{name}' "
            f"off by {100 * shares[name]:.0f} % of its norm): PyTorch {torch.__version__} miscompiles its backward "
            "pass; rewrite the operations that use that parameter, or train without --compile."
        )


@OPERATORS.check("compiled-gradients", "torch.compile preserves the gradients of training")
def _compiled_gradients(case: Case) -> None:
    if not case.thorough:
        raise NotApplicable("Compilation takes a minute or more: ask for a thorough check.")
    if not any(shutil.which(compiler) for compiler in (os.environ.get("CXX", "g++"), "clang++")):
        raise NotApplicable("torch.compile needs a C++ compiler on the CPU, and there is none.")
    for precision in (torch.float32, torch.bfloat16):
        probe = next(probes(case))
        (level,) = tensor_levels((HOT,), torch.device("cpu"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own
            torch.compiler.reset()
            try:
                probe.operator.compile()
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
                    require_same_gradients(probe.operator, probe.states(_ROWS), level, seed=0)
            finally:
                torch.compiler.reset()
