"""Orthonormal bases of event space, fitted to data, and normal kernels that are diagonal in one.

    z = Uᵀ x       pixels        U = 1
                   eigenvectors  U of the data's covariance, Σ = U diag(λ) Uᵀ
                   cosine        orthonormal DCT-II along each axis, after one rotation of the channels
                   auto          eigenvectors of up to 1,024 dimensions, cosine above

The cosine basis nearly diagonalizes the covariance of natural images of any size, at a cost of O(N) numbers (see
docs/measured.md); its rotation is that of the eigenvectors of the channels' covariance. The first axis of an event of
three or more axes is that of the channels; events of fewer axes have none.

The variances of a direction are estimated on examples that did not choose the directions (5 folds): a sample covariance
overestimates its largest eigenvalues and underestimates its smallest ones, by which a density of held-out data suffers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from walkback.errors import ConfigurationError
from walkback.kernels import Divergent, Expecting, Kernel, NormalKernel, Reparametrized
from walkback.state import State, leaves
from walkback.support.constraints import Constrained, Constraint

BasisName: TypeAlias = Literal["pixels", "eigenvectors", "cosine", "auto"]

_LARGEST = 1024
_FOLDS = 5
_MIN_VARIANCE = 1e-10
_TOLERANCE = 1e-3


class Basis(nn.Module, ABC):
    """Orthonormal coordinates of events of one shape.

    Args:
        shape: Event shape E.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    @abstractmethod
    def coordinates(self, event: Tensor) -> Tensor:
        """Returns Uᵀ x for x `(B, *E)`, of the same shape."""

    @abstractmethod
    def event(self, coordinates: Tensor) -> Tensor:
        """Returns U z for z `(B, *E)`, of the same shape."""

    @abstractmethod
    def fit(self, centred: Tensor) -> None:
        """Chooses the directions from examples less their mean, `(N, *E)`."""


@final
class _Orthonormal(Constraint):
    """Square matrices U with Uᵀ U = 1: any other would make densities that do not integrate to 1."""

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        """Whether the matrix is one, a bool tensor."""
        exact = torch.eye(value.shape[-1], dtype=torch.float64, device=value.device)
        return (value.double().mT @ value.double() - exact).abs().amax((-2, -1)) < _TOLERANCE


@final
class PixelBasis(Basis):
    """The basis that data come in."""

    def coordinates(self, event: Tensor) -> Tensor:
        """Returns x."""
        return event

    def event(self, coordinates: Tensor) -> Tensor:
        """Returns z."""
        return coordinates

    def fit(self, centred: Tensor) -> None:
        """Does nothing: there is nothing to choose."""


@final
class EigenBasis(Basis, Constrained):
    """Eigenvectors of the data's covariance.

    Raises:
        ConfigurationError: The event has more than 1,024 dimensions.
    """

    vectors: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        size = math.prod(shape)
        if size > _LARGEST:
            raise ConfigurationError(
                f"The basis 'eigenvectors' supports at most {_LARGEST:,} dimensions, and a state has {size:,}: "
                "choose 'cosine'."
            )
        self.register_buffer("vectors", torch.eye(size))

    def coordinates(self, event: Tensor) -> Tensor:
        """Returns Uᵀ x, in the order of growing variance."""
        return (event.flatten(1) @ self.vectors).reshape(event.shape)

    def event(self, coordinates: Tensor) -> Tensor:
        """Returns U z."""
        return (coordinates.flatten(1) @ self.vectors.T).reshape(coordinates.shape)

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """The vectors are orthonormal."""
        return {"vectors": _Orthonormal()}

    @torch.no_grad()
    def fit(self, centred: Tensor) -> None:
        """Computes the eigenvectors in float64."""
        rows = centred.flatten(1).double()
        self.vectors.copy_(torch.linalg.eigh(rows.T @ rows)[1])


@final
class CosineBasis(Basis, Constrained):
    """Cosine transform along each axis, after a rotation of the channels."""

    rotation: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self._channels = shape[0] if len(shape) > 2 else 1
        self.register_buffer("rotation", torch.eye(self._channels))
        axes = shape[1:] if len(shape) > 2 else shape
        for number, length in enumerate(axes):
            self.register_buffer(f"cosines{number}", _cosines(length), persistent=False)
        self._axes = len(axes)

    def coordinates(self, event: Tensor) -> Tensor:
        """Returns the coefficients of each rotated channel, low frequencies first."""
        found = self._turned(event, self.rotation.T)
        for axis in range(self._axes):
            found = _along(found, self.get_buffer(f"cosines{axis}"), 2 + axis)
        return found.reshape(event.shape)

    def event(self, coordinates: Tensor) -> Tensor:
        """Returns the channels of which these are the coefficients."""
        found = coordinates.reshape(len(coordinates), self._channels, *coordinates.shape[-self._axes :])
        for axis in range(self._axes):
            found = _along(found, self.get_buffer(f"cosines{axis}").T, 2 + axis)
        return self._turned(found, self.rotation).reshape(coordinates.shape)

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """The axes of the rotation are orthonormal."""
        return {"rotation": _Orthonormal()}

    @torch.no_grad()
    def fit(self, centred: Tensor) -> None:
        """Chooses the rotation of the channels; a single channel has none."""
        values = centred.double().reshape(len(centred), self._channels, -1).transpose(0, 1).flatten(1)
        if self._channels > 1:
            self.rotation.copy_(torch.linalg.eigh(values @ values.T)[1])

    def _turned(self, event: Tensor, rotation: Tensor) -> Tensor:
        """Returns `(B, C, *axes)` with its channels turned."""
        split = event.reshape(len(event), self._channels, *event.shape[-self._axes :])
        return _along(split, rotation, 1) if self._channels > 1 else split


