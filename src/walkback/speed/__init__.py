"""Measurements of the training and sampling speed of a configuration on this machine."""
