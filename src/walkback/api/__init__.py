"""walkback from Python: `train`, `load`, `sample`, `inpaint`, `evaluate`, `diagnose`, the names of `walkback`."""
