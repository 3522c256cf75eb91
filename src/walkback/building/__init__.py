"""From names to objects: devices, models, data sets."""
