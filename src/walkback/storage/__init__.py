"""Files on disk: checkpoints, training states and run directories, all written atomically."""