def _cosines(length: int) -> Tensor:
    """Returns the orthonormal DCT-II, `(length, length)`, one frequency a row."""
    place = torch.arange(length, dtype=torch.float64)
    rows = (math.pi / length * (place + 0.5) * place[:, None]).cos() * math.sqrt(2 / length)
    rows[0] /= math.sqrt(2)
    return rows.float()


def _along(values: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Returns `matrix` applied along an axis."""
    moved: Tensor = torch.tensordot(values, matrix, dims=([axis], [1])).movedim(-1, axis)
    return moved


def basis(name: BasisName, shape: tuple[int, ...]) -> Basis:
    """Returns a basis by name, unfitted.

    Raises:
        ConfigurationError: It does not support events of this shape.
    """
    kinds: dict[BasisName, type[Basis]] = {
        "pixels": PixelBasis,
        "eigenvectors": EigenBasis,
        "cosine": CosineBasis,
        "auto": EigenBasis if math.prod(shape) <= _LARGEST else CosineBasis,
    }
    return kinds[name](shape)


@torch.no_grad()
def fit(basis: Basis, data: Tensor) -> tuple[Tensor, Tensor]:
    """Fits a basis to examples `(N, *E)`; returns their mean `(*E)`, and the variance λ of each coordinate, `(*E)`."""
    mean = data.mean(0)
    centred = data - mean
    folds = torch.arange(len(data)) % min(_FOLDS, len(data))
    total = torch.zeros(data.shape[1:], dtype=torch.float64)
    for fold in range(int(folds.max()) + 1):
        # A fold of one example or two, of few data, has no variance of its own about the mean of all.
        basis.fit(centred[folds != fold] if len(data) > 1 else centred)
        total += basis.coordinates(centred[folds == fold]).double().square().sum(0)
    basis.fit(centred)
    return mean, (total / len(data)).clamp(min=_MIN_VARIANCE).to(data.dtype)


@final
class RotatedNormalKernel(Kernel, Reparametrized, Expecting, Divergent):
    """Normal distribution with independent coordinates in a basis.

    Args:
        mean: μ, `(B, *E)`, in the basis that data come in.
        variance: Of the coordinates, broadcastable to `(B, *E)`.
        basis: U.
    """

    def __init__(self, mean: Tensor, variance: Tensor, basis: Basis) -> None:
        self.mean = mean
        self.variance = variance
        self._basis = basis

    def sample(self, generator: torch.Generator) -> Tensor:
        """Returns μ + U √v ε with ε standard normal, `(B, *E)`."""
        with torch.no_grad():
            return self.transport(self.noise(generator)).detach()

    def expectation(self) -> Tensor:
        """Returns μ, `(B, *E)`."""
        return self.mean.detach()

    def noise(self, generator: torch.Generator) -> Tensor:
        """Draws standard normal numbers, `(B, *E)`."""
        mean = self.mean
        return torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)

    def transport(self, noise: State) -> Tensor:
        """Returns μ + U √v ε, `(B, *E)`."""
        (epsilon,) = leaves(noise)
        with torch.autocast(self.mean.device.type, enabled=False):
            return self.mean + self._basis.event(self.variance.sqrt() * epsilon)

    def log_prob(self, state: State) -> Tensor:
        """Returns the log-density, `(B,)`, nats."""
        (x,) = leaves(state)
        # Half precision would lose small distances: nats are sums of (x - μ)²/v with small v.
        with torch.autocast(self.mean.device.type, enabled=False):
            offset = self._basis.coordinates(x - self.mean)
            return self._centred(offset).log_prob(offset)

    def divergence_from(self, other: Kernel) -> Tensor | None:
        """`(B,)`, nats, from another `RotatedNormalKernel` in the same basis."""
        if not isinstance(other, RotatedNormalKernel) or other._basis is not self._basis:
            return None
        with torch.autocast(self.mean.device.type, enabled=False):
            offset = self._basis.coordinates(other.mean - self.mean)
            return self._centred(offset).divergence_from(NormalKernel(offset, other.variance))

    def _centred(self, offset: Tensor) -> NormalKernel:
        """Returns the law of Uᵀ (x - μ), for as many rows as `offset` has."""
        return NormalKernel(torch.zeros_like(offset), self.variance)
