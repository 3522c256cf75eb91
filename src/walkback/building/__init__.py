"""From names to objects: devices, models, datasets."""
