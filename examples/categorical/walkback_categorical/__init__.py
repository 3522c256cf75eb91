"""Sequences of symbols for walkback: a categorical operator, its prior, and a chain of Potts spins."""
