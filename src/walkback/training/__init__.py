"""Training: the loop, its updates and optimizer, and the run around them."""
