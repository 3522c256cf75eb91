"""Construction of objects from names: devices, models, datasets."""
