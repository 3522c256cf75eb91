"""A Langevin operator for walkback: its drift is the gradient of a learned energy."""
