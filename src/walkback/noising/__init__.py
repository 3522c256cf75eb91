"""Noise that does not depend on an operator: its steps, marginals and posteriors in closed form.

    base       `Noise`: q(s_t | s_{t-1}), q(s_t | s_0) and q(s_{t-1} | s_t, s_0)
    gaussian   `GaussianNoise`, variance-exploding or variance-preserving
    discrete   `BitNoise` and `SymbolNoise`, which replace entries by uniform ones
    reversing  `Reversing`, operators that know the noise that they reverse
    visits     `Visits`, how jumps spread the rows of a batch over levels

The time of a state is τ_t = Σ_{i≤t} T_i, the total temperature of its steps (`Level.elapsed` is that of the colder
state). All closed forms depend on levels through T_t and τ only: rows may be at different levels, and any schedule of
temperatures is a noise schedule. A variance-preserving step of β_t has T_t σ²/σ_d² = -log(1 - β_t).
"""

from __future__ import annotations

from walkback.noising.base import Noise
from walkback.noising.discrete import BitNoise, SymbolNoise
from walkback.noising.gaussian import Form, GaussianNoise, Moments
from walkback.noising.reversing import Reversing
from walkback.noising.visits import Visits

__all__ = ["BitNoise", "Form", "GaussianNoise", "Moments", "Noise", "Reversing", "SymbolNoise", "Visits"]
