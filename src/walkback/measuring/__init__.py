"""Measurements of a model: bounds, likelihoods, diagnostics, quality, speed; each ends in a `Report`."""
