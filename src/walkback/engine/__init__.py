"""The run itself: building parts, training, evaluating, stopping and resuming."""
