"""Processes other than the tied one, and the objectives that go with them."""
