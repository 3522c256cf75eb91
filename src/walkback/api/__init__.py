"""The Python interface: `train`, `load`, `sample`, `inpaint`, `evaluate`, `diagnose`, exported by `walkback`."""
