"""Files on disk: checkpoints, training state, run directories, all written atomically."""
