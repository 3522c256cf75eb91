"""Drawing samples: annealing from the prior, chains at one temperature, and what is built on them.

chains       steps of the operator, one state at a time; its names can be imported from `walkback.sampling`
plan         many samples in batches, recorded at given steps
readout      how a state is shown: itself, or the mean of a step from it
inpainting   chains with a part of every state held fixed
guidance     class-conditional chains, extrapolated away from unconditional ones
excursions   chains that heat some levels and cool them back in every step
wrapped      operators made of another operator: guided ones and excursions
"""

from __future__ import annotations

from walkback.sampling.chains import COLD, anneal, chain, cool, last, steps
from walkback.sampling.plan import SamplePlan, sample_frames

__all__ = ["COLD", "SamplePlan", "anneal", "chain", "cool", "last", "sample_frames", "steps"]
