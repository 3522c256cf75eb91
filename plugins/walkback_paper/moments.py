"""Moments of the data that set an operator's scales.

    σ_max² = the largest eigenvalue of the data's covariance

This is the variance in the widest direction: noise of that variance makes one step forget every direction.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROWS = 1000


def largest_variance(data: Tensor) -> float:
    """Returns the largest eigenvalue of the covariance of examples `(N, *E)`, from at most 1,000 of them.

    >>> round(largest_variance(torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 6)
    4.5
    """
    rows = data[:_ROWS].flatten(1).double()
    rows = rows - rows.mean(0)
    # The Gram matrix of rows or of columns, whichever is smaller: they have the same nonzero eigenvalues.
    gram = rows @ rows.T if rows.shape[0] < rows.shape[1] else rows.T @ rows
    return float(torch.linalg.eigvalsh(gram)[-1] / rows.shape[0])
